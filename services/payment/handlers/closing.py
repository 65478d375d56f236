"""The close of the payment window: who is paid, who is held, who is forfeited, and what is published of it.

The rule itself is `Obligation.expire` in domain/obligation.py; `repository/closing.py` has it as one statement for many.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from contracts import payment
from contracts.cycle import Cycle
from services.chassis import outbox
from services.chassis.clock_guard import ClockGuard
from services.chassis.crash import crash_point
from services.chassis.db import Database
from services.payment.domain.obligation import Status
from services.payment.domain.proof_tree import ProofTree
from services.payment.handlers.metrics import CLOSE_STOPPED, EXPIRED, HELD
from services.payment.handlers.settling import Gateways
from services.payment.repository import closing, orders

log = structlog.get_logger(__name__)

_PAGE = 2000


async def is_open(database: Database, cycle: Cycle, at: datetime) -> bool:
    """Whether the close, whose moment has come, still leaves anything to do."""
    async with database.reading(at) as uow:
        return await closing.anything_open(uow, cycle.id, cycle.windows.payment.closes)


async def clocks_agree(database: Database, cycle: Cycle, at: datetime, guard: ClockGuard) -> bool:
    """Ask three clocks before anybody loses a place because of the time; a close they stop stays pending, in sight."""
    disagreement = await guard.check()
    async with database.unit_of_work(at) as uow:
        await closing.begin(
            uow,
            cycle.id,
            cycle.windows.payment.closes,
            cycle.fingerprint,
            disagreement.reason if disagreement else None,
        )
    if disagreement:
        CLOSE_STOPPED.inc()
        log.error("close-stopped", reason=disagreement.reason)
    return disagreement is None


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
        held = await closing.hold(uow)
    if held:
        HELD.inc(held)
        log.warning("held", registrations=held)


async def sweep(database: Database, cycle: Cycle, at: datetime, *, chunk: int = closing.CHUNK) -> int:
    """Forfeit everyone who still owes, a chunk at a time, until a count without locks finds nobody."""
    total = 0
    wait = False
    while True:
        async with database.unit_of_work(at) as uow:
            swept = await closing.sweep_chunk(uow, cycle.fingerprint, wait=wait, chunk=chunk)
            crash_point("sweep-in-chunk")
        crash_point("sweep-after-chunk")
        EXPIRED.inc(swept)
        total += swept
        if swept == chunk:
            continue
        async with database.reading(at) as uow:
            if not await closing.count_due(uow):
                return total
        # What is left is held by other transactions, payments most likely: wait for them, they decide first.
        wait = True


async def publish_totals(database: Database, cycle: Cycle, at: datetime) -> None:
    """Say `window-closed`, once: counts, sums, and the root of the evidence."""
    closes_at = cycle.windows.payment.closes
    async with database.unit_of_work(at) as uow:
        if not await closing.lock_unsaid(uow, cycle.id, closes_at):
            return
        totals = await closing.totals(uow, closes_at)
        tree = ProofTree()
        async for leaf in closing.leaves(uow, closes_at, totals.last_proof):
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
        sequence = await closing.close(uow, event, totals.last_proof)
        await outbox.add(uow, event, sequence=sequence)
    log.info("window-closed", **event.counts.model_dump(), proofs=event.proofs, proof_root=event.proof_root)
