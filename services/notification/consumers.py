"""Door 2, events: what the other services said that a candidate must be told, or that we must know to tell it.

Each handler's name stands in the inbox: renaming one makes it take every event in again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from contracts import confirmation, payment, registration
from contracts.event import Event
from contracts.reasons import ReinstatementCause
from services.chassis.consuming import Handler
from services.chassis.db import UnitOfWork
from services.notification.domain import told
from services.notification.domain.life import Standing
from services.notification.handlers.telling import Teller
from services.notification.repository import erasing, recipients
from services.notification.repository.recipients import News

# Events taken in at once. Twice as many as elsewhere: nobody waits for an answer of this service, and it is told of everybody
# at a deadline.
BATCH: Final = 1000


async def tell_pre_registered(
    uow: UnitOfWork, events: Sequence[registration.PreRegistered], *, teller: Teller
) -> None:
    desks = await teller.desks(uow)
    news = {event.registration_id: News(site_id=event.site_id) for event in events}
    said = [told.pre_registered(event, desks, teller.cycle) for event in events]
    await teller.tell(uow, events, said, news=news)


async def tell_amended(uow: UnitOfWork, events: Sequence[registration.Amended], *, teller: Teller) -> None:
    desks = await teller.desks(uow)
    known = await recipients.known(uow, [event.registration_id for event in events])
    news = {event.registration_id: News(site_id=event.site_id) for event in events}
    said = [
        told.amended(event, desks, teller.cycle, known.get(event.registration_id, (None, None))[1])
        for event in events
    ]
    await teller.tell(uow, events, said, news=news, new_contact=True)


async def refresh_contact(
    uow: UnitOfWork, events: Sequence[registration.ContactChanged], *, teller: Teller
) -> None:
    await teller.know(uow, events, new_contact=True)
    await teller.tell_again(uow, events)


async def forget(uow: UnitOfWork, events: Sequence[registration.Erased], *, teller: Teller) -> None:
    await teller.know(uow, events)
    await erasing.erase(uow, sorted({event.registration_id for event in events}))


async def tell_withdrawn(
    uow: UnitOfWork, events: Sequence[registration.Withdrawn], *, teller: Teller
) -> None:
    await teller.tell(uow, events, [told.withdrawn(event, uow.at, teller.cycle) for event in events])


async def tell_confirmed(
    uow: UnitOfWork, events: Sequence[confirmation.Confirmed], *, teller: Teller
) -> None:
    await teller.tell(uow, events, [told.confirmed(event, teller.cycle) for event in events])


async def tell_returned(uow: UnitOfWork, events: Sequence[confirmation.Returned], *, teller: Teller) -> None:
    desks = await teller.desks(uow)
    known = await recipients.known(uow, [event.registration_id for event in events])
    news = {event.registration_id: News(confirm_by=event.fix_until) for event in events}
    said = [
        told.returned(event, known.get(event.registration_id, (None, None))[0], desks) for event in events
    ]
    await teller.tell(uow, events, said, news=news, sets_confirm_by=True)


async def tell_approved(uow: UnitOfWork, events: Sequence[confirmation.Approved], *, teller: Teller) -> None:
    await teller.tell(uow, events, [told.approved(event, teller.cycle) for event in events])


async def tell_rejected(uow: UnitOfWork, events: Sequence[confirmation.Rejected], *, teller: Teller) -> None:
    news = {event.registration_id: News(standing=Standing.CANCELLED) for event in events}
    await teller.tell(uow, events, [told.rejected(event) for event in events], news=news)


async def tell_lapsed(uow: UnitOfWork, events: Sequence[confirmation.Lapsed], *, teller: Teller) -> None:
    said = told.once_each(events, "closed_at", say=lambda event: told.lapsed(event, uow.at, teller.cycle))
    await teller.tell(uow, events, said)


async def tell_desk_window_moved(
    uow: UnitOfWork, events: Sequence[confirmation.WindowMoved], *, teller: Teller
) -> None:
    await teller.tell(uow, events, [told.desk_window_moved(event) for event in events])


async def keep_desk_hours(
    uow: UnitOfWork, events: Sequence[confirmation.DeskWindowSet], *, teller: Teller
) -> None:
    for event in events:
        teller.cycle.site(event.site_id)  # KeyError: a desk nobody here knows is parked, not kept
        await recipients.set_desk(
            uow, event.cycle_id, event.site_id, event.opens_at, event.closes_at, event.envelope.sequence
        )


async def tell_due(uow: UnitOfWork, events: Sequence[payment.Due], *, teller: Teller) -> None:
    news = {
        event.registration_id: News(
            standing=Standing.AWAITING, pay_by=told.told_close(event.closes_at, teller.cycle)
        )
        for event in events
    }
    said = told.once_each(
        events, "amount_fen", "opens_at", "closes_at", say=lambda event: told.due(event, teller.cycle)
    )
    await teller.tell(uow, events, said, news=news)


async def tell_closing_soon(
    uow: UnitOfWork, events: Sequence[payment.ClosingSoon], *, teller: Teller
) -> None:
    said = told.once_each(
        events, "amount_fen", "offset", "closes_at", say=lambda event: told.closing_soon(event, teller.cycle)
    )
    await teller.tell(uow, events, said)


async def tell_paid(uow: UnitOfWork, events: Sequence[payment.Paid], *, teller: Teller) -> None:
    news = {event.registration_id: News(standing=Standing.PAID) for event in events}
    await teller.tell(uow, events, [told.paid(event) for event in events], news=news)


async def tell_expired(uow: UnitOfWork, events: Sequence[payment.Expired], *, teller: Teller) -> None:
    news = dict.fromkeys([event.registration_id for event in events], News(standing=Standing.EXPIRED))
    said = told.once_each(events, "closes_at", "cause", say=lambda event: told.expired(event, teller.cycle))
    await teller.tell(uow, events, said, news=news)


async def tell_reinstated(uow: UnitOfWork, events: Sequence[payment.Reinstated], *, teller: Teller) -> None:
    news = {
        event.registration_id: News(
            standing=_standing_after(event), pay_by=told.told_close(event.closes_at, teller.cycle)
        )
        for event in events
    }
    await teller.tell(uow, events, [told.reinstated(event, teller.cycle) for event in events], news=news)


def _standing_after(event: payment.Reinstated) -> Standing:
    return Standing.PAID if event.cause is ReinstatementCause.PAID_IN_TIME else Standing.AWAITING


async def tell_refunded(uow: UnitOfWork, events: Sequence[payment.Refunded], *, teller: Teller) -> None:
    await teller.tell(uow, events, [told.refunded(event) for event in events])


async def tell_payment_window_moved(
    uow: UnitOfWork, events: Sequence[payment.WindowMoved], *, teller: Teller
) -> None:
    news = {
        event.registration_id: News(pay_by=told.told_close(event.closes_at, teller.cycle)) for event in events
    }
    said = [told.payment_window_moved(event, teller.cycle) for event in events]
    await teller.tell(uow, events, said, news=news)


HANDLERS: Final[Mapping[type[Event], Handler]] = {
    registration.PreRegistered: tell_pre_registered,
    registration.Amended: tell_amended,
    registration.ContactChanged: refresh_contact,
    registration.Erased: forget,
    registration.Withdrawn: tell_withdrawn,
    confirmation.Confirmed: tell_confirmed,
    confirmation.Returned: tell_returned,
    confirmation.Approved: tell_approved,
    confirmation.Rejected: tell_rejected,
    confirmation.Lapsed: tell_lapsed,
    confirmation.WindowMoved: tell_desk_window_moved,
    confirmation.DeskWindowSet: keep_desk_hours,
    payment.Due: tell_due,
    payment.ClosingSoon: tell_closing_soon,
    payment.Paid: tell_paid,
    payment.Expired: tell_expired,
    payment.Reinstated: tell_reinstated,
    payment.Refunded: tell_refunded,
    payment.WindowMoved: tell_payment_window_moved,
}
