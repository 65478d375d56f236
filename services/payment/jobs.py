"""Door 3, time: what happens because a moment passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.chassis.clock import Clock
from services.chassis.clock_guard import ClockGuard
from services.chassis.giving_way import Visitors
from services.chassis.jobs import Job
from services.payment.handlers import closing, deciding, recovering, reminding
from services.payment.handlers.metrics import CLOSE_SECONDS
from services.payment.handlers.reconciling import Bills
from services.payment.handlers.refunding import Refunds
from services.payment.handlers.settling import Gateways
from services.payment.repository import ledger, orders
from services.payment.repository.closing import CHUNK

_LOOK_AGAIN = timedelta(seconds=30)  # at clocks that disagreed, at a recovery that is not complete
_PAGE = 500


@dataclass(frozen=True)
class Turns:
    """What time does in this service."""

    gateways: Gateways
    refunds: Refunds
    clock: Clock
    guard: ClockGuard
    sweep_chunk: int = CHUNK
    visitors: Visitors = field(default_factory=Visitors)

    async def close_window(self, asked: Callable[[], None] = lambda: None) -> datetime | None:
        """The payment window closes: everyone who owed is paid, held or forfeited. A missed close runs at start."""
        database, cycle, at = self.gateways.database, self.gateways.cycle, self.clock.now()
        standing = await closing.standing(database, cycle, at)
        if not standing.come:
            return (
                standing.next_at
            )  # nobody is forfeited a moment too soon, nor while their close is being decided about
        if await recovering.is_open(database):
            return at + _LOOK_AGAIN  # nor before every order made before a restore is known
        if not standing.is_open:
            return standing.next_at
        if not await closing.clocks_agree(database, cycle, standing.come, at, self.guard):
            return at + _LOOK_AGAIN
        if (slowest := at - self.guard.ahead) < standing.come[-1]:
            # nor before the slowest of the clocks that agree is there
            return at + (standing.come[-1] - slowest)
        with CLOSE_SECONDS.time():
            # 1: no new order from two minutes before the close on (domain/ordering.py).
            # 2: every open order is closed at its gateway and asked about: paid in time, unpaid, or held.
            await closing.decide_open_orders(self.gateways, at)
            asked()
            # 3: whoever still owes is forfeited, each with proof and event.
            clocks = await closing.note_clocks(database, cycle, at, self.guard)
            await closing.sweep(
                database, cycle, at, chunk=self.sweep_chunk, clocks=clocks, visitors=self.visitors
            )
            # 4: counts, sums and the root of the evidence, once.
            for closes_at in standing.unsaid:
                last = standing.next_at is None and closes_at == standing.come[-1]
                await closing.publish_totals(database, cycle, closes_at, at, last=last)
            # 5: whoever was forfeited after that: a root of their own.
            await closing.publish_later_proofs(database, cycle, at)
        return standing.next_at

    async def settle_orders(self, decided: Callable[[], None]) -> datetime | None:
        """Orders past their end, of rejected people, or without an answer: ask the gateway. Callbacks get lost."""
        if await recovering.is_open(self.gateways.database):
            if not await recovering.recover(self.gateways):
                return self.clock.now() + _LOOK_AGAIN
            decided()
        while True:
            async with self.gateways.database.reading() as uow:
                due = await orders.to_ask(uow, _PAGE)
                upcoming = None if due else await orders.next_to_ask(uow)
            if not due:
                return upcoming
            await self.gateways.settle_all(due)
            if await closing.has_come(self.gateways.database, self.gateways.cycle, uow.at):
                decided()

    async def refund(self) -> datetime | None:
        """Money that is due back is given back."""
        if await recovering.is_open(self.gateways.database):
            return self.clock.now() + _LOOK_AGAIN  # what is due is not fully known
        return await self.refunds.give_back()

    async def post_fees(self) -> datetime | None:
        """A process of the version before posts no fees: while both run, and once more after it, they are completed."""
        async with self.gateways.database.unit_of_work() as uow:
            await ledger.complete_fees(uow)
        return None

    async def remind(self) -> datetime | None:
        """The close is near: tell those who still owe."""
        if await recovering.is_open(self.gateways.database):
            return self.clock.now() + _LOOK_AGAIN  # whoever has paid must not be told to pay
        if not await closing.is_over(self.gateways.database, self.gateways.cycle, self.clock.now()):
            # Who is paying is not reminded, and a reminder comes once: an order that has just ended must be nobody's reason
            # to miss it, nor a callback that got lost a reason to be told to pay again.
            await self.settle_orders(lambda: None)
        return await reminding.remind(
            self.gateways.database, self.gateways.cycle, self.clock.now(), self.visitors
        )

    async def carry_out(self, done: Callable[[], None]) -> datetime | None:
        """What two people have decided is done to everybody it concerns."""
        if await deciding.carry_out(self.gateways.database, self.clock.now()):
            done()
        return None


def carry_out_job(turns: Turns, *others: Job) -> Job:
    """carry-out. The others look again once a close has moved: when it comes, when to remind, whom to ask about."""

    def done() -> None:
        for job in others:
            job.wake()

    return Job("carry-out", lambda: turns.carry_out(done), every=timedelta(seconds=30))


def reconcile_job(turns: Turns, bills: Bills) -> Job:
    """reconcile. Each channel's bill of the day before, at 10:30 Beijing; days that were missed as soon as it runs again."""

    async def reconcile() -> datetime | None:
        if await recovering.is_open(turns.gateways.database):
            return turns.clock.now() + _LOOK_AGAIN  # what is missing in our book may only not be back yet
        return await bills.reconcile()

    return Job("reconcile", reconcile, every=timedelta(minutes=30))


def make_jobs(turns: Turns) -> tuple[Job, ...]:
    """close-window, settle-orders, remind, refund, post-fees."""
    # Whoever is held at the close is asked about again: the other job must learn when.
    close = Job("close-window", lambda: turns.close_window(settle.wake), every=timedelta(seconds=30))
    settle = Job("settle-orders", lambda: turns.settle_orders(close.wake), every=timedelta(seconds=60))
    remind = Job("remind", turns.remind, every=timedelta(minutes=5))
    refund = Job("refund", turns.refund, every=timedelta(seconds=60))
    post_fees = Job("post-fees", turns.post_fees, every=timedelta(hours=1))
    return close, settle, remind, refund, post_fees
