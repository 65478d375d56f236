"""Order, pay, notice, query, close, sweep and rejection of one registration, in any order and at once.

A small model follows what the *gateway* knows; whatever the order of things, the end must be what it says: paid if and
only if the gateway took a payment before the close and nobody rejected, and every other fen on its way back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from uuid import UUID

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from deploy.simulators.order_book import Refusal
from services.payment.handlers import closing
from services.payment.repository import orders as order_rows
from tests.service.payment.system import System, approved, rejected

WINDOW = timedelta(minutes=6)
FEE = 20_000
# What may follow what on the topic; anything else is a transition that does not exist.
FOLLOWS = {("due", "paid"), ("due", "expired"), ("expired", "reinstated"), ("reinstated", "paid")}

STEPS = (
    "order",
    "pay-first",
    "pay-last",
    "notice-first",
    "notice-last",
    "query",
    "decide",
    "sweep",
    "down",
    "up",
    "reject",
    "minute",
    "to-the-end",
    "to-the-close",
)
step = st.sampled_from(STEPS)
# Mostly one after the other, now and then two or three at once.
story = st.lists(
    st.one_of(step.map(lambda one: (one,)), step.map(lambda one: (one,)), st.tuples(step, step, step)),
    min_size=3,
    max_size=14,
)


@dataclass
class World:
    """One registration's window, and what the gateway knows of it."""

    system: System
    candidate: UUID
    opens: datetime
    orders: list[str] = field(default_factory=list)
    rejected: bool = False
    codes: list[str] = field(default_factory=list)

    @property
    def closes(self) -> datetime:
        return self.opens + WINDOW

    @property
    def now(self) -> datetime:
        return self.system.clock.now()

    def payments(self) -> list[datetime]:
        """The moments at which the gateway took money for this candidate."""
        book = self.system.world.wechat.book
        found = [book.find(number) for number in self.orders]
        return [order.paid_at for order in found if order is not None and order.paid_at is not None]

    def move_to(self, moment: datetime) -> None:
        if moment > self.now:
            self.system.clock.jump(moment)

    async def learn_orders(self) -> None:
        rows = await self.system.rows(
            "select order_no from orders where registration_id = $1 order by created_at, order_no",
            self.candidate,
        )
        self.orders += [row["order_no"] for row in rows if row["order_no"] not in self.orders]

    async def settle_undecided(self) -> None:
        async with self.system.database.reading() as uow:
            found = await order_rows.of_registration(uow, self.candidate)
        await self.system.turns.gateways.settle_all(
            [order for order in found if order.status in {"creating", "open", "unknown"}]
        )

    async def do(self, what: str) -> None:
        system, database = self.system, self.system.database
        if what == "order":
            answer = await system.order(self.candidate)
            self.codes.append(answer.json().get("code", "made"))
        elif what.startswith("pay"):
            if self.orders:
                try:
                    system.pay(self.orders[0 if what.endswith("first") else -1])
                except Refusal as refusal:
                    self.codes.append(refusal.code)
        elif what.startswith("notice"):
            number = self.orders[0 if what.endswith("first") else -1] if self.orders else None
            known = system.world.wechat.book.find(number) if number else None
            if known is not None and known.paid_at is not None and not system.world.wechat.weather.until:
                await system.call_back(known.out_trade_no)
        elif what == "query":
            await self.settle_undecided()
        elif what == "decide":
            if self.now >= self.closes:
                await closing.decide_open_orders(system.turns.gateways, self.now)
        elif what == "sweep":
            # Also before the close: it must find nobody.
            await closing.sweep(database, system.cycle, self.now)
        elif what == "down":
            system.gateway_down(3600)
        elif what == "up":
            system.gateway_down(0)
        elif what == "reject":
            self.rejected = True
            await system.process.consumers.on_batch([system.record(rejected(self.candidate))])
        elif what == "minute":
            self.move_to(self.now + timedelta(minutes=1))
        elif what == "to-the-end":
            self.move_to(self.closes - timedelta(seconds=1))
        else:
            self.move_to(self.closes)

    async def check(self) -> None:
        """What holds at every moment."""
        row = await self.system.obligation(self.candidate)
        in_time = [paid for paid in self.payments() if paid < self.closes]
        if row["status"] == "paid":
            assert in_time, "paid, and the gateway has no payment in time"
        if row["status"] == "expired":
            assert self.now >= self.closes, "forfeited before the close"
            assert row["proof_id"] is not None
        if row["status"] == "cancelled":
            assert self.rejected
        words = await self.system.words(self.candidate)
        assert words[0] == "due"
        assert set(pairwise(words)) <= FOLLOWS, words

    async def come_to_rest(self) -> None:
        """The gateway is back, every callback arrives, the close has run."""
        self.system.gateway_down(0)
        self.move_to(self.closes)
        await self.learn_orders()
        await closing.decide_open_orders(self.system.turns.gateways, self.now)
        for number in self.orders:
            known = self.system.world.wechat.book.find(number)
            if known is not None and known.paid_at is not None:
                await self.system.call_back(number)
        await self.settle_undecided()
        await closing.sweep(self.system.database, self.system.cycle, self.now)

    async def check_the_end(self) -> None:
        payments = self.payments()
        in_time = [paid for paid in payments if paid < self.closes]
        status = await self.system.status(self.candidate)
        ledger = await self.system.ledger(self.candidate)
        received = sum(fen for kind, fen, _ in ledger if kind == "received")
        back = sum(fen for kind, fen, _ in ledger if kind == "refund-due")
        assert received == FEE * len(payments), "the book and the gateway's disagree"
        if self.rejected:
            assert (status, back) == ("cancelled", received)
        elif in_time:
            assert (status, back) == ("paid", received - FEE)
        else:
            assert (status, back) == ("expired", received)
        undecided = await self.system.rows(
            "select 1 from orders where registration_id = $1 and status in ('creating', 'open', 'unknown')",
            self.candidate,
        )
        assert not undecided


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(story)
async def test_whatever_the_order_the_end_is_what_the_gateway_says(
    system: System, story: list[tuple[str, ...]]
) -> None:
    candidate = uuid7()
    system.gateway_down(0)
    world = World(system, candidate, system.clock.now())
    await system.process.consumers.on_batch([system.record(approved(candidate))])
    # A window of its own for each story, inside the cycle's.
    await system.write(
        "update obligations set opens_at = $2, closes_at = $3 where registration_id = $1",
        candidate,
        world.opens,
        world.closes,
    )
    for steps in story:
        results = await asyncio.gather(*(world.do(what) for what in steps), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        await world.learn_orders()
        await world.check()
    note(f"codes: {world.codes}")
    await world.come_to_rest()
    await world.check()
    await world.check_the_end()
    assert not await system.parked()
