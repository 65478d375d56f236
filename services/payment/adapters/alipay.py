"""Alipay (RSA2), orders by code: precreate, query, close, and the notices of the gateway.

Before somebody has opened the cashier the trade does not exist at Alipay: ACQ.TRADE_NOT_EXIST then means unpaid, and the code
that was given out stays payable until `time_expire`, at which Alipay itself ends it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

from services.chassis import wire
from services.chassis.clock import Clock
from services.payment.adapters.alipay_signatures import (
    BEIJING,
    SIGN_TYPE,
    AlipayAccount,
    Seal,
    moment,
    read_notice,
    refused,
    sign,
    signed_part,
    verify,
)
from services.payment.adapters.wechat import Asking
from services.payment.ports import (
    AlreadyPaid,
    Answer,
    Capability,
    ChannelRefused,
    ChannelUnavailable,
    Closed,
    Forged,
    Malformed,
    Notification,
    NotificationRefused,
    NumberInUse,
    OrderState,
    PlacedOrder,
)

PATIENCE: Final = 5.0  # seconds for one exchange
BODY_LIMIT: Final = 64 * 1024
_DONE: Final = "10000"
# The gateway itself, not the trade: nothing was learned and asking again may help.
_AWAY: Final = frozenset({"20000"})
_AWAY_BUSINESS: Final = frozenset({"ACQ.SYSTEM_ERROR", "aop.ACQ.SYSTEM_ERROR", "isp.unknow-error"})
_UNKNOWN_TRADE: Final = frozenset({"ACQ.TRADE_NOT_EXIST"})
_PAID_ALREADY: Final = frozenset({"ACQ.TRADE_HAS_SUCCESS"})
_NOT_CLOSABLE: Final = frozenset({"ACQ.TRADE_STATUS_ERROR", "ACQ.REASON_TRADE_STATUS_INVALID"})
_IN_USE: Final = frozenset({"ACQ.CONTEXT_INCONSISTENT", "ACQ.TRADE_HAS_CLOSE", *_PAID_ALREADY})
_STATES: Final = {
    "WAIT_BUYER_PAY": OrderState.UNPAID,
    "TRADE_CLOSED": OrderState.CLOSED,
    "TRADE_SUCCESS": OrderState.PAID,
    "TRADE_FINISHED": OrderState.PAID,
}
_YUAN: Final = re.compile(r"(0|[1-9][0-9]{0,11})(?:\.([0-9]{1,2}))?", re.ASCII)
_ORDER_NO: Final = re.compile(r"[0-9A-Za-z_]{6,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Reply:
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


class Alipay:
    """A few kept connections for the life of the process; close them with `aclose`."""

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
        self._wire: Asking = asking or wire.Wire(
            f"{parts.scheme}://{parts.netloc}", connections=connections, patience=PATIENCE, limit=BODY_LIMIT
        )

    @property
    def name(self) -> str:
        return "alipay"

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.CLOSABLE, Capability.EXPIRES})

    async def aclose(self) -> None:
        await self._wire.aclose()

    async def place_order(
        self, order_no: str, amount_fen: int, description: str, expires_at: datetime
    ) -> PlacedOrder:
        if amount_fen < 1 or not 1 <= len(description) <= 127:
            raise ValueError("an order has an amount and a description of at most 127 characters")
        if expires_at.tzinfo is None:
            raise ValueError("expires_at needs an offset")
        reply = await self._call(
            "alipay.trade.precreate",
            {
                "out_trade_no": _checked(order_no),
                "total_amount": yuan(amount_fen),
                "subject": description,
                # Whole seconds, cut down: never past the moment asked for.
                "time_expire": f"{expires_at.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}",
            },
            notify=True,
        )
        if reply.code in _IN_USE:
            raise NumberInUse(reply.code, 200)
        if not reply.done:
            raise ChannelRefused(reply.code, 200)
        code = reply.content.get("qr_code")
        if reply.content.get("out_trade_no") != order_no or not isinstance(code, str) or not code:
            raise ChannelUnavailable("answer without a code")
        return PlacedOrder(order_no, code)

    async def query(self, order_no: str) -> Answer:
        reply = await self._call("alipay.trade.query", {"out_trade_no": _checked(order_no)})
        if reply.code in _UNKNOWN_TRADE:
            return self._answer(order_no, OrderState.UNKNOWN_ORDER, reply)
        if not reply.done:
            raise ChannelRefused(reply.code, 200)
        if reply.content.get("out_trade_no") != order_no:
            # Truly signed, but about something else: an answer taken from another call.
            raise ChannelUnavailable("answer about another order")
        state = _state(reply.content)
        if state is None:
            raise ChannelUnavailable("unknown trade state")
        return self._answer(order_no, state, reply)

    async def close(self, order_no: str) -> Closed | AlreadyPaid:
        reply = await self._call("alipay.trade.close", {"out_trade_no": _checked(order_no)})
        if reply.done:
            return Closed(order_no)
        if reply.code in _UNKNOWN_TRADE:
            return Closed(order_no, known=False)
        if reply.code in _PAID_ALREADY:
            return AlreadyPaid(order_no)
        if reply.code in _NOT_CLOSABLE:
            # One code for a trade that is paid and one that is closed already: only a query tells which.
            answer = await self.query(order_no)
            if answer.state is OrderState.CLOSED:
                return Closed(order_no)
            if answer.state in {OrderState.PAID, OrderState.REFUNDED}:
                return AlreadyPaid(order_no)
        raise ChannelRefused(reply.code, 200)

    def parse_notification(self, headers: Mapping[str, str], raw_body: bytes, at: datetime) -> Notification:
        if len(raw_body) > BODY_LIMIT:
            raise refused(Malformed("too-large"))
        fields, _ = read_notice(self._account, raw_body, at)
        if (fields.get("app_id"), fields.get("seller_id")) != (
            self._account.app_id,
            self._account.seller_id,
        ):
            raise refused(Forged("foreign"))
        state, fen = _state(fields), fen_of(fields.get("total_amount"))
        paid_at = moment(fields.get("gmt_payment"))
        texts = [fields.get(name) for name in ("notify_id", "out_trade_no", "trade_no")]
        if state is None or fen is None or not all(texts):
            raise refused(Malformed("transaction"))
        if state is OrderState.PAID and paid_at is None:
            raise refused(Malformed("transaction"))
        notification_id, order_no, transaction_id = map(str, texts)
        return Notification(
            notification_id=notification_id,
            order_no=order_no,
            state=state,
            transaction_id=transaction_id,
            paid_at=paid_at,
            amount_fen=fen,
            currency="CNY",
            app_id=self._account.app_id,
            merchant_id=self._account.seller_id,
        )

    @staticmethod
    def _answer(order_no: str, state: OrderState, reply: _Reply) -> Answer:
        paid = state in {OrderState.PAID, OrderState.REFUNDED}
        paid_at, fen = moment(reply.content.get("send_pay_date")), fen_of(reply.content.get("total_amount"))
        if state is OrderState.PAID and (paid_at is None or fen is None):
            raise ChannelUnavailable("a payment without moment or amount")
        transaction_id = reply.content.get("trade_no")
        return Answer(
            order_no=order_no,
            state=state,
            paid_at=paid_at if paid else None,
            amount_fen=fen,
            currency="CNY" if fen is not None else None,
            transaction_id=str(transaction_id) if transaction_id else None,
            status=200,
            raw=reply.raw,
            signature=reply.seal.facts(),
        )

    async def _call(self, method: str, content: Mapping[str, Any], *, notify: bool = False) -> _Reply:
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
        try:
            status, _, raw = await self._wire.request("POST", f"{self._path}?charset=utf-8", headers, body)
        except wire.NoAnswer as error:
            raise ChannelUnavailable(str(error)) from None
        if status != 200:
            raise ChannelUnavailable(f"status {status}")
        try:
            part, signature = signed_part(raw, method.replace(".", "_") + "_response")
            seal = verify(self._account, part, signature)
            reply = _Reply(part, seal, _object(part))
        except NotificationRefused as problem:
            # Whom the gateway does not know it does not answer with a seal: nothing was done, and our keys are wrong.
            if raw.lstrip().startswith(b'{"error_response"') or problem.reason == "unsigned":
                raise ChannelRefused("isv.invalid-signature", 200) from None
            raise ChannelUnavailable(f"unverified answer: {problem.reason}") from None
        if reply.content.get("code") in _AWAY or reply.code in _AWAY_BUSINESS:
            raise ChannelUnavailable(reply.code)
        return reply


def _state(content: Mapping[str, Any]) -> OrderState | None:
    state = _STATES.get(str(content.get("trade_status")))
    # What was paid and given back in full is closed as well: a moment of payment tells the two apart.
    if state is OrderState.CLOSED and (content.get("send_pay_date") or content.get("gmt_payment")):
        return OrderState.REFUNDED
    return state


def yuan(fen: int) -> str:
    """As Alipay writes money."""
    return f"{fen // 100}.{fen % 100:02d}"


def fen_of(text: object) -> int | None:
    """Money as Alipay writes it, exactly; anything else is none."""
    if not isinstance(text, str) or not (found := _YUAN.fullmatch(text)):
        return None
    return int(found[1]) * 100 + int((found[2] or "").ljust(2, "0"))


def _object(raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        raise refused(Malformed("json")) from None
    if not isinstance(content, dict):
        raise refused(Malformed("json"))
    return content


def _checked(order_no: str) -> str:
    if not _ORDER_NO.fullmatch(order_no):
        raise ValueError("an order number has 6 to 64 of 0-9 A-Z a-z _")
    return order_no
