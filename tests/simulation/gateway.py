"""Gateways, simulated: books of their own, orders that are paid in them, callbacks, refunds.

They never look into ours. They speak our ports, not the wire: what the wire can do wrong is tested where it is spoken
(tests/service/payment/test_wechat.py, test_alipay.py); that both speak alike, in test_gateway.py beside this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from deploy.rehearsal.invariants.evidence import Booked
from deploy.simulators.alipay import TRADE_NO
from deploy.simulators.journal import Journal
from deploy.simulators.order_book import Order, OrderBook, Refusal, TradeState
from deploy.simulators.refund_book import Refund, RefundBook, RefundStatus
from services.payment.ports import (
    AlreadyPaid,
    Answer,
    Capability,
    ChannelRefused,
    ChannelUnavailable,
    Closed,
    Malformed,
    Notification,
    NumberInUse,
    OrderState,
    PlacedOrder,
    RefundAnswer,
    RefundState,
)
from tests.simulation.chance import Chance
from tests.simulation.lives import at_gate

Now = Callable[[], datetime]
_STATES = {
    TradeState.NOTPAY: OrderState.UNPAID,
    TradeState.SUCCESS: OrderState.PAID,
    TradeState.CLOSED: OrderState.CLOSED,
}
# Not done, and the same call may succeed later: there is not enough money on our account yet.
_LATER: Final = frozenset({"NOT_ENOUGH", "ACQ.SELLER_BALANCE_NOT_ENOUGH"})
_IN_USE: Final = frozenset({"OUT_TRADE_NO_USED", "ORDERPAID", "ORDER_CLOSED"})
SEAL = {"simulated": "true"}


class _Memory:
    """A journal that is kept nowhere."""

    def append(self, entry: dict[str, Any]) -> None: ...

    def entries(self) -> Iterator[dict[str, Any]]:
        return iter(())


@dataclass
class Manners:
    """How the outside behaves in this run, per mille."""

    away: float = 0
    unheard: float = 0
    busy: float = 0
    dead: float = 0


class SimulatedGateway:
    """A channel before a gateway's book. `remembers`: WeChat Pay does; Alipay knows only what a payer has opened."""

    def __init__(self, now: Now, name: str = "wechat", *, remembers: bool = True) -> None:
        self.name = name
        self.capabilities = frozenset({Capability.CLOSABLE, Capability.EXPIRES, Capability.REFUNDS})
        if remembers:
            self.capabilities |= {Capability.REMEMBERS}
        self._now, self._remembers = now, remembers
        self.begin(Chance(0), Manners())

    def begin(self, chance: Chance, manners: Manners) -> None:
        """A new run with an empty book."""
        memory = cast("Journal", _Memory())
        self.book = OrderBook(memory) if self._remembers else OrderBook(memory, TRADE_NO)
        self.refunds = RefundBook(memory, self.book)
        self._chance, self._manners = chance, manners

    def begin_calm(self) -> None:
        """The book stays; nothing goes wrong any more."""
        self._manners = Manners()

    # What the service asks

    async def place_order(
        self, order_no: str, amount_fen: int, description: str, expires_at: datetime
    ) -> PlacedOrder:
        await at_gate()
        self._line("gateway away while an order is placed", self._manners.away)
        ends = expires_at.replace(microsecond=0)  # as the adapters write it
        order = Order(order_no, description, amount_fen, "CNY", "", "", ends.isoformat(), self._now(), ends)
        try:
            self.book.place(order)
        except Refusal as refusal:
            kind = NumberInUse if refusal.code in _IN_USE else ChannelRefused
            raise kind(refusal.code, refusal.status) from None
        self._line("gateway's answer to an order lost", self._manners.unheard)
        return PlacedOrder(order_no, f"weixin://simulated/{order_no}")

    async def query(self, order_no: str) -> Answer:
        await at_gate()
        self._line("gateway away while it is asked", self._manners.away)
        order = self._known(order_no)
        if order is None:
            return self._answer(order_no, OrderState.UNKNOWN_ORDER)
        paid = order.state is TradeState.SUCCESS
        back = sum(refund.amount_fen for refund in self.refunds.of_order(order_no))
        state = _STATES[order.state]
        # One says so as soon as anything goes back, the other once all of it has.
        if paid and back >= (1 if self._remembers else order.amount_fen):
            state = OrderState.REFUNDED
        return self._answer(
            order_no,
            state,
            paid_at=order.paid_at,
            amount_fen=order.amount_fen if paid else None,
            currency=order.currency if paid else None,
            transaction_id=order.transaction_id or None,
        )

    async def close(self, order_no: str) -> Closed | AlreadyPaid:
        await at_gate()
        self._line("gateway away while an order is closed", self._manners.away)
        if self._known(order_no) is None:
            return Closed(order_no, known=False)
        try:
            self.book.close(order_no, self._now())
        except Refusal:
            return AlreadyPaid(order_no)
        self._line("gateway's answer to a close lost", self._manners.unheard)
        return Closed(order_no)

    async def refund(
        self, order_no: str, refund_no: str, amount_fen: int, paid_fen: int, reason: str
    ) -> RefundAnswer:
        await at_gate()
        self._line("gateway away while a refund is asked for", self._manners.away)
        try:
            self.refunds.ask(order_no, refund_no, amount_fen, self._now())
        except Refusal as refusal:
            if refusal.code in _LATER:
                raise ChannelUnavailable(refusal.code) from None
            return RefundAnswer(refund_no, RefundState.REFUSED, None, None, refusal.code, b"{}", SEAL)
        self._line("gateway's answer to a refund lost", self._manners.unheard)
        return await self.query_refund(order_no, refund_no)

    async def query_refund(self, order_no: str, refund_no: str) -> RefundAnswer:
        refund = self.refunds.find(refund_no)
        if refund is None:
            return RefundAnswer(refund_no, RefundState.UNKNOWN, None, None, "", b"{}", SEAL)
        return self._refund_answer(refund)

    def _refund_answer(self, refund: Refund) -> RefundAnswer:
        facts = {"refund_no": refund.refund_no, "amount_fen": refund.amount_fen}
        status = refund.status(self._now())
        state = {
            RefundStatus.SUCCESS: RefundState.DONE,
            RefundStatus.PROCESSING: RefundState.UNDER_WAY,
            # One says that it came back from a dead account, the other only that it is not done.
            RefundStatus.ABNORMAL: RefundState.REFUSED if self._remembers else RefundState.UNDER_WAY,
        }[status]
        done = state is RefundState.DONE
        return RefundAnswer(
            refund.refund_no,
            state,
            refund.amount_fen,
            refund.done_at if done else None,
            "" if done else status.value,
            json.dumps(facts).encode(),
            SEAL,
        )

    def parse_notification(self, headers: Mapping[str, str], raw_body: bytes, at: datetime) -> Notification:
        if "simulated" not in headers:
            raise Malformed("headers")
        told = json.loads(raw_body)
        return Notification(
            told["id"],
            told["order_no"],
            OrderState(told["state"]),
            told["transaction_id"],
            datetime.fromisoformat(told["paid_at"]),
            told["amount_fen"],
            told["currency"],
            "app",
            "merchant",
        )

    def _known(self, order_no: str) -> Order | None:
        """What it says it has; one that does not remember ends by itself what nobody paid in time."""
        order = self.book.find(order_no)
        if order is None or self._remembers:
            return order
        if order.opened_at is None:
            self._chance.reached["asked about a code that nobody had opened"] += 1
            return None
        if order.state is TradeState.NOTPAY and order.expires_at <= self._now():
            self.book.close(order_no, order.expires_at)
        return order

    def _line(self, fault: str, per_mille: float) -> None:
        if self._chance.happens(fault, per_mille):
            raise ChannelUnavailable("simulated")

    def _answer(self, order_no: str, state: OrderState, **facts: Any) -> Answer:
        raw = json.dumps({"order_no": order_no, "state": state}).encode()
        return Answer(
            order_no=order_no,
            state=state,
            paid_at=facts.get("paid_at"),
            amount_fen=facts.get("amount_fen"),
            currency=facts.get("currency"),
            transaction_id=facts.get("transaction_id"),
            status=200,
            raw=raw,
            signature=SEAL,
        )

    # What people and time do

    def notice(self, order_no: str, state: OrderState = OrderState.PAID) -> bytes:
        """The body of a callback about a paid order: that it is paid, or that money of it went back."""
        order = self.book.find(order_no)
        assert order is not None
        assert order.paid_at is not None
        return json.dumps(
            {
                "id": f"EV-{order_no}",
                "order_no": order_no,
                "state": state,
                "transaction_id": order.transaction_id,
                "paid_at": order.paid_at.isoformat(),
                "amount_fen": order.amount_fen,
                "currency": order.currency,
            }
        ).encode()

    def booked(self) -> list[Booked]:
        return [
            Booked(
                order.out_trade_no,
                order.state is TradeState.SUCCESS,
                order.amount_fen,
                order.transaction_id,
                order.paid_at,
            )
            for order in self.book.orders()
        ]
