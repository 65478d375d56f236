"""What candidates did, as registration accepted it: cases are opened, follow a newer form, end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from contracts import registration
from contracts.cycle import Cycle
from contracts.envelope import Envelope
from contracts.event import Event
from contracts.reasons import ReasonCode
from services.chassis.db import UnitOfWork
from services.confirmation import repository
from services.confirmation.domain import Case, Form, NotExpected, State
from services.confirmation.handlers.facts import returned, say
from services.confirmation.repository import Decided


async def open_cases(
    uow: UnitOfWork,
    events: Sequence[registration.PreRegistered],
    *,
    cycle: Cycle,
    wake_lapse: Callable[[], None],
) -> None:
    """A registration was made: its desk waits for it."""
    cases = [
        Case(
            registration_id=event.registration_id,
            cycle_id=_of_this_cycle(event, cycle),
            form=_form(event),
            returning=event.returning,
        )
        for event in events
    ]
    desks = await repository.desks(uow, cycle)
    overdue = any(case.is_overdue(uow.at, desks[case.form.site_id]) for case in cases)
    if await repository.open_cases(uow, cases) != len(cases):
        raise NotExpected("a registration was opened before")
    if overdue:
        uow.after_commit(wake_lapse)


async def amend_cases(
    uow: UnitOfWork,
    events: Sequence[registration.Amended],
    *,
    cycle: Cycle,
    wake_lapse: Callable[[], None],
) -> None:
    """Old forms are void, and so is a confirmation of one."""
    read = await _known_cases(uow, events)
    desks = await repository.desks(uow, cycle)
    level = cycle.review_levels[0].id
    now = dict(read)
    done: list[Decided] = []
    facts: list[tuple[Case, list[Event], Envelope | None]] = []
    for event in events:
        before = now[event.registration_id]
        case = before.amended(_form(event))
        now[case.registration_id] = case
        if case.version > before.version:
            reasons = (ReasonCode.FORM_OUTDATED,)
            done.append(Decided(case=case, kind=State.RETURNED, level=level, reason_codes=reasons))
            facts.append((case, [returned(case, level, reasons)], event.envelope))
    await repository.save_many(uow, [(before, now[key]) for key, before in read.items()])
    await repository.add_decisions(uow, done, "candidate", "amended")
    await say(uow, facts)
    if any(case.is_overdue(uow.at, desks[case.form.site_id]) for case in now.values()):
        uow.after_commit(wake_lapse)


async def withdraw_cases(uow: UnitOfWork, events: Sequence[registration.Withdrawn]) -> None:
    """The candidate is not coming."""
    read = await _known_cases(uow, events)
    now = dict(read)
    for event in events:
        now[event.registration_id] = now[event.registration_id].withdrawn()
    await repository.save_many(uow, [(before, now[key]) for key, before in read.items()])


async def _known_cases(
    uow: UnitOfWork, events: Sequence[registration.Amended] | Sequence[registration.Withdrawn]
) -> dict[UUID, Case]:
    found = await repository.lock_many(uow, (event.registration_id for event in events))
    if any(event.registration_id not in found for event in events):
        raise NotExpected("a registration that was never opened here")
    return found


def _of_this_cycle(event: Event, cycle: Cycle) -> str:
    if event.cycle_id != cycle.id:
        raise NotExpected(f"an event of cycle {event.cycle_id}, this is {cycle.id}")
    return event.cycle_id


def _form(event: registration.PreRegistered | registration.Amended) -> Form:
    return Form(event.site_id, event.specialty_code, event.level, event.subjects, event.form_version)
