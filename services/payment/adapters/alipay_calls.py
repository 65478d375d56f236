"""One exchange with the Alipay gateway: our seal on the request, its seal on the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

from services.chassis.clock import Clock
from services.payment.adapters.alipay_signatures import (
    SIGN_TYPE,
    AlipayAccount,
    Seal,
    refused,
    sign,
    signed_part,
    verify,
)
from services.payment.adapters.asking import BEIJING, Asking, Connections
from services.payment.ports import ChannelRefused, ChannelUnavailable, Malformed, NotificationRefused

_DONE: Final = "10000"
# The gateway itself, not the trade: nothing was learned and asking again may help.
_AWAY: Final = frozenset({"20000"})
_AWAY_BUSINESS: Final = frozenset({"ACQ.SYSTEM_ERROR", "aop.ACQ.SYSTEM_ERROR", "isp.unknow-error"})
_YUAN: Final = re.compile(r"(0|[1-9][0-9]{0,11})(?:\.([0-9]{1,2}))?", re.ASCII)
_ORDER_NO: Final = re.compile(r"[0-9A-Za-z_]{6,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reply:
    raw: bytes
    seal: Seal
    content: Mapping[str, Any]

    @property
    def done(self) -> bool:
        return bool(self.content.get("code") == _DONE)

    @property
    def code(self) -> str:
        """The gateway's own word for why not."""
        return str(self.content.get("sub_code") or self.content.get("code", ""))[:64]


class AlipayCalls:
    """Close it with `aclose`."""

    def __init__(
        self,
        account: AlipayAccount,
        *,
        notify_url: str,
        clock: Clock,
        connections: int = 32,
        asking: Asking | None = None,
    ) -> None:
        self._account = account
        self._notify_url = notify_url
        self._clock = clock
        parts = urlsplit(account.gateway_url)
        self._path = parts.path or "/gateway.do"
        self._connections = Connections(f"{parts.scheme}://{parts.netloc}", count=connections, asking=asking)

    @property
    def name(self) -> str:
        return "alipay"

    async def aclose(self) -> None:
        await self._connections.aclose()

    async def call(self, method: str, content: Mapping[str, Any], *, notify: bool = False) -> Reply:
        """One call and its verified answer. Raises ChannelUnavailable, or ChannelRefused where our own seal is refused."""
        fields = {
            "app_id": self._account.app_id,
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": SIGN_TYPE,
            "timestamp": f"{self._clock.now().astimezone(BEIJING):%Y-%m-%d %H:%M:%S}",
            "version": "1.0",
            "biz_content": json.dumps(content, ensure_ascii=False, separators=(",", ":")),
        }
        if notify:
            fields["notify_url"] = self._notify_url
        body = urlencode({**fields, "sign": sign(self._account, fields)}, quote_via=quote_plus).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8", "User-Agent": "kaowu"}
        target = f"{self._path}?charset=utf-8"
        status, _, raw = await self._connections.request("POST", target, headers, body)
        if status != 200:
            raise ChannelUnavailable(f"status {status}")
        try:
            part, signature = signed_part(raw, method.replace(".", "_") + "_response")
            seal = verify(self._account, part, signature)
            reply = Reply(part, seal, json_object(part))
        except NotificationRefused as problem:
            # Whom the gateway does not know it does not answer with a seal: nothing was done, and our keys are wrong.
            if raw.lstrip().startswith(b'{"error_response"'):
                raise ChannelRefused("isv.invalid-signature", 200) from None
            raise ChannelUnavailable(f"unverified answer: {problem.reason}") from None
        if reply.content.get("code") in _AWAY or reply.code in _AWAY_BUSINESS:
            raise ChannelUnavailable(reply.code)
        return reply


def yuan(fen: int) -> str:
    """As Alipay writes money."""
    return f"{fen // 100}.{fen % 100:02d}"


def fen_of(text: object) -> int | None:
    """Money as Alipay writes it, exactly; anything else is none."""
    if not isinstance(text, str) or not (found := _YUAN.fullmatch(text)):
        return None
    return int(found[1]) * 100 + int((found[2] or "").ljust(2, "0"))


def json_object(raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        raise refused(Malformed("json")) from None
    if not isinstance(content, dict):
        raise refused(Malformed("json"))
    return content


def checked(order_no: str) -> str:
    if not _ORDER_NO.fullmatch(order_no):
        raise ValueError("an order number has 6 to 64 of 0-9 A-Z a-z _")
    return order_no
