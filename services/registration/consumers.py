"""Door 2, events: what the later stages said, as the candidate's own page shows it.

Each handler's name stands in the inbox: renaming one makes it take every event in again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from contracts import confirmation, notification, payment
from contracts.cycle import Cycle
from contracts.event import Event
from contracts.reasons import Carrier, Decision, ReasonCode, ReinstatementCause
from services.chassis.consuming import Handler
from services.chassis.db import UnitOfWork
from services.registration.domain.registration import Confirmation, Payment
from services.registration.repository.desks import set_desk_hours
from services.registration.repository.news import (
    ConfirmationNews,
    PaymentNews,
    follow_confirmation,
    follow_payment,
    mark_failed,
)

_DESK: Final = "desk"  # the review level that a desk's confirmation is


def _decision(
    event: Event, level: str, decision: Decision, reasons: Sequence[ReasonCode] = ()
) -> dict[str, Any]:
    return {
        level: {
            "decision": decision.value,
            "reason_codes": [reason.value for reason in reasons],
            "at": event.envelope.time.isoformat(),
        }
    }


async def follow_confirmed(uow: UnitOfWork, events: Sequence[confirmation.Confirmed]) -> None:
    """Locked for the candidate; what levels decided about an earlier form no longer counts."""
    await follow_confirmation(
        uow,
        [
            ConfirmationNews(
                event.registration_id,
                event.envelope.sequence,
                Confirmation.CONFIRMED,
                starts_over=True,
                decisions=_decision(event, _DESK, Decision.APPROVE),
            )
            for event in events
        ],
    )


async def follow_returned(uow: UnitOfWork, events: Sequence[confirmation.Returned]) -> None:
    """Editable again."""
    await follow_confirmation(
        uow,
        [
            ConfirmationNews(
                event.registration_id,
                event.envelope.sequence,
                Confirmation.RETURNED,
                fix_until=event.fix_until,
                starts_over=True,
                decisions=_decision(event, event.level, Decision.RETURN, event.reason_codes),
            )
            for event in events
        ],
    )


async def follow_reviewed(uow: UnitOfWork, events: Sequence[confirmation.Reviewed]) -> None:
    await follow_confirmation(
        uow,
        [
            ConfirmationNews(
                event.registration_id,
                event.envelope.sequence,
                decisions=_decision(event, event.level, event.decision),
            )
            for event in events
        ],
    )


async def follow_approved(uow: UnitOfWork, events: Sequence[confirmation.Approved]) -> None:
    await follow_confirmation(
        uow,
        [
            ConfirmationNews(event.registration_id, event.envelope.sequence, Confirmation.APPROVED)
            for event in events
        ],
    )


async def follow_rejected(uow: UnitOfWork, events: Sequence[confirmation.Rejected]) -> None:
    await follow_confirmation(
        uow,
        [
            ConfirmationNews(
                event.registration_id,
                event.envelope.sequence,
                Confirmation.REJECTED,
                decisions=_decision(event, event.level, Decision.REJECT, event.reason_codes),
            )
            for event in events
        ],
    )


async def follow_lapsed(uow: UnitOfWork, events: Sequence[confirmation.Lapsed]) -> None:
    """The registration no longer holds its person: they may pre-register again."""
    await follow_confirmation(
        uow,
        [
            ConfirmationNews(event.registration_id, event.envelope.sequence, Confirmation.LAPSED)
            for event in events
        ],
    )


async def follow_desk_window(
    uow: UnitOfWork, events: Sequence[confirmation.DeskWindowSet], *, cycle: Cycle
) -> None:
    """The dead-end guard and the candidates' deadlines follow the office. KeyError for a desk the cycle does not have."""
    for event in events:
        if event.cycle_id == cycle.id:
            cycle.site(event.site_id)
        await set_desk_hours(uow, event, event.envelope.sequence)


async def follow_due(uow: UnitOfWork, events: Sequence[payment.Due]) -> None:
    await follow_payment(
        uow,
        [
            PaymentNews(
                event.registration_id,
                event.envelope.sequence,
                Payment.AWAITING,
                amount_fen=event.amount_fen,
                opens_at=event.opens_at,
                closes_at=event.closes_at,
            )
            for event in events
        ],
    )


async def follow_paid(uow: UnitOfWork, events: Sequence[payment.Paid]) -> None:
    await follow_payment(
        uow,
        [
            PaymentNews(event.registration_id, event.envelope.sequence, Payment.PAID, paid_at=event.paid_at)
            for event in events
        ],
    )


async def follow_expired(uow: UnitOfWork, events: Sequence[payment.Expired]) -> None:
    await follow_payment(
        uow,
        [
            PaymentNews(
                event.registration_id, event.envelope.sequence, Payment.EXPIRED, closes_at=event.closes_at
            )
            for event in events
        ],
    )


async def follow_reinstated(uow: UnitOfWork, events: Sequence[payment.Reinstated]) -> None:
    """Alive again: paid already, or payable until the new close."""
    await follow_payment(
        uow,
        [
            PaymentNews(
                event.registration_id,
                event.envelope.sequence,
                Payment.PAID if event.cause is ReinstatementCause.PAID_IN_TIME else Payment.AWAITING,
                closes_at=event.closes_at,
            )
            for event in events
        ],
    )


async def follow_payment_window(uow: UnitOfWork, events: Sequence[payment.WindowMoved]) -> None:
    await follow_payment(
        uow,
        [
            PaymentNews(event.registration_id, event.envelope.sequence, closes_at=event.closes_at)
            for event in events
        ],
    )


# Notification's words for a carrier that was away, or a text that no carrier takes: the number or mailbox may be right.
_NOT_THE_CONTACTS: Final = frozenset({"too-late", "given-up", "template-refused", "mail-too-big"})


async def mark_undeliverable(uow: UnitOfWork, events: Sequence[notification.Undeliverable]) -> None:
    """「联系电话务必准确畅通」: a number that proves undeliverable must surface at the desk."""
    failed = [
        (event.registration_id, Carrier(event.channel).value, event.envelope.time)
        for event in events
        if event.reason_code not in _NOT_THE_CONTACTS
    ]
    if failed:
        await mark_failed(uow, failed)


HANDLERS: Final[dict[type[Event], Handler]] = {
    confirmation.Confirmed: follow_confirmed,
    confirmation.Returned: follow_returned,
    confirmation.Reviewed: follow_reviewed,
    confirmation.Approved: follow_approved,
    confirmation.Rejected: follow_rejected,
    confirmation.Lapsed: follow_lapsed,
    confirmation.DeskWindowSet: follow_desk_window,
    payment.Due: follow_due,
    payment.Paid: follow_paid,
    payment.Expired: follow_expired,
    payment.Reinstated: follow_reinstated,
    payment.WindowMoved: follow_payment_window,
    notification.Undeliverable: mark_undeliverable,
}
