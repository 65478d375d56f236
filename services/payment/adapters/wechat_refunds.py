"""WeChat Pay v3: money back, under a number of ours, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from services.payment.adapters.asking import check_refund
from services.payment.adapters.wechat_calls import Reply, WeChatCalls, checked, is_fen, moment
from services.payment.adapters.wechat_signatures import WeChatAccount
from services.payment.ports import (
    ChannelRefused,
    ChannelUnavailable,
    Forged,
    Malformed,
    Notification,
    OrderState,
    RefundAnswer,
    RefundState,
)

_STATES: Final = {
    "SUCCESS": RefundState.DONE,
    "PROCESSING": RefundState.UNDER_WAY,
    "CLOSED": RefundState.REFUSED,
    "ABNORMAL": RefundState.REFUSED,  # the payer's account would not take it: somebody has to act at the gateway
}
# Understood and not done; the same call may succeed later, when the account has money again or somebody looked.
_LATER: Final = frozenset({"NOT_ENOUGH", "FREQUENCY_LIMITED"})
_UNKNOWN: Final = frozenset({"RESOURCE_NOT_EXISTS", "RESOURCE_NOT_EXIST"})


class WeChatRefunds(WeChatCalls):
    async def refund(
        self, order_no: str, refund_no: str, amount_fen: int, paid_fen: int, reason: str
    ) -> RefundAnswer:
        check_refund(amount_fen, paid_fen, reason)
        reply = await self.call(
            "POST",
            "/v3/refund/domestic/refunds",
            {
                "out_trade_no": checked(order_no),
                "out_refund_no": checked(refund_no),
                "reason": reason,
                "notify_url": self._notify_url,
                "amount": {"refund": amount_fen, "total": paid_fen, "currency": "CNY"},
            },
        )
        if reply.status == 200:
            return _answer(order_no, refund_no, reply)
        if reply.code in _LATER:
            raise ChannelUnavailable(reply.code)
        return RefundAnswer(
            refund_no, RefundState.REFUSED, None, None, reply.code, reply.raw, reply.seal.facts()
        )

    async def query_refund(self, order_no: str, refund_no: str) -> RefundAnswer:
        reply = await self.call(
            "GET", f"/v3/refund/domestic/refunds/{quote(checked(refund_no), safe='')}", None
        )
        if reply.status == 200:
            return _answer(order_no, refund_no, reply)
        if reply.status == 404 and reply.code in _UNKNOWN:
            return RefundAnswer(
                refund_no, RefundState.UNKNOWN, None, None, reply.code, reply.raw, reply.seal.facts()
            )
        raise ChannelRefused(reply.code, reply.status)


def _answer(order_no: str, refund_no: str, reply: Reply) -> RefundAnswer:
    content = reply.content
    if (content.get("out_refund_no"), content.get("out_trade_no")) != (refund_no, order_no):
        # Truly signed, but about something else: an answer taken from another call.
        raise ChannelUnavailable("answer about another refund")
    word = str(content.get("status"))
    state = _STATES.get(word)
    amount = content.get("amount")
    fen = amount.get("refund") if isinstance(amount, dict) else None
    if state is None or (state is RefundState.DONE and not is_fen(fen)):
        raise ChannelUnavailable("unknown refund state")
    return RefundAnswer(
        refund_no,
        state,
        fen if is_fen(fen) else None,
        moment(content.get("success_time")),
        "" if state is RefundState.DONE else word[:64],
        reply.raw,
        reply.seal.facts(),
    )


def refund_notice(account: WeChatAccount, notification_id: str, content: Mapping[str, Any]) -> Notification:
    """Of a notice's opened resource. Raises NotificationRefused."""
    if content.get("mchid") != account.merchant_id:
        raise Forged("foreign")
    amount = content.get("amount")
    texts = [content.get(name) for name in ("out_trade_no", "transaction_id", "out_refund_no")]
    fen = amount.get("total") if isinstance(amount, dict) else None
    if not is_fen(fen) or not all(isinstance(text, str) and text for text in texts):
        raise Malformed("refund")
    order_no, transaction_id, _ = map(str, texts)
    return Notification(
        notification_id=notification_id,
        order_no=order_no,
        state=OrderState.REFUNDED,
        transaction_id=transaction_id,
        paid_at=None,
        amount_fen=fen,
        currency="CNY",
        app_id=account.app_id,  # a refund's notice names the merchant only
        merchant_id=account.merchant_id,
    )
