"""The close of the payment window: who is paid, who is held, who is forfeited, and what is published of it.

The rule itself is `Obligation.expire` in domain/obligation.py; `repository/closing.py` has it as one statement for many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from contracts import payment
from contracts.cycle import Cycle
from services.chassis import audit, outbox
from services.chassis.clock_guard import ClockGuard
from services.chassis.crash import crash_point
from services.chassis.db import Database
from services.chassis.giving_way import GivingWay, Visitors
from services.chassis.tokens import Actor
from services.payment.domain.obligation import Status
from services.payment.domain.proof_tree import NO_CLOCKS, Clocks, ProofTree, clocks_text
from services.payment.handlers.metrics import CLOSE_STOPPED, EXPIRED, HELD
from services.payment.handlers.settling import Gateways
from services.payment.repository import closing, cycle_words, orders, roots, windows

log = structlog.get_logger(__name__)

_PAGE = 2000
CLOCKS_NOTED: Final = "clocks-agreed"
_CLOSE: Final = Actor("close-window", frozenset({"service"}))


@dataclass(frozen=True, slots=True)
class Standing:
    """The closes whose moment has come, those among them to be published, and the next moment at which there is more to do."""

    come: tuple[datetime, ...]
    unsaid: tuple[datetime, ...]
    next_at: datetime | None
    anybody_left: bool
    anybody_unproven: bool

    @property
    def is_open(self) -> bool:
        """Whether a close that has come still leaves anything to do."""
        return bool(self.unsaid) or ((self.anybody_left or self.anybody_unproven) and bool(self.come))


async def standing(database: Database, cycle: Cycle, at: datetime) -> Standing:
    """Where the closes stand. What is being decided about has not come: see `windows.PUT_OFF`."""
    async with database.reading(at) as uow:
        in_force = await windows.in_force(uow, cycle)
        owed = await closing.owed_closes(uow)
        put_off = await windows.put_off(uow)
        moments = sorted({close.closes_at for close in in_force.in_force()} | set(owed))
        for_all = max((one.closes_at for one in put_off if one.site_id is None), default=None)
        come = [moment for moment in moments if moment <= at and not (for_all and moment < for_all)]
        # While a desk's people may still move, what the close they would leave has come to is not known.
        unsaid = [
            moment
            for moment in await closing.unsaid(uow, cycle.id, come)
            if not any(moment < one.closes_at for one in put_off)
        ]
        left = await closing.anybody_left(uow)
        unproven = await roots.any_beyond(uow, cycle.id)
    ahead = [moment for moment in moments if moment > at]
    ahead += [one.closes_at for one in put_off if one.closes_at > at]
    return Standing(tuple(come), tuple(unsaid), min(ahead, default=None), left, unproven)


async def has_come(database: Database, cycle: Cycle, at: datetime) -> bool:
    """Whether the window has closed for somebody."""
    async with database.reading(at) as uow:
        return at >= (await windows.in_force(uow, cycle)).everywhere.closes_at


async def is_over(database: Database, cycle: Cycle, at: datetime) -> bool:
    """Whether it has closed for everybody: for every desk, and for whoever was given a close of their own."""
    async with database.reading(at) as uow:
        in_force = await windows.in_force(uow, cycle)
        owed = await closing.owed_closes(uow)
    return at >= max(
        *(close.closes_at for close in in_force.in_force()), *owed, in_force.everywhere.closes_at
    )


async def clocks_agree(
    database: Database, cycle: Cycle, closes: Sequence[datetime], at: datetime, guard: ClockGuard
) -> bool:
    """Ask three clocks before anybody loses a place because of the time; a close they stop stays pending, in sight."""
    disagreement = await guard.check()
    async with database.unit_of_work(at) as uow:
        for closes_at in closes:
            await closing.begin(
                uow,
                cycle.id,
                closes_at,
                cycle.fingerprint,
                disagreement.reason if disagreement else None,
            )
    if disagreement:
        CLOSE_STOPPED.inc()
        log.error("close-stopped", reason=disagreement.reason)
    return disagreement is None


async def note_clocks(database: Database, cycle: Cycle, at: datetime, guard: ClockGuard) -> str:
    """Keep what the clocks said that a forfeiture goes by; returned as its proof binds it."""
    said = guard.agreed
    virtual = database.clock.virtual
    clocks = Clocks(said.application, said.database, said.broker, virtual) if said else None
    text = clocks_text(clocks)
    async with database.unit_of_work(at) as uow:
        await audit.record(
            uow,
            _CLOSE,
            CLOCKS_NOTED,
            subject=cycle.id,
            detail={"closes_at": cycle.windows.payment.closes, "clocks": text},
        )
    return text


async def decide_open_orders(gateways: Gateways, at: datetime) -> None:
    """Every open order is closed at its gateway and asked about; whoever's gateway gives no answer is held."""
    after = ""
    while True:
        async with gateways.database.reading(at) as uow:
            page = await orders.undecided_at_close(uow, after, _PAGE)
        if not page:
            break
        await gateways.settle_all(page)
        after = page[-1].order_no
    async with gateways.database.unit_of_work(at) as uow:
        await windows.share(uow)
        held = await closing.hold(uow)
    if held:
        HELD.inc(held)
        log.warning("held", registrations=held)


