"""Reminders, in sets: whom each one concerns, and what has been sent, so that nobody is told twice."""

# ruff: noqa: S608 -- what is put into statements here are this package's own constants
from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from contracts import payment
from services.chassis import outbox
from services.chassis.db import UnitOfWork
from services.payment.repository.vocabulary import ORDER_UNDER_WAY

CHUNK: Final = 5000

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
_REMIND: Final = f"""
    with concerned as materialized (
        select o.ctid from obligations o where {_CONCERNED}
        order by o.registration_id limit {CHUNK} for update of o
    ), told as (
        update obligations o set version = o.version + 1
        where o.ctid = any(array(select ctid from concerned)) and o.status = 'awaiting'
        returning o.registration_id, o.cycle_id, o.version, o.amount_fen, o.told_closes_at
    ), noted as (
        insert into reminders (registration_id, told_closes_at, offset_seconds, at)
        select t.registration_id, $2, $3, $1 from told t
    )
    {_SAID}
"""


async def remind_chunk(uow: UnitOfWork, told_closes_at: datetime, offset: timedelta) -> int:
    """Say `closing-soon` of up to CHUNK of those whom it concerns and who have not been told."""
    told = await uow.changed(_REMIND, uow.at, told_closes_at, int(offset.total_seconds()))
    uow.events_added += told
    return told


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
