"""The Aliyun SMS carrier: SendSms (2017-05-25) behind real ACS3-HMAC-SHA256, its limits, and its receipts.

Numbers with a reserved prefix behave badly, so that any script can have a dead number.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

from deploy.simulators.agenda import Agenda
from deploy.simulators.credentials import AliyunWorld
from deploy.simulators.http import Reply, Request
from deploy.simulators.journal import Journal
from deploy.simulators.order_book import BEIJING
from deploy.simulators.outage import Outage, Weather
from services.chassis.clock import Clock
from services.chassis.wire import NoAnswer, Wires

ALGORITHM = "ACS3-HMAC-SHA256"
VERSION = "2017-05-25"
DEAD_PREFIX = "1990000"  # accepted, then 空号
SILENT_PREFIX = "1990001"  # accepted, never a receipt
REFUSED_PREFIX = "1990002"  # refused as illegal at once
_FRESH = timedelta(minutes=15)
_DAY = timedelta(days=1)
_DAILY_LIMIT = 50  # notices per number and template in sliding 24 h
_REPEATS = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=10))
_LARGEST_PAGE = 50
_REMEMBERED = timedelta(days=30)
_SEND_STATUS = {"sent": 1, "undelivered": 2, "delivered": 3}  # 1: no receipt yet
_BATCH = 500
_PATIENCE = 5.0
_GATHERING = 0.02  # real seconds in which receipts due at one moment come together
_NUMBER = re.compile(r"1[3-9][0-9]{9}")
_TEMPLATE_CODE = re.compile(r"SMS_[0-9]+")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
_AUTHORIZATION = re.compile(r"Credential=([^,]+),SignedHeaders=([^,]+),Signature=([0-9a-f]{64})")


class Refusal(Exception):
    """`status` 200 is a business answer, anything else a refusal of the API itself."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message


@dataclass(slots=True)
class Message:
    biz_id: str
    out_id: str
    to: str
    """SHA-256 of the number: the book is read by others and needs no numbers."""
    template: str
    text: str
    at: datetime
    state: str = "sent"
    code: str = ""


