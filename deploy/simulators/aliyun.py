"""The Aliyun SMS carrier: SendSms (2017-05-25) behind real ACS3-HMAC-SHA256, its limits, and its receipts.

Limits as Aliyun's page "什么是短信发送流控限制" (2881383) has them for notices: 50 in sliding 24 hours for one number,
signature and template. It names none for the same text in 30 seconds.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections import deque
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

from deploy.simulators.credentials import AliyunWorld
from deploy.simulators.http import Reply, Request
from deploy.simulators.order_book import BEIJING
from deploy.simulators.sms_carrier import (
    DAY,
    DEAD_PREFIX,
    NUMBER,
    REFUSED_PREFIX,
    SILENT_PREFIX,
    Message,
    Refusal,
    SmsCarrier,
    hashed,
    pieces,
)

__all__ = ["DEAD_PREFIX", "REFUSED_PREFIX", "SILENT_PREFIX", "AliyunCarrier", "read_templates"]

ALGORITHM = "ACS3-HMAC-SHA256"
VERSION = "2017-05-25"
_FRESH = timedelta(minutes=15)
_DAILY_LIMIT = 50  # notices per number and template in sliding 24 h
_LARGEST_PAGE = 50
_REMEMBERED = timedelta(days=30)
_SEND_STATUS = {"sent": 1, "undelivered": 2, "delivered": 3}  # 1: no receipt yet
_TEMPLATE_CODE = re.compile(r"SMS_[0-9]+")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
_AUTHORIZATION = re.compile(r"Credential=([^,]+),SignedHeaders=([^,]+),Signature=([0-9a-f]{64})")


class AliyunCarrier(SmsCarrier):
    """Texts have ${variables}."""

    name = "aliyun"
    dead_code = "MOBILE_NOT_ON_SERVICE"
    delivered_code = "DELIVERED"

    def __init__(self, world: AliyunWorld, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._world = world
        self._nonces: set[str] = set()
        self._used: deque[tuple[datetime, str]] = deque()

    def _unavailable(self, status: int) -> Reply:
        return _api_reply(
            status, "ServiceUnavailable", "The request has failed due to a temporary failure of the server."
        )

    def _answer(self, request: Request) -> Reply:
        try:
            answer = self._refusing(lambda: self._do(request))
        except Refusal as refusal:
            return _api_reply(refusal.status, refusal.code, refusal.message)
        return Reply.of({"Code": "OK", "Message": "OK", "RequestId": _request_id(), **answer})

    def _do(self, request: Request) -> dict[str, Any]:
        parameters = self._verify(request)
        if self.throttled:
            raise Refusal(429, "Throttling.User", "Request was denied due to user flow control.")
        action = request.headers.get("x-acs-action", "")
        known = action in ("SendSms", "QuerySendDetails")
        if not known or request.headers.get("x-acs-version") != VERSION:
            raise Refusal(404, "InvalidAction.NotFound", "Specified api is not found.")
        if action == "QuerySendDetails":
            self.asked += 1
            return self._details(parameters)
        return {"BizId": self._send(parameters).biz_id}

    def _send(self, parameters: Mapping[str, str]) -> Message:
        number = parameters.get("PhoneNumbers", "")
        template = parameters.get("TemplateCode", "")
        if not number:
            raise Refusal(400, "MissingPhoneNumbers", "PhoneNumbers is mandatory for this action.")
        if not NUMBER.fullmatch(number) or number.startswith(REFUSED_PREFIX):
            raise Refusal(200, "isv.MOBILE_NUMBER_ILLEGAL", "手机号码格式错误")
        if parameters.get("SignName") != self._world.sign_name:
            raise Refusal(200, "isv.SMS_SIGNATURE_ILLEGAL", "短信签名不合法")
        text = self._render(template, parameters.get("TemplateParam", ""))
        if any(word in text for word in self.forbidden):
            raise Refusal(200, "isv.SMS_CONTENT_ILLEGAL", "短信内容包含禁止发送内容")
        key = (hashed(number), template)
        if not self._within(key, DAY, _DAILY_LIMIT):
            raise Refusal(200, "isv.BUSINESS_LIMIT_CONTROL", "触发天级流控Permits:50")
        self._count(key)
        biz_id = f"{len(self.messages):09d}^{int(self._clock.now().timestamp())}"
        return self._take(number, template, text, parameters.get("OutId", ""), biz_id)

    def _details(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """What went to one number on one day (in Beijing), oldest first, a page at a time."""
        number, day = parameters.get("PhoneNumber", ""), parameters.get("SendDate", "")
        if not NUMBER.fullmatch(number) or number.startswith(REFUSED_PREFIX):
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
        sent = [one for one in self._went_to(number) if one.at.astimezone(BEIJING).date() == asked]
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
        if not self._is_new(headers.get("x-acs-signature-nonce", ""), now):
            raise Refusal(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
        return dict(pairs)

    def _is_new(self, nonce: str, now: datetime) -> bool:
        """Whether it was not used as long as its date would be taken. What is older is forgotten one by one: in a storm
        every call would else look through all of them.
        """
        while self._used and self._used[0][0] <= now - 2 * _FRESH:
            self._nonces.discard(self._used.popleft()[1])
        if not nonce or nonce in self._nonces:
            return False
        self._nonces.add(nonce)
        self._used.append((now, nonce))
        return True

    def _receipt(self, message: Message, number: str, now: datetime) -> dict[str, Any]:
        return {
            "phone_number": number,
            "send_time": f"{message.at.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}",
            "report_time": f"{now.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}",
            "success": message.state == "delivered",
            "err_code": message.code,
            "err_msg": "用户接收成功" if message.state == "delivered" else "空号",
            "sms_size": str(pieces(f"【{self._world.sign_name}】{message.text}")),
            "biz_id": message.biz_id,
            "out_id": message.out_id,
        }

    def _thanked(self, answer: Mapping[str, Any]) -> bool:
        return answer.get("code") == 0


def read_templates(path: Path) -> dict[str, str]:
    """The approved texts: a JSON object, code → text with ${variables}."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {str(code): str(text) for code, text in content.items()}


def _api_reply(status: int, code: str, message: str) -> Reply:
    return Reply.of({"RequestId": _request_id(), "Code": code, "Message": message}, status)


def _request_id() -> str:
    return secrets.token_hex(16).upper()
