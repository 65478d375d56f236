"""A gateway that can be away, late to end an order, wrong about an amount, and behind itself: its answers may be old ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from deploy.simulators.order_book import Order, Refusal, TradeState
from services.payment.ports import AlreadyPaid, Answer, ChannelUnavailable, Closed, OrderState
from tests.simulation.gateway import Now, SimulatedGateway

Lands = Callable[[str], Awaitable[None]]
_LOST: Final = frozenset(f"gateway's answer to {what} lost" for what in ("an order", "a close", "a refund"))


class TownGateway(SimulatedGateway):
    """As SimulatedGateway, and what a batch of interleavings wants of one."""

    away = False
    unheard = 0
    """So many answers that get lost after it has done what was asked."""
    opened = 0
    """So many codes that people open between our close, which knew nothing of them, and our query."""

    def __init__(self, now: Now, name: str, *, remembers: bool = True) -> None:
        super().__init__(now, name, remembers=remembers)
        self.behind: dict[str, Lands] = {}
        self.reached: Counter[str] = Counter()

    def forget(self) -> None:
        self.behind = {}
        self.away, self.unheard, self.opened = False, 0, 0
        self.refunds.takes, self.refunds.abnormal = timedelta(0), 0
        self.refunds.refusing.clear()

    def _line(self, fault: str, per_mille: float) -> None:
        if self.away:
            raise ChannelUnavailable("away")
        if fault in _LOST and self.unheard:
            self.unheard -= 1
            self.reached[fault] += 1
            raise ChannelUnavailable("unheard")

    async def close(self, order_no: str) -> Closed | AlreadyPaid:
        if order_no in self.behind:
            self._line("gateway away while an order is closed", 0)
            return Closed(order_no)
        closed = await super().close(order_no)
        if self.opened and isinstance(closed, Closed) and not closed.known and self.book.find(order_no):
            self.opened -= 1
            self.book.open(order_no, self._now())
            self.reached["a code is opened between our close and our query"] += 1
        return closed

    async def query(self, order_no: str) -> Answer:
        lands = self.behind.pop(order_no, None)
        if lands is None:
            return await super().query(order_no)
        if self.away:
            self.behind[order_no] = lands
        self._line("gateway away while it is asked", 0)
        # What was true a second ago; what is true now comes by another way.
        await lands(order_no)
        return self._answer(order_no, OrderState.CLOSED)

    def settle_accounts(self) -> None:
        """Its people give back by other ways what came back to them from dead accounts."""
        for refund in self.refunds.all():
            refund.abnormal = False

    # What people do

    def pay(self, order_no: str, fen: int | None = None, currency: str = "CNY") -> Order:
        """Somebody pays, perhaps another amount or currency than was ordered. Raises Refusal."""
        self.book.open(order_no, self._now())
        order = self.book.pay(order_no, self._now(), [])
        order.amount_fen, order.currency = fen or order.amount_fen, currency
        return order

    def prolong(self, order_no: str, until: datetime) -> None:
        """Payments of an order that is open are taken for longer than was asked."""
        order = self.book.find(order_no)
        if order is not None:
            order.expires_at = max(order.expires_at, until)

    def pay_before(self, order_no: str, at: datetime) -> Order | None:
        """A payment that the gateway's other half knew of already, or None if its order is closed."""
        order = self.book.find(order_no)
        if order is None or order.state is not TradeState.NOTPAY:
            return None
        moment = max(order.placed_at.replace(microsecond=0), min(at, order.expires_at - timedelta(seconds=1)))
        try:
            return self.book.pay(order_no, moment, [])
        except Refusal:
            return None
