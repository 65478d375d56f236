"""Messages of which carriers say nothing by themselves: asked about by our own reference, and run out in the end."""

# ruff: noqa: S608 -- what is put into statements here are constants of this service
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from contracts.reasons import Carrier
from services.chassis.db import UnitOfWork
from services.notification.domain.life import (
    ASK_AFTER,
    KNOWN_BY_THEN,
    NO_RECEIPT,
    RAN_OUT,
    RUNS_OUT_AFTER,
    State,
    sources_of,
)
from services.notification.repository import recipients
from services.notification.repository.messages import PIN
from services.notification.repository.saying import RETURNING, SAID, say_all
from services.notification.tables import WAITING, one_of

_WAITING: Final = one_of("m.state", WAITING)
# Of an SMS: a carrier may have got it a moment ago and not list it yet. What would come too late goes now, as at night.
_WAITS: Final = f"""
m.channel = 'sms' and {_WAITING} and not coalesce(m.deadline_at > $2 and m.deadline_at <= $3, false)
"""
# Every number of times somebody may have been asked about, so that the index on it is walked, also at the end.
_ASKED_SO_OFTEN: Final = list(range(len(ASK_AFTER) + 1))
# Nobody can have got it before it was made.
_LEFT_MAYBE: Final = f"""
update messages m set ask_since = greatest(least(coalesce(m.ask_since, $1), $1), {{first}}),
    -- Who got it since then is not known: of what waits all are asked. Until one that lists everything has denied it, what
    -- goes out may be a second copy.
    ambiguous = m.ambiguous
        + case when m.channel = 'sms' and m.state = 'created' and m.ask_since is null then 1 else 0 end,
    not_before = case when {_WAITS} then greatest(m.not_before, $3) else m.not_before end,
    due_at = case when {_WAITS} and m.due_at is not null then greatest(m.due_at, $3) else m.due_at end,
    provider = case when m.state = 'accepted' then m.provider end
"""
_ASK_FIRST: Final = f"""
{_LEFT_MAYBE.format(first="m.created_at")}
where {_WAITING} or (m.state = 'accepted' and m.channel = 'sms')
"""
# Made again only now: it may have left at any moment since the backup.
_ASK_FIRST_OF_THESE: Final = f"""
{_LEFT_MAYBE.format(first="$1")}
where m.message_id = any($4::uuid[]) and m.state = 'created' and m.ask_since is null
"""
_RESTORED: Final = """
insert into restores (since, restore_id, at) values ($1, $2, $3)
on conflict (since) do update set restore_id = excluded.restore_id, at = excluded.at
"""
_RESTORED_AFTER: Final = """
select min(since) as since, max(at) as at, (array_agg(restore_id order by restore_id desc))[1] as last
from restores where restore_id > $1
"""
_ACCEPTED_TO_ASK = """
select m.message_id, m.registration_id, m.ask_since as since, r.phone as address, m.provider
from messages m join recipients r on r.registration_id = m.registration_id
where m.channel = $1 and m.state = 'accepted' and m.ask_since is not null and r.phone is not null
order by m.state_at limit $2
"""
_ASK_THE_SILENT = """
update messages m set ask_since = coalesce(m.ask_since, m.created_at), asks = m.asks + 1
where m.message_id = any(array(
    select s.message_id from unnest($1::int[], $2::timestamptz[]) as t(asks, until)
    cross join lateral (
        select a.message_id from messages a
        where a.asks = t.asks and a.state = 'accepted' and a.channel = 'sms' and a.state_at <= t.until
        order by a.state_at limit $3 for update of a skip locked
    ) s limit $3
))
"""
_RUN_OUT = """
select m.message_id, m.registration_id from messages m
where m.asks = $1 and m.state = 'accepted' and m.channel = 'sms' and m.state_at <= $2
  and (m.ask_since is null or m.state_at <= $3)
order by m.state_at limit $4
"""
_NEXT = """
select min(moment) as moment from unnest($1::int[], $2::interval[]) as t(asks, after)
cross join lateral (
    select a.state_at + t.after as moment from messages a
    where a.asks = t.asks and a.state = 'accepted' and a.channel = 'sms' order by a.state_at limit 1
) a
"""
_EXPIRE = f"""
with recorded as (
    update messages m set state = 'expired', state_at = $3, due_at = null, reason_code = $2,
        call_at = case when $2 = 'no-receipt' then m.call_at end
    where m.message_id = any($1::uuid[]) and {one_of("m.state", sources_of(State.EXPIRED))}
      and (m.state = 'accepted') = ($2 = 'no-receipt')
    {RETURNING}
){SAID}
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """A message that a carrier has, and to which number it went."""

    message_id: UUID
    registration_id: UUID
    since: datetime
    address: bytes
    provider: str | None


async def ask_first(uow: UnitOfWork, since: datetime) -> int:
    """Restored from a backup of then: what has not ended may have left between then and now. Returns how many.

    SMS wait until whoever took one just before the loss has something to say of it. The restore is kept: see `ask_first_of`.
    """
    await uow.changed(_RESTORED, since, uuid7(), uow.at)
    return await uow.changed(_ASK_FIRST, since, uow.at, uow.at + KNOWN_BY_THEN)


async def ask_first_of(uow: UnitOfWork, made: Iterable[tuple[UUID, UUID]]) -> None:
    """Messages made just now, each with the event that caused it: what was said before a restore may have been told then.

    Such an event lay parked in the backup, was replayed after it, and is replayed again.
    """
    causes = list(made)
    (restored,) = await uow.sql(_RESTORED_AFTER, min(cause for _, cause in causes))
    if restored.since is not None:
        ids = [message_id for message_id, cause in causes if cause < restored.last]
        await uow.changed(_ASK_FIRST_OF_THESE, restored.since, uow.at, restored.at + KNOWN_BY_THEN, ids)


async def accepted_to_ask(uow: UnitOfWork, channel: Carrier, limit: int) -> list[Asked]:
    """Messages that had left before a restore, and of which the carrier may have said more since."""
    rows = await uow.sql(_ACCEPTED_TO_ASK, str(channel), limit)
    return [Asked(row.message_id, row.registration_id, row.since, row.address, row.provider) for row in rows]


async def asked(uow: UnitOfWork, ids: Sequence[UUID]) -> None:
    """What the carrier knew of these is known; their receipts, if any are still to come, come by themselves."""
    if ids:
        await uow.changed(
            "update messages set ask_since = null where message_id = any($1::uuid[]) and state = 'accepted'",
            ids,
        )


async def ask_the_silent(uow: UnitOfWork, limit: int) -> int:
    """Their receipts are late: the carrier is to be asked about them. Returns how many, of at most `limit`."""
    await uow.sql(PIN)
    until = [uow.at - after for after in ASK_AFTER]
    return await uow.changed(_ASK_THE_SILENT, list(range(len(ASK_AFTER))), until, limit)


async def run_out(uow: UnitOfWork, limit: int, answers_within: timedelta) -> dict[UUID, UUID]:
    """Messages, and whose, that were accepted so long ago that no receipt is to be expected any more.

    Each was asked about for the last time before; while that is unanswered it waits so much longer.
    """
    await uow.sql(PIN)
    latest = uow.at - RUNS_OUT_AFTER
    rows = await uow.sql(_RUN_OUT, len(ASK_AFTER), latest, latest - answers_within, limit)
    return {row.message_id: row.registration_id for row in rows}


async def next_silent(uow: UnitOfWork) -> datetime | None:
    """When the next message has been without a receipt for so long that something must be done."""
    await uow.sql(PIN)
    after = [*ASK_AFTER, RUNS_OUT_AFTER]
    rows = await uow.sql(_NEXT, _ASKED_SO_OFTEN, after)
    moment: datetime | None = rows[0].moment
    return moment


async def expire(uow: UnitOfWork, people: dict[UUID, UUID], reason: str = NO_RECEIPT) -> int:
    """These messages, of these people, have run out, and it is said. Those that moved meanwhile stay. Returns how many."""
    if reason not in RAN_OUT:
        raise ValueError(reason)
    if not people:
        return 0
    await uow.sql(PIN)
    await recipients.lock(uow, sorted(set(people.values())))
    rows = await uow.sql(_EXPIRE, list(people), reason, uow.at)
    await say_all(uow, rows)
    return len(rows)
