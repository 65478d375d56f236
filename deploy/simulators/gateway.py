"""What every simulated gateway does, whatever its wire form.

People pay, it calls back on its schedule, it misbehaves when told to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import partial
from typing import Final

from deploy.simulators.agenda import Agenda
from deploy.simulators.bill_faults import Booked, spoilt
from deploy.simulators.order_book import BEIJING, Order, OrderBook, Refusal
from deploy.simulators.outage import Weather
from deploy.simulators.refund_book import RefundBook
from services.chassis.clock import Clock
from services.chassis.wire import Answer, NoAnswer, Wires

_PATIENCE: Final = 5.0  # real seconds a receiver has for its answer
_CAPTURED: Final = 200  # notices kept as sent, to be replayed byte for byte


class Gateway(ABC):
    """A subclass says how a notice is written and when it counts as heard."""

    misbehaviours: tuple[str, ...] = ()
    repeats: Sequence[timedelta] = ()
    """Between one try and the next, while nobody acknowledges."""

    def __init__(
        self, book: OrderBook, refunds: RefundBook, clock: Clock, agenda: Agenda, client: Wires
    ) -> None:
        self._clock = clock
        self._agenda = agenda
        self._client = client
        self._captured: deque[tuple[str, dict[str, str], bytes]] = deque(maxlen=_CAPTURED)
        self._misbehaving: deque[str] = deque()
        self.book = book
        self.refunds = refunds
        self.bill_faults: list[str] = []
        """How bills differ from the book from now on: the words of `spoilt`, and `late` (what was paid in the last five
        minutes of a day stands in the next day's bill)."""
        self.weather = Weather(clock)
        self.refused: dict[str, int] = {}
        for order in book.orders():
            for moment in order.callbacks[order.notified :]:
                agenda.add(moment, partial(self._notify, order, 0, self._notice_id()))

    @abstractmethod
    def _notice_id(self) -> str:
        """One for all tries of a notice."""

    @abstractmethod
    def _notice(self, order: Order, notice_id: str) -> tuple[dict[str, str], bytes]:
        """Headers and body, sealed now."""

    @abstractmethod
    def _heard(self, answer: Answer) -> bool:
        """Whether this answer acknowledges a notice."""

    @abstractmethod
    def sign_with(self, key: int) -> str:
        """Change the gateway's key; the last is one that merchants were not told of. Returns its name."""

    def now(self) -> datetime:
        return self._clock.now()

    def booked_on(self, day: date) -> list[Booked]:
        """What a bill of this day of Beijing's says, with the faults that a script asked for."""
        late = timedelta(minutes=5) if "late" in self.bill_faults else timedelta(0)
        lines = [
            Booked(order.paid_at, order.out_trade_no, order.transaction_id, order.amount_fen, "", 0)
            for order in self.book.orders()
            if order.paid_at is not None and (order.paid_at + late).astimezone(BEIJING).date() == day
        ]
        now = self._clock.now()
        for refund in self.refunds.all():
            order = self.book.find(refund.out_trade_no)
            if refund.at.astimezone(BEIJING).date() == day and not refund.abnormal and refund.at <= now:
                assert order is not None
                lines.append(
                    Booked(
                        refund.at,
                        order.out_trade_no,
                        order.transaction_id,
                        order.amount_fen,
                        refund.refund_no,
                        refund.amount_fen,
                    )
                )
        return spoilt(lines, self.bill_faults) if lines else lines

    # What people and nature do

    def pay(self, out_trade_no: str, callbacks: list[float], amount_fen: int | None = None) -> Order:
        """A person pays, the wrong amount if one is given; the gateway will call back after each of these seconds, or never."""
        if self.weather.until is not None:
            raise Refusal(409, "GATEWAY_DOWN", "系统繁忙，请稍后再试")
        now = self._clock.now()
        moments = [now + timedelta(seconds=seconds) for seconds in callbacks]
        order = self.book.pay(out_trade_no, now, moments, amount_fen)
        for moment in moments:
            self._agenda.add(moment, partial(self._notify, order, 0, self._notice_id()))
        return order

    def notify_again(self, out_trade_no: str | None, last: int | None) -> int:
        """Freshly signed notices of what is paid: one order, the last so many, or all."""
        if out_trade_no is not None:
            order = self.book.find(out_trade_no)
            if order is None or order.paid_at is None:
                raise Refusal(404, "ORDER_NOT_EXIST", "没有已支付的订单")
            orders = [order]
        else:
            orders = [order for order in self.book.orders() if order.paid_at is not None]
            orders = orders[-last:] if last is not None else orders
        now = self._clock.now()
        for order in orders:
            # Told already: what is not acknowledged now is not repeated.
            self._agenda.add(now, partial(self._notify, order, len(self.repeats), self._notice_id()))
        return len(orders)

    def replay_captured(self) -> int:
        """The last notices again, byte for byte, old signature and old timestamp."""
        now = self._clock.now()
        for url, headers, body in self._captured:
            self._agenda.add(now, partial(self._replay, url, headers, body))
        return len(self._captured)

    def misbehave(self, how: str, times: int) -> None:
        """The next so many answers or notices are wrong in this way."""
        if how not in self.misbehaviours:
            raise Refusal(400, "PARAM_ERROR", f"one of {', '.join(self.misbehaviours)}")
        self._misbehaving.extend([how] * times)

    def _wrong(self) -> str:
        """How the next seal is wrong; empty for a right one."""
        return self._misbehaving.popleft() if self._misbehaving else ""

    # What the gateway sends

    async def _notify(self, order: Order, attempt: int, notice_id: str) -> None:
        if (until := self.weather.until) is not None:
            self._agenda.add(until, partial(self._notify, order, attempt, notice_id))
            return
        headers, body = self._notice(order, notice_id)
        self._captured.append((order.notify_url, headers, body))
        acknowledged = await self._post(order.notify_url, headers, body)
        self.book.note_notified(order, acknowledged=acknowledged)
        if not acknowledged and attempt < len(self.repeats):
            self._agenda.add(
                self._clock.now() + self.repeats[attempt],
                partial(self._notify, order, attempt + 1, notice_id),
            )

    async def _replay(self, url: str, headers: dict[str, str], body: bytes) -> None:
        await self._post(url, headers, body)

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> bool:
        try:
            answer = await self._client.request("POST", url, headers, body, _PATIENCE)
        except (NoAnswer, ValueError):
            return False
        return self._heard(answer)

    def _count(self, code: str) -> None:
        self.refused[code] = self.refused.get(code, 0) + 1
