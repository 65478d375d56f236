"""Alipay (RSA2), orders by code: precreate, query, close, and the notices of the gateway.

Before somebody has opened the cashier the trade does not exist at Alipay: ACQ.TRADE_NOT_EXIST then means unpaid, and the code
that was given out stays payable until `time_expire`, at which Alipay itself ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from services.payment.adapters.alipay_bills import AlipayBills
from services.payment.adapters.alipay_calls import Reply, checked, fen_of, yuan
from services.payment.adapters.alipay_refunds import AlipayRefunds
from services.payment.adapters.alipay_signatures import moment, read_notice, refused
from services.payment.adapters.asking import BEIJING, BODY_LIMIT, check_order
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
    NumberInUse,
    OrderState,
    PlacedOrder,
)

_UNKNOWN_TRADE: Final = frozenset({"ACQ.TRADE_NOT_EXIST"})
_PAID_ALREADY: Final = frozenset({"ACQ.TRADE_HAS_SUCCESS"})
_NOT_CLOSABLE: Final = frozenset({
    "ACQ.TRADE_STATUS_ERROR", "ACQ.REASON_TRADE_STATUS_INVALID", "ACQ.REASON_ILLEGAL_STATUS",
})  # fmt: skip
_IN_USE: Final = frozenset({"ACQ.CONTEXT_INCONSISTENT", "ACQ.TRADE_HAS_CLOSE", *_PAID_ALREADY})
_STATES: Final = {
    "WAIT_BUYER_PAY": OrderState.UNPAID,
    "TRADE_CLOSED": OrderState.CLOSED,
    "TRADE_SUCCESS": OrderState.PAID,
    "TRADE_FINISHED": OrderState.PAID,
}


class Alipay(AlipayRefunds, AlipayBills):
    """The whole channel."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset(Capability) - {Capability.REMEMBERS}

    async def place_order(
        self, order_no: str, amount_fen: int, description: str, expires_at: datetime
    ) -> PlacedOrder:
        check_order(amount_fen, description, expires_at)
        reply = await self.call(
            "alipay.trade.precreate",
            {
                "out_trade_no": checked(order_no),
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
        reply = await self.call("alipay.trade.query", {"out_trade_no": checked(order_no)})
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
        reply = await self.call("alipay.trade.close", {"out_trade_no": checked(order_no)})
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
    def _answer(order_no: str, state: OrderState, reply: Reply) -> Answer:
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


def _state(content: Mapping[str, Any]) -> OrderState | None:
    state = _STATES.get(str(content.get("trade_status")))
    # What was paid and given back in full is closed as well: a moment of payment tells the two apart.
    if state is OrderState.CLOSED and (content.get("send_pay_date") or content.get("gmt_payment")):
        return OrderState.REFUNDED
    return state