async def sweep(
    database: Database,
    cycle: Cycle,
    at: datetime,
    *,
    chunk: int = closing.CHUNK,
    clocks: str = NO_CLOCKS,
    visitors: Visitors | None = None,
) -> int:
    """Forfeit everyone who still owes, a chunk at a time, until a count without locks finds nobody.

    Payments made in time are told of meanwhile: while any of `visitors` come, the sweep lets them through.
    """
    total = 0
    wait = False
    way = GivingWay(visitors or Visitors(), chunk)
    while True:
        size = way.size
        async with database.unit_of_work(at) as uow:
            await windows.share(uow)
            swept = await closing.sweep_chunk(uow, cycle.fingerprint, clocks=clocks, wait=wait, chunk=size)
            crash_point("sweep-in-chunk")
        crash_point("sweep-after-chunk")
        EXPIRED.inc(swept)
        total += swept
        if swept == size:
            await way.rest()
            continue
        async with database.reading(at) as uow:
            if not await closing.count_due(uow):
                return total
        # What is left is held by other transactions, payments most likely: wait for them, they decide first.
        wait = True


async def publish_totals(
    database: Database, cycle: Cycle, closes_at: datetime, at: datetime, *, last: bool
) -> None:
    """Say `window-closed`, once for each close: counts, sums, and the root of the evidence. `last`: none comes after it."""
    async with database.unit_of_work(at) as uow:
        if not await closing.lock_unsaid(uow, cycle.id, closes_at):
            return
        last_proof = await _last_settled(database, at)
        totals = await closing.totals(uow, cycle.id, closes_at, last=last, last_proof=last_proof)
        tree = ProofTree()
        async for leaf in closing.leaves(uow, closes_at, last_proof):
            tree.add(leaf)
        concluded = (Status.PAID, Status.EXPIRED, Status.HELD)
        event = payment.WindowClosed(
            cycle_id=cycle.id,
            closes_at=closes_at,
            closed_at=at,
            counts=payment.ClosedCounts(
                paid=totals.counts.get(Status.PAID, 0),
                expired=totals.counts.get(Status.EXPIRED, 0),
                held=totals.counts.get(Status.HELD, 0),
            ),
            sums_fen=payment.ClosedSums(
                received=totals.received_fen,
                due=sum(totals.fees_fen.get(status, 0) for status in concluded),
                held=totals.fees_fen.get(Status.HELD, 0),
                refunds_due=totals.refunds_due_fen,
            ),
            proof_root=tree.root().hex(),
            proofs=tree.leaves,
        )
        sequence = await closing.close(uow, event, last_proof)
        await outbox.add(uow, event, sequence=sequence)
        crash_point("close-in-totals")
    log.info("window-closed", **event.counts.model_dump(), proofs=event.proofs, proof_root=event.proof_root)


async def _last_settled(database: Database, at: datetime) -> int:
    """A number of proofs under which none is still to come: nobody else is in the middle of forfeiting.

    In a transaction of its own: a tree over a million leaves takes seconds, in which the office may ask for a decision.
    """
    async with database.unit_of_work(at) as uow:
        await windows.hold(uow)
        return await roots.last_number(uow)


async def publish_later_proofs(database: Database, cycle: Cycle, at: datetime) -> None:
    """Say `proofs-published`: the root over whoever was forfeited after their close was published (held, or approved late)."""
    async with database.reading(at) as uow:
        if not await roots.any_beyond(uow, cycle.id):
            return
    async with database.unit_of_work(at) as uow:
        await roots.alone(uow)
        await windows.hold(uow)
        later = await roots.beyond(uow, cycle.id)
        if later is None:
            return  # another process was first
        tree = ProofTree()
        async for leaf in roots.leaves(uow, cycle.id, later.after_proof, later.last_proof):
            tree.add(leaf)
        event = payment.ProofsPublished(
            cycle_id=cycle.id,
            proof_root=tree.root().hex(),
            proofs=tree.leaves,
            proofs_before=later.before,
            expired_fen=later.expired_fen,
        )
        sequence = await cycle_words.next_sequence(uow, cycle.id)
        await roots.add(uow, event, later, sequence)
        await outbox.add(uow, event, sequence=sequence)
        crash_point("close-in-later-proofs")
    log.info("proofs-published", proofs=event.proofs, proof_root=event.proof_root)
