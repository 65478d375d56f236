"""An approval makes the fee owed; losing the approval ends that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import structlog

from contracts import confirmation, payment, registration
from contracts.cycle import Cycle
from contracts.reasons import RefundCause
from services.chassis import outbox
from services.chassis.db import UnitOfWork
from services.payment.domain.closes import Closes
from services.payment.domain.obligation import Cancellation, Status
from services.payment.handlers.metrics import REFUNDS_DUE
from services.payment.repository import ledger, obligations, windows
from services.payment.repository.obligations import Fee

log = structlog.get_logger(__name__)


class ForeignCycle(Exception):
    """An event of another cycle than the one this service runs: its fee is not known here."""


async def open_obligations(
    uow: UnitOfWork,
    events: Sequence[confirmation.Approved],
    *,
    cycle: Cycle,
    close_again: Callable[[], None],
) -> None:
    """Fix each fee by the cycle's table and say that it is due. What is owed already stays as it is."""
    approved = {event.registration_id: event for event in events}
    if any(event.cycle_id != cycle.id for event in approved.values()):
        raise ForeignCycle
    # A close that moves moves them as well: either we see it, or whoever moves it waits for us.
    await windows.share(uow)
    closes = await windows.in_force(uow, cycle)
    opens_at = cycle.windows.payment.opens
    fees = {event.registration_id: _fee(event, cycle, closes) for event in approved.values()}
    versions = await obligations.open_all(
        uow, list(fees.values()), cycle_id=cycle.id, currency=cycle.currency, opens_at=opens_at
    )
    await outbox.add_all(
        uow,
        [
            (
                payment.Due(
                    cycle_id=cycle.id,
                    registration_id=registration_id,
                    amount_fen=fees[registration_id].amount_fen,
                    currency=cycle.currency,
                    opens_at=opens_at,
                    closes_at=fees[registration_id].told_closes_at,
                ),
                version,
                approved[registration_id].envelope,
            )
            for registration_id, version in versions.items()
        ],
    )
    if any(fees[registration_id].closes_at <= uow.at for registration_id in versions):
        # The approval was in time and its news was not: the close has to look once more.
        uow.after_commit(close_again)
    if len(versions) < len(approved):
        log.warning("approved-again", owed_already=len(approved) - len(versions))


def _fee(event: confirmation.Approved, cycle: Cycle, closes: Closes) -> Fee:
    close = closes.at_site(event.site_id)
    amount = cycle.fee_fen(event.level, event.subjects, cycle.specialty(event.specialty_code).mode)
    return Fee(event.registration_id, amount, event.site_id, close.closes_at, close.told_closes_at)


async def cancel_rejected(
    uow: UnitOfWork,
    events: Sequence[confirmation.Rejected],
    *,
    ask_gateway: Callable[[], None],
    refund_soon: Callable[[], None],
) -> None:
    """Rejected: nothing is owed, and what was paid goes back."""
    await _cancel(uow, events, Cancellation.REJECTED, ask_gateway)
    uow.after_commit(refund_soon)


async def cancel_returned(
    uow: UnitOfWork, events: Sequence[confirmation.Returned], *, ask_gateway: Callable[[], None]
) -> None:
    """Sent back: nothing is owed until it is approved again. After payment this is for people to sort out."""
    await _cancel(uow, events, Cancellation.RETURNED, ask_gateway)


async def cancel_withdrawn(
    uow: UnitOfWork, events: Sequence[registration.Withdrawn], *, ask_gateway: Callable[[], None]
) -> None:
    """Withdrawn while the approval was on its way. After payment this is for people to sort out."""
    await _cancel(uow, events, Cancellation.WITHDRAWN, ask_gateway)


async def _cancel(
    uow: UnitOfWork,
    events: Sequence[confirmation.Rejected | confirmation.Returned | registration.Withdrawn],
    why: Cancellation,
    ask_gateway: Callable[[], None],
) -> None:
    owed = await obligations.lock_all(uow, [event.registration_id for event in events])
    for registration_id, before in owed.items():
        # Nothing was owed any more, and still nothing is.
        if before.status is Status.CANCELLED:
            continue
        await obligations.cancel(uow, before, before.cancel(why))
        if before.status is Status.PAID:
            count = await ledger.owe_back_all(uow, registration_id, RefundCause.REJECTED)
            uow.after_commit(partial(REFUNDS_DUE.labels(RefundCause.REJECTED).inc, count))
    if owed:
        # An order under way must be closed at the gateway, which no consumer may wait for.
        uow.after_commit(ask_gateway)
