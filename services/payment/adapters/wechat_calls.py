"""One exchange with the WeChat Pay v3 gateway: our seal on the request, its seal on the answer.

Every answer that is used as a fact carries the platform's seal, refusals too:
an unsealed "order unknown" must never cost somebody an exam.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard

from services.chassis.clock import Clock
from services.payment.adapters.asking import Asking, Connections
from services.payment.adapters.wechat_signatures import Seal, WeChatAccount, authorization, verify
from services.payment.ports import ChannelRefused, ChannelUnavailable, Malformed, NotificationRefused

_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # the seal is over the bytes as they travel
    "Content-Type": "application/json",
    "User-Agent": "kaowu",
}
_ORDER_NO: Final = re.compile(r"[0-9A-Za-z_\-|*]{6,32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    raw: bytes
    seal: Seal
    content: Mapping[str, Any]

    @property
    def code(self) -> str:
        return str(self.content.get("code", ""))[:64]


class WeChatCalls:
    """Close it with `aclose`."""

    def __init__(
        self,
        account: WeChatAccount,
        *,
        notify_url: str,
        clock: Clock,
        connections: int = 32,
        asking: Asking | None = None,
    ) -> None:
        self._account = account
        self._notify_url = notify_url
        self._clock = clock
        self._connections = Connections(account.gateway_url, count=connections, asking=asking)

    @property
    def name(self) -> str:
        return "wechat"

    async def aclose(self) -> None:
        await self._connections.aclose()

    async def call(self, method: str, target: str, body: Mapping[str, Any] | None) -> Reply:
        content = (
            b"" if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        )
        asked_at = self._clock.now()
        headers = {
            **_HEADERS,
            "Authorization": authorization(self._account, method, target, content, asked_at),
        }
        status, fields, raw = await self._connections.request(method, target, headers, content)
        if status >= 500 or status == 429:
            raise ChannelUnavailable(f"status {status}")
        try:
            seal = verify(self._account, fields, raw, asked_at, self._clock.now())
            if status == 204 and not raw:
                return Reply(204, raw, seal, {})
            return Reply(status, raw, seal, json_object(raw))
        except NotificationRefused as refused:
            if status == 401:
                # The gateway does not know us, so it does not sign: our keys are wrong, and nothing was done.
                raise ChannelRefused("SIGN_ERROR", 401) from None
            raise ChannelUnavailable(f"unverified answer: {refused.reason}") from None


def json_object(raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        raise Malformed("json") from None
    if not isinstance(content, dict):
        raise Malformed("json")
    return content


def is_fen(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def moment(text: object) -> datetime | None:
    """A moment with an offset, in UTC; anything else is none."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def checked(order_no: str) -> str:
    if not _ORDER_NO.fullmatch(order_no):
        raise ValueError("an order number has 6 to 32 of 0-9 A-Z a-z _ - | *")
    return order_no
