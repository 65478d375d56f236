"""WeChat Pay v3 as a PaymentChannel: native orders, query, close, notices; refunds and bills are beside it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from services.payment.adapters.asking import BEIJING, BODY_LIMIT, check_order
from services.payment.adapters.wechat_bills import WeChatBills
from services.payment.adapters.wechat_calls import Reply, checked, is_fen, json_object, moment
from services.payment.adapters.wechat_refunds import WeChatRefunds, refund_notice
from services.payment.adapters.wechat_signatures import open_resource, verify
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

_STATES = {
    "SUCCESS": OrderState.PAID,
    "REFUND": OrderState.REFUNDED,
    "NOTPAY": OrderState.UNPAID,
    "PAYERROR": OrderState.UNPAID,  # one attempt failed; the order can still be paid
    "CLOSED": OrderState.CLOSED,
    "REVOKED": OrderState.CLOSED,
    "USERPAYING": OrderState.PAYING,
}
# Older documents spell some codes without underscores.
_UNKNOWN_ORDER = frozenset({"ORDER_NOT_EXIST", "ORDERNOTEXIST"})
_PAID = frozenset({"ORDERPAID", "ORDER_PAID"})
_CLOSED = frozenset({"ORDER_CLOSED", "ORDERCLOSED"})
_IN_USE = frozenset({"OUT_TRADE_NO_USED", *_PAID, *_CLOSED})


class WeChatPay(WeChatRefunds, WeChatBills):
    """The whole channel."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset(Capability)

    async def place_order(
        self, order_no: str, amount_fen: int, description: str, expires_at: datetime
    ) -> PlacedOrder:
        check_order(amount_fen, description, expires_at)
        reply = await self.call(
            "POST",
            "/v3/pay/transactions/native",
            {
                "appid": self._account.app_id,
                "mchid": self._account.merchant_id,
                "description": description,
                "out_trade_no": checked(order_no),
                # Whole seconds, cut down: never past the moment asked for.
                "time_expire": expires_at.astimezone(BEIJING).replace(microsecond=0).isoformat(),
                "notify_url": self._notify_url,
                "amount": {"total": amount_fen, "currency": "CNY"},
            },
        )
        code_url = reply.content.get("code_url")
        if reply.code in _IN_USE:
            raise NumberInUse(reply.code, reply.status)
        if reply.status != 200:
            raise ChannelRefused(reply.code, reply.status)
        if not isinstance(code_url, str) or not code_url:
            raise ChannelUnavailable("answer without a code")
        return PlacedOrder(order_no, code_url)

    async def query(self, order_no: str) -> Answer:
        path = f"/v3/pay/transactions/out-trade-no/{quote(checked(order_no), safe='')}"
        reply = await self.call("GET", f"{path}?mchid={quote(self._account.merchant_id, safe='')}", None)
        if reply.status != 200:
            if reply.status == 404 and reply.code in _UNKNOWN_ORDER:
                return self._answer(order_no, OrderState.UNKNOWN_ORDER, reply)
            raise ChannelRefused(reply.code, reply.status)
        content = reply.content
        ours = (self._account.app_id, self._account.merchant_id, order_no)
        if (content.get("appid"), content.get("mchid"), content.get("out_trade_no")) != ours:
            # Truly signed, but about something else: an answer taken from another call.
            raise ChannelUnavailable("answer about another order")
        state = _STATES.get(str(content.get("trade_state")))
        if state is None:
            raise ChannelUnavailable("unknown trade state")
        return self._answer(order_no, state, reply)

    async def close(self, order_no: str) -> Closed | AlreadyPaid:
        path = f"/v3/pay/transactions/out-trade-no/{quote(checked(order_no), safe='')}/close"
        reply = await self.call("POST", path, {"mchid": self._account.merchant_id})
        if reply.status == 204 or reply.code in _CLOSED:
            return Closed(order_no)
        if reply.code in _PAID:
            return AlreadyPaid(order_no)
        if reply.code in _UNKNOWN_ORDER:
            return Closed(order_no, known=False)
        raise ChannelRefused(reply.code, reply.status)

    def parse_notification(self, headers: Mapping[str, str], raw_body: bytes, at: datetime) -> Notification:
        if len(raw_body) > BODY_LIMIT:
            raise Malformed("too-large")
        verify(self._account, headers, raw_body, at, at)
        content = json_object(raw_body)
        resource = content.get("resource")
        if content.get("resource_type") != "encrypt-resource" or not isinstance(resource, dict):
            raise Malformed("form")
        kind = resource.get("original_type")
        notification_id = str(content.get("id", ""))
        if kind == "refund":
            opened = json_object(open_resource(self._account, resource))
            return refund_notice(self._account, notification_id, opened)
        if kind != "transaction":
            raise Malformed("kind")
        notification = _notification(notification_id, json_object(open_resource(self._account, resource)))
        ours = (self._account.app_id, self._account.merchant_id)
        if (notification.app_id, notification.merchant_id) != ours:
            raise Forged("foreign")
        return notification

    def _answer(self, order_no: str, state: OrderState, reply: Reply) -> Answer:
        amount = reply.content.get("amount")
        amount = amount if isinstance(amount, dict) else {}
        paid_at, fen = moment(reply.content.get("success_time")), amount.get("total")
        paid = state in {OrderState.PAID, OrderState.REFUNDED}
        if state is OrderState.PAID and (paid_at is None or not is_fen(fen)):
            raise ChannelUnavailable("a payment without moment or amount")
        transaction_id = reply.content.get("transaction_id")
        return Answer(
            order_no=order_no,
            state=state,
            paid_at=paid_at if paid else None,
            amount_fen=fen if is_fen(fen) else None,
            currency=str(amount["currency"]) if "currency" in amount else None,
            transaction_id=str(transaction_id) if transaction_id else None,
            status=reply.status,
            raw=reply.raw,
            signature=reply.seal.facts(),
        )


def _notification(notification_id: str, content: Mapping[str, Any]) -> Notification:
    state = _STATES.get(str(content.get("trade_state")))
    amount, paid_at = content.get("amount"), moment(content.get("success_time"))
    texts = [content.get(name) for name in ("out_trade_no", "transaction_id", "appid", "mchid")]
    if state is None or not isinstance(amount, dict) or not all(isinstance(t, str) and t for t in texts):
        raise Malformed("transaction")
    fen, currency = amount.get("total"), amount.get("currency")
    if not is_fen(fen) or not isinstance(currency, str):
        raise Malformed("transaction")
    if state is OrderState.PAID and paid_at is None:
        raise Malformed("transaction")
    order_no, transaction_id, app_id, merchant_id = map(str, texts)
    return Notification(
        notification_id, order_no, state, transaction_id, paid_at, fen, currency, app_id, merchant_id
    )
