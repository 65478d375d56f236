"""What left to which number lately, by set, and what a day has cost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from services.chassis.db import UnitOfWork
from services.notification.domain.limits import DAY, Leaving
from services.notification.repository.messages import PIN

# Two processes that claim messages to one number at the same moment must see each other's. In order, so that they
# never wait for each other in a circle; of numbers that share a lock one waits for nothing.
_LOCK: Final = """
select pg_advisory_xact_lock($2, place) from (
    select distinct hashtext(encode(n, 'hex')) as place from unnest($1::bytea[]) as n order by place
) as places
"""
_SPACE: Final = 0x5355  # keeps these apart from any other advisory lock of the database
_LATELY: Final = """
select s.provider, s.number, s.template, s.text, s.at
from unnest($1::bytea[]) as n join sms_left s on s.number = n and s.at > $2
"""
_LEAVE: Final = """
insert into sms_left (message_id, provider, number, template, text, at)
select t.message_id, t.provider, t.number, t.template, t.text, $6
from unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[], $5::bytea[])
     as t(message_id, provider, number, template, text)
on conflict do nothing
"""
_STAYED: Final = """
delete from sms_left s using unnest($1::uuid[], $2::bytea[], $3::timestamptz[]) as t(message_id, number, at)
where s.number = t.number and s.at = t.at and s.message_id = t.message_id
"""
_SPENT: Final = "select parts from sms_days where day = $1"
_SPEND: Final = """
insert into sms_days (day, parts) values ($1, $2)
on conflict (day) do update set parts = sms_days.parts + excluded.parts
"""
_HOLD: Final = """
update messages m set due_at = t.due_at from unnest($1::uuid[], $2::timestamptz[]) as t(message_id, due_at)
where m.message_id = t.message_id and m.state in ('created', 'sending')
"""
_FORGET: Final = """
delete from sms_left where ctid = any(array(select ctid from sms_left where at < $1 order by at limit $2))
"""
_LONGEST: Final = timedelta(days=2)  # a day of the calendar began less than that ago


async def lately(uow: UnitOfWork, numbers: Sequence[bytes]) -> list[Leaving]:
    """What left to these numbers within the longest window; nobody else adds to it until we have committed."""
    await uow.sql(PIN)
    await uow.sql(_LOCK, numbers, _SPACE)
    rows = await uow.sql(_LATELY, numbers, uow.at - DAY)
    return [Leaving(row.provider, row.number, row.template, row.text, row.at) for row in rows]


async def leave(uow: UnitOfWork, leaving: Sequence[tuple[UUID, Leaving]]) -> None:
    """These leave now."""
    if leaving:
        await uow.sql(
            _LEAVE,
            [message_id for message_id, _ in leaving],
            [one.provider for _, one in leaving],
            [one.number for _, one in leaving],
            [one.template for _, one in leaving],
            [one.text for _, one in leaving],
            uow.at,
        )


async def stayed(uow: UnitOfWork, left: Sequence[tuple[UUID, bytes, datetime]]) -> None:
    """These surely were not taken: they count for no limit."""
    if left:
        await uow.sql(_STAYED, [one[0] for one in left], [one[1] for one in left], [one[2] for one in left])


async def spent(uow: UnitOfWork, day: date) -> int:
    """Parts that left on this day."""
    rows = await uow.sql(_SPENT, day)
    return int(rows[0].parts) if rows else 0


async def spend(uow: UnitOfWork, day: date, parts: int) -> None:
    """So many more, or fewer, left."""
    if parts:
        await uow.sql(_SPEND, day, parts)


async def hold(uow: UnitOfWork, until: Sequence[tuple[UUID, datetime]]) -> None:
    """These may not leave now; they come due again."""
    if until:
        await uow.sql(_HOLD, [one[0] for one in until], [one[1] for one in until])


async def forget(uow: UnitOfWork, limit: int) -> int:
    """Drop what no window reaches any more. Returns how many, at most `limit`."""
    await uow.sql(PIN)
    return await uow.changed(_FORGET, uow.at - _LONGEST, limit)
