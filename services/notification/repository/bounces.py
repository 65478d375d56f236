"""Bounces: a delivery taken back, said, and followed by a call where one is owed."""

# ruff: noqa: S608 -- what is put into statements here are constants of this service
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias
from uuid import UUID

from services.chassis.db import UnitOfWork
from services.notification.domain.calling import CallOutcome
from services.notification.domain.occasions import Occasion
from services.notification.domain.returned import UNDONE_BY_A_BOUNCE
from services.notification.repository import calls, recipients
from services.notification.repository.messages import PIN
from services.notification.repository.saying import RETURNING, SAID, say_all
from services.notification.tables import one_of

CallAt: TypeAlias = Callable[[Occasion, datetime | None, datetime], datetime | None]

_REFERRED: Final = "select message_id, registration_id from messages where message_id = any($1::uuid[]) and channel = 'email'"
_BOUNCE: Final = f"""
with recorded as (
    update messages m set state = 'undelivered', state_at = $4, due_at = null, ask_since = null,
        carrier_code = t.status, reason_code = t.reason_code
    from unnest($1::uuid[], $2::text[], $3::text[]) as t(message_id, status, reason_code)
    where m.message_id = t.message_id and m.channel = 'email' and m.claims > 0
      and {one_of("m.state", UNDONE_BY_A_BOUNCE)}
    {RETURNING}
){SAID}
"""
# The SMS that tells the same, of those that did not arrive either: nobody is left to be told by but the desk.
_SIBLINGS: Final = """
select s.message_id, s.registration_id, s.occasion, s.deadline_at, s.not_before
from messages e join messages s on s.registration_id = e.registration_id and s.occasion = e.occasion
     and s.instance = e.instance and s.channel = 'sms'
where e.message_id = any($1::uuid[]) and e.state = 'undelivered' and s.call_at is null
  and s.state not in ('delivered', 'superseded')
"""
_CALL: Final = """
update messages m set call_at = t.at from unnest($1::uuid[], $2::timestamptz[]) as t(message_id, at)
where m.message_id = t.message_id
"""
# A mail that was taken takes its reader off the list. It has come back: unless something else of the same arrived since.
_NOT_TOLD: Final = f"""
update calls c set closed_at = null, closed_by = null, outcome = null
from unnest($1::uuid[], $2::text[]) as t(registration_id, occasion)
join recipients r on r.registration_id = t.registration_id and r.erased_at is null
where c.registration_id = t.registration_id and c.occasion = t.occasion and c.outcome = '{CallOutcome.TOLD}'
  and (c.call_by is null or c.call_by > $3)
  and not exists (select from messages d where d.registration_id = c.registration_id and d.occasion = c.occasion
                  and d.state = 'delivered' and d.state_at >= c.created_at)
"""


async def referred(uow: UnitOfWork, ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """Which of these are mails of ours, and whose."""
    await uow.sql(PIN)
    return {row.message_id: row.registration_id for row in await uow.sql(_REFERRED, ids)}


async def take_back(
    uow: UnitOfWork, people: Mapping[UUID, UUID], why: Mapping[UUID, tuple[str, str]], call_at: CallAt
) -> int:
    """These came back: (status, reason) of each. Returns how many had not ended otherwise; a second bounce is none.

    Whoever is to be called for not having got the SMS either is looked at again at the moment that `call_at` says.
    """
    await recipients.lock(uow, sorted(set(people.values())))
    ids = sorted(people)
    rows = await uow.sql(_BOUNCE, ids, [why[i][0] for i in ids], [why[i][1] for i in ids], uow.at)
    await say_all(uow, rows)
    silent = await uow.sql(_SIBLINGS, ids)
    due = [
        (row, max(at, uow.at))
        for row in silent
        if (at := call_at(Occasion(row.occasion), row.deadline_at, row.not_before)) is not None
    ]
    if due:
        await uow.sql(_CALL, [row.message_id for row, _ in due], [at for _, at in due])
    of = [row.registration_id for row in rows]
    await uow.sql(_NOT_TOLD, of, [row.occasion for row in rows], uow.at)
    # A mail may come back after days: what it told may be true no more.
    await calls.settle(uow, of)
    return len(rows)
