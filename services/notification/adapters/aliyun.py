"""Aliyun SMS: SendSms and QuerySendDetails (2017-05-25) signed with ACS3-HMAC-SHA256, and the receipts that Aliyun pushes.

Which refusals are final stands in one table here; a refusal nobody has met yet is tried again, not given up.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from services.chassis.clock import Clock
from services.notification.adapters.lines import (
    APART,
    BEIJING,
    PATIENCE,
    AccountInvalid,
    Line,
    in_beijing,
    keyed,
    read_account,
    receipts_of,
    said,
    sha256,
)
from services.notification.ports import Accepted, MalformedReceipts, NoAnswer, Pushed, Receipt, Rejected, Sent

__all__ = ["PATIENCE", "AccountInvalid", "AliyunAccount", "AliyunSms", "canonical_query", "signed_headers"]

_ALGORITHM = "ACS3-HMAC-SHA256"
_DETAILS = 50  # of one page: the most there are
_REMEMBERED = timedelta(days=30)  # how long Aliyun can be asked about a message
_BEST_FIRST = (True, None, False)
_DELIVERED = {1: None, 2: False, 3: True}  # SendStatus: waits for its receipt, failed, arrived
_NO_CONTENT = sha256(b"")
_SIGNED_HEADERS = "host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version"

# Refusals of this one message that no waiting cures (Aliyun's error table, read 2026-11). What is not here is
# tried again: flow control, an empty balance, a template still in approval, a wrong key.
_PERMANENT = frozenset(
    {
        "isv.MOBILE_NUMBER_ILLEGAL",
        "isv.MOBILE_COUNT_OVER_LIMIT",
        "isv.INVALID_PARAMETERS",
        "isv.INVALID_JSON_PARAM",
        "isv.TEMPLATE_MISSING_PARAMETERS",
        "isv.TEMPLATE_PARAMS_ILLEGAL",
        "isv.PARAM_LENGTH_LIMIT",
        "isv.PARAM_NOT_SUPPORT_URL",
        "isv.SMS_CONTENT_ILLEGAL",
        "isv.BLACK_KEY_CONTROL_LIMIT",
        "MissingPhoneNumbers",
    }
)

# Over a limit for this number. Its words name the window: 触发分钟级流控Permits:1, 小时级, 天级 (sliding 24 hours).
_OVER_LIMIT: Final = "isv.BUSINESS_LIMIT_CONTROL"
_WINDOW: Final = re.compile("触发(分钟|小时|天)级流控")
_WAITS: Final = {"分钟": timedelta(minutes=1), "小时": timedelta(hours=1), "天": timedelta(hours=4)}


@dataclass(frozen=True, slots=True)
class AliyunAccount:
    endpoint: str
    access_key_id: str
    access_key_secret: bytes
    sign_name: str

    @classmethod
    def read(cls, path: Path) -> AliyunAccount:
        """An account file (JSON); the secret is in a file beside it."""
        return read_account(
            path,
            lambda content, endpoint, secret: cls(
                endpoint, str(content["access_key_id"]), secret, str(content["sign_name"])
            ),
            "access_key_secret_file",
        )


class AliyunSms:
    """One pooled client for the life of the process; close it with `aclose`."""

    name = "aliyun"
    shows_after = timedelta(
        seconds=30
    )  # what it took is among its details at once, with a receipt or without
    lists_all = True
    by_serial = False
    thanks: Mapping[str, object] = {"code": 0, "msg": "接收成功"}

    def __init__(self, account: AliyunAccount, *, clock: Clock, connections: int = 32) -> None:
        self._account = account
        self._clock = clock
        self.signature = f"【{account.sign_name}】"
        self._line = Line(account.endpoint, connections=connections, patience=PATIENCE)

    async def aclose(self) -> None:
        await self._line.aclose()

    async def send(
        self, to: str, template: str, variables: Mapping[str, str], text: str, reference: str
    ) -> Accepted:
        """`text` stays here: this carrier fills the approved template itself."""
        del text
        content = await self._call(
            "SendSms",
            {
                "PhoneNumbers": to,
                "SignName": self._account.sign_name,
                "TemplateCode": template,
                "TemplateParam": json.dumps(dict(variables), ensure_ascii=False, separators=(",", ":")),
                "OutId": reference,
            },
        )
        return Accepted(said(content.get("BizId")))

    async def find(self, to: str, since: datetime, reference: str) -> Sent | None:
        """Looks through what went to this number, day by day, the latest first. Of several copies the best counts."""
        today = self._clock.now().astimezone(BEIJING).date()
        first = max((since - APART).astimezone(BEIJING).date(), today - _REMEMBERED)
        day = today
        while day >= first:
            if found := await self._sent_on(day, to, reference):
                return min(found, key=lambda sent: _BEST_FIRST.index(sent.delivered))
            day -= timedelta(days=1)
        return None

    async def _sent_on(self, day: date, to: str, reference: str) -> list[Sent]:
        found: list[Sent] = []
        page = 1
        while True:
            content = await self._call(
                "QuerySendDetails",
                {
                    "PhoneNumber": to,
                    "SendDate": f"{day:%Y%m%d}",
                    "PageSize": str(_DETAILS),
                    "CurrentPage": str(page),
                },
            )
            details = _details(content)
            found += [_sent(one) for one in details if one.get("OutId") == reference]
            if len(details) < _DETAILS:
                return found
            page += 1

    async def _call(self, action: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        """What was answered with OK. Raises Rejected or NoAnswer."""
        query = canonical_query(parameters)
        headers = signed_headers(
            self._account, self._line.host, action, query, self._clock.now(), secrets.token_hex(16)
        )
        status, content = await self._line.post(f"/?{query}", {**headers, "accept": "application/json"})
        code = said((content or {}).get("Code"))
        if status == 429 or code.startswith("Throttling"):
            raise Rejected(code or "Throttling", permanent=False)
        if status >= 500 or content is None or not code:
            raise NoAnswer(f"status {status}", maybe_accepted=True)
        if status == 200 and code == "OK":
            return content
        wait = _wait(str(content.get("Message", ""))) if code == _OVER_LIMIT else None
        raise Rejected(code, permanent=code in _PERMANENT, wait=wait)

    def parse_receipts(self, raw: bytes) -> Pushed:
        return receipts_of(raw, _receipt)

    async def pull(self) -> None:
        """Its queue of receipts (MNS) is another product with another protocol: here one asks by number, with `find`."""
        return


def _wait(message: str) -> timedelta:
    """How long a number is over its limit. Of a day nobody knows the end, because the window slides."""
    match = _WINDOW.search(message)
    return _WAITS[match[1]] if match else _WAITS["小时"]


def canonical_query(parameters: Mapping[str, str]) -> str:
    """Sorted, RFC 3986: the same text is sent and signed."""
    return "&".join(
        f"{quote(name, safe='~')}={quote(parameters[name], safe='~')}" for name in sorted(parameters)
    )


def signed_headers(
    account: AliyunAccount,
    host: str,
    action: str,
    query: str,
    at: datetime,
    nonce: str,
    version: str = "2017-05-25",
) -> dict[str, str]:
    """What an empty POST to / with this query must carry."""
    headers = {
        "host": host,
        "x-acs-action": action,
        "x-acs-content-sha256": _NO_CONTENT,
        "x-acs-date": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": nonce,
        "x-acs-version": version,
    }
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = f"POST\n/\n{query}\n{lines}\n{_SIGNED_HEADERS}\n{_NO_CONTENT}"
    to_sign = f"{_ALGORITHM}\n{sha256(canonical.encode())}"
    signature = keyed(account.access_key_secret, to_sign).hex()
    headers["authorization"] = (
        f"{_ALGORITHM} Credential={account.access_key_id},SignedHeaders={_SIGNED_HEADERS},Signature={signature}"
    )
    return headers


def _details(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = content.get("SmsSendDetailDTOs")
    entries = entries.get("SmsSendDetailDTO") if isinstance(entries, dict) else entries
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        # An answer that cannot be read must never count as "was not sent".
        raise NoAnswer("unreadable details", maybe_accepted=False)
    return entries


def _sent(detail: Mapping[str, Any]) -> Sent:
    status = detail.get("SendStatus")
    if status not in _DELIVERED:
        raise NoAnswer("unknown send status", maybe_accepted=False)
    return Sent(_DELIVERED[status], said(detail.get("ErrCode")))


def _receipt(entry: Mapping[str, Any]) -> Receipt:
    success, reference = entry.get("success"), entry.get("out_id")
    if not isinstance(success, bool) or not isinstance(reference, str):
        raise MalformedReceipts("an entry lacks success or out_id")
    return Receipt(
        reference=reference,
        provider_ref=said(entry.get("biz_id")),
        delivered=success,
        code=said(entry.get("err_code")),
        at=in_beijing(entry.get("report_time")),
    )
