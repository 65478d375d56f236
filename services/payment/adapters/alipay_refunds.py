"""Alipay: money back, under a number of ours, and what became of it."""

from __future__ import annotations

from typing import Final

from services.payment.adapters.alipay_calls import AlipayCalls, Reply, checked, fen_of, yuan
from services.payment.adapters.alipay_signatures import moment
from services.payment.adapters.asking import check_refund
from services.payment.ports import ChannelRefused, ChannelUnavailable, RefundAnswer, RefundState

# Understood and not done; the same call may succeed later, when the account has money again.
_LATER: Final = frozenset({"ACQ.SELLER_BALANCE_NOT_ENOUGH"})
_UNKNOWN: Final = frozenset({"ACQ.TRADE_NOT_EXIST"})


class AlipayRefunds(AlipayCalls):
    async def refund(
        self, order_no: str, refund_no: str, amount_fen: int, paid_fen: int, reason: str
    ) -> RefundAnswer:
        check_refund(amount_fen, paid_fen, reason)
        reply = await self.call(
            "alipay.trade.refund",
            {
                "out_trade_no": checked(order_no),
                "out_request_no": checked(refund_no),
                "refund_amount": yuan(amount_fen),
                "refund_reason": reason,
            },
        )
        if reply.code in _LATER:
            raise ChannelUnavailable(reply.code)
        if not reply.done:
            return _answer(refund_no, RefundState.REFUSED, None, reply)
        if reply.content.get("out_trade_no") != order_no:
            raise ChannelUnavailable("answer about another refund")
        # `fund_change` N says that this call moved nothing: it may be the same call again. Only asking tells.
        return await self.query_refund(order_no, refund_no)

    async def query_refund(self, order_no: str, refund_no: str) -> RefundAnswer:
        reply = await self.call(
            "alipay.trade.fastpay.refund.query",
            {
                "out_trade_no": checked(order_no),
                "out_request_no": checked(refund_no),
                "query_options": ["gmt_refund_pay"],
            },
        )
        if reply.code in _UNKNOWN:
            return _answer(refund_no, RefundState.UNKNOWN, None, reply)
        if not reply.done:
            raise ChannelRefused(reply.code, 200)
        status = reply.content.get("refund_status")
        if not status and not reply.content.get("out_request_no"):
            return _answer(refund_no, RefundState.UNKNOWN, None, reply)
        numbers = reply.content.get("out_trade_no"), reply.content.get("out_request_no")
        if numbers != (order_no, refund_no):
            raise ChannelUnavailable("answer about another refund")
        fen = fen_of(reply.content.get("refund_amount"))
        if status != "REFUND_SUCCESS":
            return _answer(refund_no, RefundState.UNDER_WAY, fen, reply)
        if fen is None:
            raise ChannelUnavailable("a refund without an amount")
        return _answer(refund_no, RefundState.DONE, fen, reply)


def _answer(refund_no: str, state: RefundState, fen: int | None, reply: Reply) -> RefundAnswer:
    done = state is RefundState.DONE
    return RefundAnswer(
        refund_no,
        state,
        fen,
        moment(reply.content.get("gmt_refund_pay")) if done else None,
        "" if done else reply.code,
        reply.raw,
        reply.seal.facts(),
    )
