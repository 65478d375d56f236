"""Tencent Cloud SMS (2021-01-11, JSON) signed with TC3-HMAC-SHA256: sending, its receipts by push and by pull, asking by number.

A pushed receipt carries Tencent's own number of the message and not our reference. A pulled one carries our reference too,
once Tencent has switched that on for the account (it does so on request; without it `find` cannot tell and says so).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from services.chassis.clock import Clock
from services.notification.adapters.lines import (
    APART,
    PATIENCE,
    Line,
    each_of,
    in_beijing,
    keyed,
    read_account,
    receipts_of,
    said,
    sha256,
)
from services.notification.ports import Accepted, MalformedReceipts, NoAnswer, Pushed, Receipt, Rejected, Sent

__all__ = ["PATIENCE", "TencentAccount", "TencentSms", "signed_headers"]

_ALGORITHM: Final = "TC3-HMAC-SHA256"
_SERVICE: Final = "sms"
_VERSION: Final = "2021-01-11"
_CONTENT_TYPE: Final = "application/json; charset=utf-8"
_SIGNED_HEADERS: Final = "content-type;host;x-tc-action"
_PAGE: Final = 100  # of one pull: the most there are
_REMEMBERED: Final = timedelta(days=7)  # how long Tencent can be asked about a number
_BEST_FIRST: Final = (True, False)
_DELIVERED: Final = {"SUCCESS": True, "FAIL": False}

# Refusals of this one message that no waiting cures (Tencent's table of error codes, document 382/59177, read 2026-11).
# What is not here is tried again: flow control, an empty package, arrears, a text still in approval, a wrong key.
_PERMANENT: Final = frozenset(
    {
        "FailedOperation.ContainSensitiveWord",
        "FailedOperation.PhoneNumberInBlacklist",
        "FailedOperation.PhoneNumberParseFail",
        "FailedOperation.TemplateParamSetNotMatchApprovedTemplate",
        "InvalidParameter.DirtyWordFound",
        "InvalidParameterValue.ContentLengthLimit",
        "InvalidParameterValue.IncorrectPhoneNumber",
        "InvalidParameterValue.ProhibitedUseUrlInTemplateParameter",
        "InvalidParameterValue.TemplateParameterFormatError",
        "InvalidParameterValue.TemplateParameterLengthLimit",
        "MissingParameter.EmptyPhoneNumberSet",
        "UnsupportedOperation.ChineseMainlandTemplateToGlobalPhone",
        "UnsupportedOperation.UnsupportedRegion",
    }
)
# Over a limit for this number, or for the account: a delay. The day is one of the calendar, in Beijing.
_WAITS: Final = {
    "LimitExceeded.PhoneNumberThirtySecondLimit": timedelta(seconds=30),
    "LimitExceeded.PhoneNumberOneHourLimit": timedelta(hours=1),
    "LimitExceeded.DeliveryFrequencyLimit": timedelta(minutes=1),
    "LimitExceeded.PhoneNumberDailyLimit": timedelta(hours=4),
    "LimitExceeded.PhoneNumberSameContentDailyLimit": timedelta(hours=4),
    "LimitExceeded.AppDailyLimit": timedelta(hours=4),
    "LimitExceeded.AppMainlandChinaDailyLimit": timedelta(hours=4),
}
# It says itself that it does not know what became of the message.
_UNKNOWN: Final = frozenset({"InternalError.Timeout", "InternalError.SendAndRecvFail"})


@dataclass(frozen=True, slots=True)
class TencentAccount:
    endpoint: str
    secret_id: str
    secret_key: bytes
    sdk_app_id: str
    sign_name: str
    region: str

    @classmethod
    def read(cls, path: Path) -> TencentAccount:
        """An account file (JSON); the secret is in a file beside it."""
        return read_account(
            path,
            lambda content, endpoint, secret: cls(
                endpoint,
                str(content["secret_id"]),
                secret,
                str(content["sdk_app_id"]),
                str(content["sign_name"]),
                str(content.get("region", "ap-guangzhou")),
            ),
            "secret_key_file",
        )


class TencentSms:
    """One pooled client for the life of the process; close it with `aclose`."""

    name = "tencent"
    # Only what has a receipt can be found, and most have one within minutes.
    shows_after = timedelta(minutes=10)
    lists_all = False
    by_serial = True
    thanks: Mapping[str, object] = {"result": 0, "errmsg": "OK"}

    def __init__(self, account: TencentAccount, *, clock: Clock, connections: int = 32) -> None:
        self._account = account
        self._clock = clock
        self.signature = f"【{account.sign_name}】"
        self._line = Line(account.endpoint, connections=connections, patience=PATIENCE)

    async def aclose(self) -> None:
        await self._line.aclose()

    async def send(
        self, to: str, template: str, variables: Mapping[str, str], text: str, reference: str
    ) -> Accepted:
        """`text` stays here: this carrier fills the approved template itself, by the places of its variables."""
        del text
        content = await self._call(
            "SendSms",
            {
                "PhoneNumberSet": [f"+86{to}"],
                "SmsSdkAppId": self._account.sdk_app_id,
                "SignName": self._account.sign_name,
                "TemplateId": template,
                "TemplateParamSet": list(variables.values()),
                "SessionContext": reference,
            },
        )
        sent = content.get("SendStatusSet")
        if not isinstance(sent, list) or len(sent) != 1 or not isinstance(sent[0], dict):
            raise NoAnswer("an answer without the message's status", maybe_accepted=True)
        code = said(sent[0].get("Code"))
        if code != "Ok":
            raise _refused(code)
        return Accepted(said(sent[0].get("SerialNo")))

    async def find(self, to: str, since: datetime, reference: str) -> Sent | None:
        """Looks through the receipts of this number; what has none yet is not among them."""
        at = self._clock.now()
        content = await self._call(
            "PullSmsSendStatusByPhoneNumber",
            {
                "BeginTime": int(max(since - APART, at - _REMEMBERED).timestamp()),
                "EndTime": int(at.timestamp()) + 1,
                "Offset": 0,  # it knows no other
                "Limit": _PAGE,
                "PhoneNumber": f"+86{to}",
                "SmsSdkAppId": self._account.sdk_app_id,
            },
        )
        statuses = _statuses(content)
        if any(not status.get("SessionContext") for status in statuses):
            raise NoAnswer("receipts without our reference", maybe_accepted=False)
        if len(statuses) >= _PAGE:
            raise NoAnswer("more receipts than one answer holds", maybe_accepted=False)
        mine = [_pulled(status) for status in statuses if status["SessionContext"] == reference]
        found = [receipt for receipt in mine if receipt is not None]
        if len(found) < len(mine):
            raise NoAnswer("unknown report status", maybe_accepted=False)
        if not found:
            return None
        best = min(found, key=lambda receipt: _BEST_FIRST.index(receipt.delivered))
        return Sent(best.delivered, best.code)

    async def pull(self) -> Pushed:
        """The next receipts, at most a hundred; what was pulled does not come again, so one that is odd spoils no other."""
        content = await self._call(
            "PullSmsSendStatus", {"Limit": _PAGE, "SmsSdkAppId": self._account.sdk_app_id}
        )
        statuses = content.get("PullSmsSendStatusSet")
        if not isinstance(statuses, list):
            raise NoAnswer("unreadable receipts", maybe_accepted=False)
        return each_of(statuses, _taken)

    def parse_receipts(self, raw: bytes) -> Pushed:
        return receipts_of(raw, _pushed)

    async def _call(self, action: str, parameters: Mapping[str, object]) -> Mapping[str, Any]:
        """What stands in the response. Raises Rejected or NoAnswer."""
        content = json.dumps(parameters, ensure_ascii=False, separators=(",", ":")).encode()
        headers = signed_headers(self._account, self._line.host, action, content, self._clock.now())
        status, answer = await self._line.post("/", headers, content)
        response = (answer or {}).get("Response")
        if status == 429:
            raise Rejected("RequestLimitExceeded", permanent=False)
        if status >= 500 or not isinstance(response, dict):
            raise NoAnswer(f"status {status}", maybe_accepted=True)
        error = response.get("Error")
        if error is None and status == 200:
            return response
        raise _refused(said(error.get("Code")) if isinstance(error, dict) else "")


def signed_headers(
    account: TencentAccount,
    host: str,
    action: str,
    content: bytes,
    at: datetime,
    *,
    service: str = _SERVICE,
    signed: str = _SIGNED_HEADERS,
) -> dict[str, str]:
    """What a POST to / with this body must carry."""
    headers = {"content-type": _CONTENT_TYPE, "host": host, "x-tc-action": action.lower()}
    lines = "".join(f"{name}:{headers[name]}\n" for name in signed.split(";"))
    canonical = f"POST\n/\n\n{lines}\n{signed}\n{sha256(content)}"
    timestamp = int(at.timestamp())
    day = f"{at.astimezone(UTC):%Y-%m-%d}"
    scope = f"{day}/{service}/tc3_request"
    to_sign = f"{_ALGORITHM}\n{timestamp}\n{scope}\n{sha256(canonical.encode())}"
    key = keyed(keyed(keyed(b"TC3" + account.secret_key, day), service), "tc3_request")
    return {
        "content-type": _CONTENT_TYPE,
        "host": host,
        "x-tc-action": action,
        "x-tc-version": _VERSION,
        "x-tc-timestamp": str(timestamp),
        "x-tc-region": account.region,
        "authorization": f"{_ALGORITHM} Credential={account.secret_id}/{scope}, SignedHeaders={signed}, "
        f"Signature={keyed(key, to_sign).hex()}",
    }


def _refused(code: str) -> Exception:
    if not code:
        return NoAnswer("a refusal without a code", maybe_accepted=True)
    if code in _UNKNOWN:
        return NoAnswer(code, maybe_accepted=True)
    return Rejected(code, permanent=code in _PERMANENT, wait=_WAITS.get(code))


def _statuses(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    statuses = content.get("PullSmsSendStatusSet")
    if not isinstance(statuses, list) or not all(isinstance(one, dict) for one in statuses):
        # An answer that cannot be read must never count as "was not sent".
        raise NoAnswer("unreadable receipts", maybe_accepted=False)
    return statuses


def _pulled(status: Mapping[str, Any]) -> Receipt | None:
    delivered = _DELIVERED.get(str(status.get("ReportStatus")))
    if delivered is None:
        return None
    return Receipt(
        reference=str(status.get("SessionContext") or ""),
        provider_ref=said(status.get("SerialNo")),
        delivered=delivered,
        code=said(status.get("Description")),
        at=_at(status.get("UserReceiveTime")),
    )


def _taken(status: Mapping[str, Any]) -> Receipt:
    receipt = _pulled(status)
    if receipt is None:
        raise MalformedReceipts("an entry has no known ReportStatus")
    return receipt


def _at(seconds: object) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC) if isinstance(seconds, int) and seconds > 0 else None
    except (ValueError, OverflowError, OSError):
        return None


def _pushed(entry: Mapping[str, Any]) -> Receipt:
    delivered, number = _DELIVERED.get(str(entry.get("report_status"))), entry.get("sid")
    number = said(number) if isinstance(number, str) else ""
    if delivered is None or not number:
        raise MalformedReceipts("an entry lacks report_status or sid")
    return Receipt(
        reference="",
        provider_ref=number,
        delivered=delivered,
        code=said(entry.get("errmsg")),
        at=in_beijing(entry.get("user_receive_time")),
    )
