"""Whoever asked to be forgotten: how they are reached, and what was written to them. That they were told, and when, stays."""

# ruff: noqa: S608 -- what is put into statements here are constants of this service
from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from services.chassis.db import UnitOfWork
from services.notification.domain.calling import CallOutcome
from services.notification.domain.life import State, sources_of
from services.notification.repository import calls, recipients
from services.notification.repository.messages import PIN
from services.notification.tables import WAITING, one_of

# No contact is known, and none is wanted.
_FORGET = """
update recipients set phone = null, email = null, tail = null, contact_known = 0, contact_wanted = 0, contact_tries = 0,
    contact_at = null, erased_at = $2
where registration_id = any($1::uuid[]) and erased_at is null
"""
# An answer to what is on its way is of a claim that is over, so it brings nothing back. Nothing is said of these: no desk
# has a contact to put right.
_END: Final = f"""
update messages m set state = '{State.SUPERSEDED}', state_at = $2, due_at = null
where m.registration_id = any($1::uuid[]) and {one_of("m.state", set(WAITING) & sources_of(State.SUPERSEDED))}
"""
_FORGET_TEXTS = """
update messages set subject = null, body = null, ask_since = null, call_at = null
where registration_id = any($1::uuid[])
"""
_FORGET_NUMBERS = """
delete from sms_left l using messages m where m.registration_id = any($1::uuid[]) and l.message_id = m.message_id
"""


async def erase(uow: UnitOfWork, people: Sequence[UUID]) -> None:
    """These are forgotten. Call it while they are held."""
    await recipients.lock(uow, people)
    await uow.sql(PIN)
    await uow.sql(_FORGET, people, uow.at)
    await uow.sql(_END, people, uow.at)
    await uow.sql(_FORGET_NUMBERS, people)
    await uow.sql(_FORGET_TEXTS, people)
    await calls.end_all(uow, people, CallOutcome.ERASED)
