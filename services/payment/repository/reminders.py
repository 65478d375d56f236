"""Reminders, in sets: whom each one concerns, and what has been sent, so that nobody is told twice."""

# ruff: noqa: S608 -- what is put into statements here are this package's own constants
from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Final
from uuid import UUID

from contracts import payment
from services.chassis import outbox
from services.chassis.db import UnitOfWork
from services.payment.repository.vocabulary import ORDER_UNDER_WAY

CHUNK: Final = 5000
FROM_THE_BEGINNING: Final = UUID(int=0)

# $1 the moment, $2 the close as people are told it, $3 the offset in seconds. Nobody who is paying is reminded.
_CONCERNED: Final = f"""
    o.status = 'awaiting' and o.told_closes_at = $2 and o.closes_at > $1
    and not exists (select from orders r where r.registration_id = o.registration_id and r.status in {ORDER_UNDER_WAY})
    and not exists (select from reminders m where m.registration_id = o.registration_id
                    and m.told_closes_at = $2 and m.offset_seconds = $3)
"""
_SAID: Final = outbox.insert_select(
    payment.ClosingSoon,
    {
        "cycle_id": "e.cycle_id",
        "registration_id": "e.registration_id",
        "amount_fen": "e.amount_fen",
        "closes_at": outbox.moment_sql("e.told_closes_at"),
        "offset": "$3::int",
    },
    source="told e",
    key="e.registration_id::text",
    sequence="e.version",
    occurred_at="$1",
)


@cache
def _remind(chunk: int) -> str:
    # $4: who was told before stands before it and is not looked at again. Otherwise each chunk would read all of them first.
    return f"""
    with concerned as materialized (
        select o.ctid, o.registration_id from obligations o where o.registration_id > $4 and {_CONCERNED}
        order by o.registration_id limit {chunk:d} for update of o
    ), told as (
        update obligations o set version = o.version + 1
        where o.ctid = any(array(select ctid from concerned)) and o.status = 'awaiting'
        returning o.registration_id, o.cycle_id, o.version, o.amount_fen, o.told_closes_at
    ), noted as (
        insert into reminders (registration_id, told_closes_at, offset_seconds, at)
        select t.registration_id, $2, $3, $1 from told t
    ), said as (
        {_SAID}
    )
    select (select count(*) from told) as told,
           (select c.registration_id from concerned c order by c.registration_id desc limit 1) as last
    """


@dataclass(frozen=True, slots=True)
class Reminded:
    """How many were told, and the last of them: behind them the next chunk begins."""

    told: int
    last: UUID | None


async def remind_chunk(
    uow: UnitOfWork,
    told_closes_at: datetime,
    offset: timedelta,
    after: UUID = FROM_THE_BEGINNING,
    chunk: int = CHUNK,
) -> Reminded:
    """Say `closing-soon` of up to `chunk` of those behind `after` whom it concerns and who have not been told."""
    rows = await uow.sql(_remind(chunk), uow.at, told_closes_at, int(offset.total_seconds()), after)
    reminded = Reminded(int(rows[0].told), rows[0].last)
    uow.events_added += reminded.told
    return reminded


async def done(uow: UnitOfWork, cycle_id: str, told_closes_at: datetime) -> list[timedelta]:
    """The offsets that are done with."""
    rows = await uow.sql(
        "select offset_seconds from reminder_runs where cycle_id = $1 and told_closes_at = $2",
        cycle_id,
        told_closes_at,
    )
    return [timedelta(seconds=row.offset_seconds) for row in rows]


async def finish(
    uow: UnitOfWork, cycle_id: str, told_closes_at: datetime, offset: timedelta, *, skipped: bool
) -> None:
    """This offset is done with for good."""
    await uow.changed(
        "insert into reminder_runs (cycle_id, told_closes_at, offset_seconds, skipped, at) "
        "values ($1, $2, $3, $4, $5) on conflict do nothing",
        cycle_id,
        told_closes_at,
        int(offset.total_seconds()),
        skipped,
        uow.at,
    )
