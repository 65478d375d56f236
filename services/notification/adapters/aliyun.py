"""Aliyun SMS: SendSms and QuerySendDetails (2017-05-25) signed with ACS3-HMAC-SHA256, and the receipts that Aliyun pushes.

Which refusals are final stands in one table here; a refusal nobody has met yet is tried again, not given up.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from services.chassis import wire
from services.chassis.clock import Clock
from services.notification.ports import Accepted, MalformedReceipts, NoAnswer, Receipt, Rejected, Sent

PATIENCE = 5.0  # real seconds for one call, connecting included
BODY_LIMIT = 64 * 1024
RECEIPTS_LIMIT = 4 * 1024 * 1024
_ALGORITHM = "ACS3-HMAC-SHA256"
_BEIJING = timezone(timedelta(hours=8))
_DETAILS = 50  # of one page: the most there are
_REMEMBERED = timedelta(days=30)  # how long Aliyun can be asked about a message
_BEST_FIRST = (True, None, False)
_DELIVERED = {1: None, 2: False, 3: True}  # SendStatus: waits for its receipt, failed, arrived
_NO_CONTENT = hashlib.sha256(b"").hexdigest()
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


class AccountInvalid(Exception):
    """The account file cannot be used; says which entry and why, never a value."""


@dataclass(frozen=True, slots=True)
class AliyunAccount:
    endpoint: str
    access_key_id: str
    access_key_secret: bytes
    sign_name: str

    @classmethod
    def read(cls, path: Path) -> AliyunAccount:
        """An account file (JSON); the secret is in a file beside it."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            account = cls(
                endpoint=str(content["endpoint"]).rstrip("/"),
                access_key_id=str(content["access_key_id"]),
                access_key_secret=(path.parent / content["access_key_secret_file"]).read_bytes().strip(),
                sign_name=str(content["sign_name"]),
            )
        except KeyError as error:
            raise AccountInvalid(f"{path.name}: entry {error} is missing") from None
        except (OSError, ValueError, TypeError) as error:
            raise AccountInvalid(f"{path.name}: cannot be read ({type(error).__name__})") from None
        if urlsplit(account.endpoint).scheme not in {"http", "https"} or not account.access_key_secret:
            raise AccountInvalid(f"{path.name}: endpoint is a URL and the secret is not empty")
        return account


class AliyunSms:
    """One pooled client for the life of the process; close it with `aclose`."""

    def __init__(self, account: AliyunAccount, *, clock: Clock, connections: int = 32) -> None:
        self._account = account
        self._clock = clock
        self._wire = wire.Wire(account.endpoint, connections=connections, patience=PATIENCE, limit=BODY_LIMIT)

    async def aclose(self) -> None:
        await self._wire.aclose()

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
        return Accepted(str(content.get("BizId", "")))

    async def find(self, to: str, since: datetime, reference: str) -> Sent | None:
        """Looks through what went to this number, day by day, the latest first. Of several copies the best counts."""
        today = self._clock.now().astimezone(_BEIJING).date()
        first = max(since.astimezone(_BEIJING).date(), today - _REMEMBERED)
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
            self._account, self._wire.host, action, query, self._clock.now(), secrets.token_hex(16)
        )
        try:
            status, _, raw = await self._wire.request(
                "POST", f"/?{query}", {**headers, "accept": "application/json"}
            )
        except wire.NoAnswer as error:
            raise NoAnswer(str(error), maybe_accepted=isinstance(error, wire.Lost)) from None
        content = _object(raw)
        code = str((content or {}).get("Code", ""))[:64]
        if status == 429 or code.startswith("Throttling"):
            raise Rejected(code or "Throttling", permanent=False)
        if status >= 500 or content is None or not code:
            raise NoAnswer(f"status {status}", maybe_accepted=True)
        if status == 200 and code == "OK":
            return content
        raise Rejected(code, permanent=code in _PERMANENT)

    def parse_receipts(self, raw: bytes) -> list[Receipt]:
        if len(raw) > RECEIPTS_LIMIT:
            raise MalformedReceipts("too large")
        try:
            entries = json.loads(raw)
        except (ValueError, RecursionError):
            raise MalformedReceipts("not JSON") from None
        if not isinstance(entries, list):
            raise MalformedReceipts("not an array")
        return [_receipt(entry) for entry in entries]


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
    to_sign = f"{_ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.new(account.access_key_secret, to_sign.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = (
        f"{_ALGORITHM} Credential={account.access_key_id},SignedHeaders={_SIGNED_HEADERS},Signature={signature}"
    )
    return headers


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


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
    return Sent(_DELIVERED[status], str(detail.get("ErrCode", ""))[:64])


def _receipt(entry: object) -> Receipt:
    if not isinstance(entry, dict):
        raise MalformedReceipts("an entry is no object")
    success, reference = entry.get("success"), entry.get("out_id")
    if not isinstance(success, bool) or not isinstance(reference, str):
        raise MalformedReceipts("an entry lacks success or out_id")
    try:
        at = datetime.strptime(str(entry.get("report_time")), "%Y-%m-%d %H:%M:%S").replace(tzinfo=_BEIJING)
    except ValueError:
        at = None
    return Receipt(
        reference=reference,
        provider_ref=str(entry.get("biz_id", "")),
        delivered=success,
        code=str(entry.get("err_code", ""))[:64],
        at=at.astimezone(UTC) if at else None,
    )
