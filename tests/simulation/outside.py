"""Gateway and carriers, simulated: the gateway's own book, orders that are paid in it, callbacks, messages and receipts.

They keep books of their own and never look into ours. They speak our ports, not the wire: what the wire can do wrong is tested
where it is spoken (tests/service/payment/test_wechat.py, tests/service/notification/test_aliyun.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from deploy.rehearsal.invariants.evidence import Booked
from deploy.simulators.journal import Journal
from deploy.simulators.order_book import Order, OrderBook, Refusal, TradeState
from deploy.simulators.refund_book import RefundBook
from services.notification.ports import Accepted, NoAnswer, Receipt, Rejected, Sent
from services.payment.ports import (
    AlreadyPaid,
    Answer,
    Capability,
    ChannelRefused,
    ChannelUnavailable,
    Closed,
    Malformed,
    Notification,
    OrderState,
    PlacedOrder,
    RefundAnswer,
    RefundState,
)
from tests.simulation.chance import Chance
from tests.simulation.lives import at_gate

Now = Callable[[], datetime]
Later = Callable[[datetime, str, Callable[[], Any]], None]
_STATES = {
    TradeState.NOTPAY: OrderState.UNPAID,
    TradeState.SUCCESS: OrderState.PAID,
    TradeState.CLOSED: OrderState.CLOSED,
}
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
    """A PaymentChannel before a gateway's book."""

    name = "wechat"
    capabilities = frozenset({Capability.CLOSABLE, Capability.EXPIRES, Capability.REMEMBERS})

    def __init__(self, now: Now) -> None:
        self._now = now
        self.begin(Chance(0), Manners())

    def begin(self, chance: Chance, manners: Manners) -> None:
        """A new run with an empty book."""
        self.book = OrderBook(cast("Journal", _Memory()))
        self.refunds = RefundBook(cast("Journal", _Memory()), self.book)
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
        order = Order(
            order_no, description, amount_fen, "CNY", "", "", expires_at.isoformat(), self._now(), expires_at
        )
        try:
            self.book.place(order)
        except Refusal as refusal:
            raise ChannelRefused(refusal.code, refusal.status) from None
        self._line("gateway's answer to an order lost", self._manners.unheard)
        return PlacedOrder(order_no, f"weixin://simulated/{order_no}")

    async def query(self, order_no: str) -> Answer:
        await at_gate()
        self._line("gateway away while it is asked", self._manners.away)
        order = self.book.find(order_no)
        if order is None:
            return self._answer(order_no, OrderState.UNKNOWN_ORDER)
        paid = order.state is TradeState.SUCCESS
        return self._answer(
            order_no,
            _STATES[order.state],
            paid_at=order.paid_at,
            amount_fen=order.amount_fen if paid else None,
            currency=order.currency if paid else None,
            transaction_id=order.transaction_id or None,
        )

    async def close(self, order_no: str) -> Closed | AlreadyPaid:
        await at_gate()
        self._line("gateway away while an order is closed", self._manners.away)
        try:
            self.book.close(order_no, self._now())
        except Refusal as refusal:
            return AlreadyPaid(order_no) if refusal.code == "ORDERPAID" else Closed(order_no, known=False)
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
            return RefundAnswer(refund_no, RefundState.REFUSED, None, None, refusal.code, b"{}", SEAL)
        self._line("gateway's answer to a refund lost", self._manners.unheard)
        return await self.query_refund(order_no, refund_no)

    async def query_refund(self, order_no: str, refund_no: str) -> RefundAnswer:
        refund = self.refunds.find(refund_no)
        if refund is None:
            return RefundAnswer(refund_no, RefundState.UNKNOWN, None, None, "", b"{}", SEAL)
        raw = json.dumps({"refund_no": refund_no, "amount_fen": refund.amount_fen}).encode()
        return RefundAnswer(refund_no, RefundState.DONE, refund.amount_fen, refund.at, "", raw, SEAL)

    def parse_notification(self, headers: Mapping[str, str], raw_body: bytes, at: datetime) -> Notification:
        if "simulated" not in headers:
            raise Malformed("headers")
        told = json.loads(raw_body)
        return Notification(
            told["id"],
            told["order_no"],
            OrderState.PAID,
            told["transaction_id"],
            datetime.fromisoformat(told["paid_at"]),
            told["amount_fen"],
            "CNY",
            "app",
            "merchant",
        )

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

    def notice(self, order_no: str) -> bytes:
        """The body of a callback about a paid order."""
        order = self.book.find(order_no)
        assert order is not None
        assert order.paid_at is not None
        return json.dumps(
            {
                "id": f"EV-{order_no}",
                "order_no": order_no,
                "transaction_id": order.transaction_id,
                "paid_at": order.paid_at.isoformat(),
                "amount_fen": order.amount_fen,
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


@dataclass
class SimulatedCarriers:
    """Sms and Mail before carriers that take, refuse, stay silent, and send receipts for SMS."""

    now: Now
    chance: Chance = field(default_factory=lambda: Chance(0))
    manners: Manners = field(default_factory=Manners)
    later: Later = lambda _at, _what, _do: None
    push: Callable[[list[dict[str, Any]]], Any] = lambda _receipts: None
    taken: Counter[str] = field(default_factory=Counter)
    """Our reference → copies that a carrier really took."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Our reference → copies of which the sender never learned, or died before it wrote down what it had learned."""
    _under_way: list[str] = field(default_factory=list)
    _receipts: dict[datetime, list[dict[str, Any]]] = field(default_factory=dict)

    def begin(self, chance: Chance, manners: Manners) -> None:
        self.chance, self.manners = chance, manners
        self._receipts.clear()
        self.taken.clear()
        self.unknown.clear()
        self.next_action()

    def begin_calm(self) -> None:
        """Nothing goes wrong any more."""
        self.manners = Manners()

    def next_action(self) -> None:
        """Whoever sent has written down what came of it, or has died."""
        self._under_way.clear()

    def not_written_down(self) -> None:
        """What left in this action may be sent again."""
        self.unknown.update(self._under_way)
        self._under_way.clear()

    async def send(self, *words: Any) -> Accepted:
        """Both ports: the reference comes last, an SMS has five words and a mail four."""
        await at_gate()
        reference, sms = str(words[-1]), len(words) == 5
        if self.chance.happens("carrier away", self.manners.away):
            raise NoAnswer("simulated", maybe_accepted=False)
        if self.chance.happens("carrier busy", self.manners.busy):
            raise Rejected("isv.BUSINESS_LIMIT_CONTROL", permanent=False)
        self.taken[reference] += 1
        if sms:
            dead = self.chance.happens("number out of service", self.manners.dead)
            self._report(reference, dead)
        if self.chance.happens("carrier's answer lost", self.manners.unheard):
            self.unknown[reference] += 1
            raise NoAnswer("simulated", maybe_accepted=True)
        self._under_way.append(reference)
        return Accepted(f"biz-{reference}")

    async def find(self, to: str, since: datetime, reference: str) -> Sent | None:
        """Only a restore makes anybody ask."""
        del to, since
        await at_gate()
        return Sent(None, "") if self.taken[reference] else None

    def _report(self, reference: str, dead: bool) -> None:
        """A carrier pushes the receipts of one moment together."""
        at = self.now() + timedelta(seconds=2)
        if at not in self._receipts:
            self.later(at, "receipt", lambda: self._push(at))
        self._receipts.setdefault(at, []).append(
            {
                "reference": reference,
                "delivered": not dead,
                "code": "MOBILE_NOT_ON_SERVICE" if dead else "DELIVERED",
            }
        )

    async def _push(self, at: datetime) -> None:
        await self.push(self._receipts.pop(at))

    def parse_receipts(self, raw: bytes) -> list[Receipt]:
        at = self.now()
        return [
            Receipt(one["reference"], f"biz-{one['reference']}", one["delivered"], one["code"], at)
            for one in cast("Sequence[dict[str, Any]]", json.loads(raw))
        ]