class SmsCarrier:
    """`templates`: code → approved text with ${variables}; empty: any well-formed code is approved."""

    def __init__(
        self,
        world: AliyunWorld,
        clock: Clock,
        agenda: Agenda,
        journal: Journal,
        client: Wires,
        *,
        templates: Mapping[str, str],
        receipts_url: str | None,
        receipt_delay: timedelta,
        receipt_grid: timedelta,
    ) -> None:
        self._world = world
        self._clock = clock
        self._agenda = agenda
        self._journal = journal
        self._templates = templates
        self._delay = receipt_delay
        self._grid = receipt_grid
        self._client = client
        self._nonces: dict[str, datetime] = {}
        self._sent: dict[tuple[str, str], deque[datetime]] = {}
        self._receipts: dict[datetime, list[tuple[Message, str]]] = {}
        self.receipts_url = receipts_url
        self.weather = Weather(clock)
        self.messages: list[Message] = []
        self.refused: dict[str, int] = {}
        self.asked = 0
        """Questions about what was sent."""
        self.receipts_pushed = 0
        self.receipts_given_up = 0
        self.throttled_until: datetime | None = None
        self._remember()

    async def handle(self, request: Request) -> Reply:
        outage = self.weather.meet()
        if outage is Outage.REFUSE:
            return _api_reply(503, "ServiceUnavailable", "The request has failed due to a temporary failure.")
        if outage is Outage.HANG:
            await asyncio.sleep(60)
            return _api_reply(504, "ServiceUnavailable", "The request has failed due to a temporary failure.")
        try:
            parameters = self._verify(request)
            if self.throttled_until is not None and self._clock.now() < self.throttled_until:
                raise Refusal(429, "Throttling.User", "Request was denied due to user flow control.")
            action = request.headers.get("x-acs-action", "")
            known = action in ("SendSms", "QuerySendDetails")
            if not known or request.headers.get("x-acs-version") != VERSION:
                raise Refusal(404, "InvalidAction.NotFound", "Specified api is not found.")
            if action == "QuerySendDetails":
                self.asked += 1
                answer = self._details(parameters)
            else:
                answer = {"BizId": self._send(parameters).biz_id}
        except Refusal as refusal:
            self.refused[refusal.code] = self.refused.get(refusal.code, 0) + 1
            return _api_reply(refusal.status, refusal.code, refusal.message)
        if outage is Outage.LOSE:
            return _api_reply(502, "ServiceUnavailable", "Bad gateway.")
        return Reply.of({"Code": "OK", "Message": "OK", "RequestId": _request_id(), **answer})

    def throttle(self, seconds: float) -> None:
        self.throttled_until = self._clock.now() + timedelta(seconds=seconds)

    def waiting_for_receipt(self) -> int:
        return sum(map(len, self._receipts.values()))

    def _send(self, parameters: Mapping[str, str]) -> Message:
        number = parameters.get("PhoneNumbers", "")
        template = parameters.get("TemplateCode", "")
        if not number:
            raise Refusal(400, "MissingPhoneNumbers", "PhoneNumbers is mandatory for this action.")
        if not _NUMBER.fullmatch(number) or number.startswith(REFUSED_PREFIX):
            raise Refusal(200, "isv.MOBILE_NUMBER_ILLEGAL", "手机号码格式错误")
        if parameters.get("SignName") != self._world.sign_name:
            raise Refusal(200, "isv.SMS_SIGNATURE_ILLEGAL", "短信签名不合法")
        text = self._render(template, parameters.get("TemplateParam", ""))
        now = self._clock.now()
        to = hashlib.sha256(number.encode()).hexdigest()
        recent = self._sent.setdefault((to, template), deque())
        while recent and recent[0] <= now - _DAY:
            recent.popleft()
        if len(recent) >= _DAILY_LIMIT:
            raise Refusal(200, "isv.BUSINESS_LIMIT_CONTROL", "触发天级流控Permits:50")
        recent.append(now)
        message = Message(
            f"{len(self.messages):09d}^{int(now.timestamp())}",
            parameters.get("OutId", ""),
            to,
            template,
            text,
            now,
        )
        self.messages.append(message)
        self._journal.append(
            {
                "did": "send",
                "biz_id": message.biz_id,
                "out_id": message.out_id,
                "to": to,
                "template": template,
                "text": text,
                "at": now.isoformat(),
            }
        )
        if not number.startswith(SILENT_PREFIX):
            self._plan_receipt(message, number)
        return message

    def _details(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """What went to one number on one day (in Beijing), oldest first, a page at a time."""
        number, day = parameters.get("PhoneNumber", ""), parameters.get("SendDate", "")
        if not _NUMBER.fullmatch(number) or number.startswith(REFUSED_PREFIX):
            raise Refusal(200, "isv.MOBILE_NUMBER_ILLEGAL", "手机号码格式错误")
        try:
            size, page = int(parameters["PageSize"]), int(parameters["CurrentPage"])
            asked = date.fromisoformat(day)
        except (KeyError, ValueError):
            raise Refusal(200, "isv.INVALID_PARAMETERS", "参数格式不正确") from None
        if not 1 <= size <= _LARGEST_PAGE or page < 1:
            raise Refusal(200, "isv.INVALID_PARAMETERS", "参数格式不正确")
        if len(day) != 8 or asked < (self._clock.now() - _REMEMBERED).astimezone(BEIJING).date():
            raise Refusal(200, "isv.DATE_ERROR", "只能查询最近30天的记录")
        to = hashlib.sha256(number.encode()).hexdigest()
        sent = [one for one in self.messages if one.to == to and one.at.astimezone(BEIJING).date() == asked]
        return {
            "TotalCount": len(sent),
            "SmsSendDetailDTOs": {
                "SmsSendDetailDTO": [
                    {
                        "PhoneNum": number,
                        "OutId": one.out_id,
                        "TemplateCode": one.template,
                        "Content": one.text,
                        "SendDate": f"{one.at.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}",
                        "SendStatus": _SEND_STATUS[one.state],
                        "ErrCode": one.code,
                    }
                    for one in sent[(page - 1) * size : page * size]
                ]
            },
        }

    def _render(self, template: str, parameters: str) -> str:
        pattern = self._templates.get(template)
        if not self._templates and _TEMPLATE_CODE.fullmatch(template):
            pattern = ""
        if pattern is None:
            raise Refusal(200, "isv.SMS_TEMPLATE_ILLEGAL", "短信模版不合法")
        try:
            variables = json.loads(parameters) if parameters else {}
        except ValueError:
            variables = None
        if not isinstance(variables, dict) or not all(isinstance(v, str) for v in variables.values()):
            raise Refusal(200, "isv.INVALID_JSON_PARAM", "JSON参数不合法，只接受字符串值")
        if not pattern:
            return " ".join(variables.values())
        missing = [name for name in _PLACEHOLDER.findall(pattern) if name not in variables]
        if missing:
            raise Refusal(200, "isv.TEMPLATE_MISSING_PARAMETERS", f"模版缺少变量 {missing[0]}")
        text = _PLACEHOLDER.sub(lambda match: str(variables[match[1]]), pattern)
        if len(text) > 500:
            raise Refusal(200, "isv.PARAM_LENGTH_LIMIT", "参数超出长度限制")
        return text

    def _verify(self, request: Request) -> dict[str, str]:
        """The parameters, when signature, date and nonce are right: over the request as it came."""
        headers = request.headers
        scheme, _, rest = headers.get("authorization", "").partition(" ")
        match = _AUTHORIZATION.fullmatch(rest)
        if scheme != ALGORITHM or match is None:
            raise Refusal(400, "MissingAuthorization", "Authorization is mandatory for this action.")
        key_id, names, signature = match.groups()
        if key_id != self._world.access_key_id:
            raise Refusal(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
        signed = names.split(";")
        must = {name for name in headers if name == "host" or name.startswith("x-acs-")}
        if sorted(signed) != signed or not must <= set(signed) or not set(signed) <= set(headers):
            raise Refusal(400, "IncompleteSignature", "The request signature does not cover the headers.")
        content_hash = hashlib.sha256(request.body).hexdigest()
        if headers.get("x-acs-content-sha256") != content_hash:
            raise Refusal(400, "SignatureDoesNotMatch", "x-acs-content-sha256 does not match the body.")
        pairs = sorted(parse_qsl(request.query, keep_blank_values=True))
        query = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs)
        lines = "".join(f"{name}:{headers[name].strip()}\n" for name in signed)
        canonical = f"{request.method}\n{request.raw_path}\n{query}\n{lines}\n{names}\n{content_hash}"
        to_sign = f"{ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        right = hmac.new(self._world.access_key_secret.encode(), to_sign.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(right, signature):
            raise Refusal(400, "SignatureDoesNotMatch", "Specified signature does not match our calculation.")
        try:
            date = datetime.fromisoformat(headers["x-acs-date"])
            if not _DATE.fullmatch(headers["x-acs-date"]):
                raise ValueError("another ISO 8601 form")
        except (KeyError, ValueError):
            raise Refusal(
                400, "InvalidTimeStamp.Format", "Specified time stamp is not well formatted."
            ) from None
        now = self._clock.now()
        if abs(now - date) > _FRESH:
            raise Refusal(400, "InvalidTimeStamp.Expired", "Specified time stamp is expired.")
        nonce = headers.get("x-acs-signature-nonce", "")
        if not nonce or self._nonces.get(nonce, now - _DAY) > now - 2 * _FRESH:
            raise Refusal(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
        self._nonces[nonce] = now
        if len(self._nonces) > 50_000:
            self._nonces = {known: at for known, at in self._nonces.items() if at > now - 2 * _FRESH}
        return dict(pairs)

    # Receipts

    def _plan_receipt(self, message: Message, number: str) -> None:
        due = message.at + self._delay
        if self._grid:
            due += -(due - datetime(1970, 1, 1, tzinfo=UTC)) % self._grid
        batch = self._receipts.get(due)
        if batch is None:
            batch = self._receipts[due] = []
            self._agenda.add(due, lambda: self._push_all(due))
        batch.append((message, number))

    async def _push_all(self, due: datetime) -> None:
        await asyncio.sleep(_GATHERING)
        batch = self._receipts.pop(due)
        for start in range(0, len(batch), _BATCH):
            await self._push(batch[start : start + _BATCH], 0)

    async def _push(self, batch: list[tuple[Message, str]], attempt: int) -> None:
        if (until := self.weather.until) is not None:
            self._agenda.add(until, lambda: self._push(batch, attempt))
            return
        now = self._clock.now()
        content = [self._receipt(message, number, now) for message, number in batch]
        if await self._post(content):
            self.receipts_pushed += len(batch)
            for message, number in batch:
                message.state = "undelivered" if number.startswith(DEAD_PREFIX) else "delivered"
                message.code = "MOBILE_NOT_ON_SERVICE" if message.state == "undelivered" else "DELIVERED"
                self._journal.append({"did": "receipt", "biz_id": message.biz_id, "state": message.state})
        elif attempt < len(_REPEATS):
            self._agenda.add(self._clock.now() + _REPEATS[attempt], lambda: self._push(batch, attempt + 1))
        else:
            self.receipts_given_up += len(batch)

    def _receipt(self, message: Message, number: str, now: datetime) -> dict[str, Any]:
        dead = number.startswith(DEAD_PREFIX)
        return {
            "phone_number": number,
            "send_time": f"{message.at.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}",
            "report_time": f"{now.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}",
            "success": not dead,
            "err_code": "MOBILE_NOT_ON_SERVICE" if dead else "DELIVERED",
            "err_msg": "空号" if dead else "用户接收成功",
            "sms_size": str(_pieces(message.text)),
            "biz_id": message.biz_id,
            "out_id": message.out_id,
        }

    async def _post(self, content: list[dict[str, Any]]) -> bool:
        if self.receipts_url is None:
            return False
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        try:
            answer = await self._client.request(
                "POST", self.receipts_url, {"Content-Type": "application/json"}, body, _PATIENCE
            )
            return answer.status == 200 and json.loads(answer.body).get("code") == 0
        except (NoAnswer, ValueError, AttributeError):
            return False

    def _remember(self) -> None:
        """The book of earlier runs. Receipts still owed are lost: numbers are not kept."""
        by_biz_id: dict[str, Message] = {}
        for entry in self._journal.entries():
            if entry["did"] == "send":
                message = Message(
                    entry["biz_id"],
                    entry["out_id"],
                    entry["to"],
                    entry["template"],
                    entry["text"],
                    datetime.fromisoformat(entry["at"]),
                )
                by_biz_id[message.biz_id] = message
                self.messages.append(message)
            else:
                by_biz_id[entry["biz_id"]].state = entry["state"]


def read_templates(path: Path) -> dict[str, str]:
    """The approved texts: a JSON object, code → text with ${variables}."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {str(code): str(text) for code, text in content.items()}


def _pieces(text: str) -> int:
    """70 characters are one message; longer ones are cut into pieces of 67."""
    return 1 if len(text) <= 70 else -(-len(text) // 67)


def _api_reply(status: int, code: str, message: str) -> Reply:
    return Reply.of({"RequestId": _request_id(), "Code": code, "Message": message}, status)


def _request_id() -> str:
    return secrets.token_hex(16).upper()
