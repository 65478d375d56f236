"""How the last-day reminders stand, per close and over the windows of a burn rate: one statement, whatever their number."""

# ruff: noqa: S608 -- what is put into statements here are constants of this service
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.chassis.db import UnitOfWork
from services.notification.domain.life import Standing, State
from services.notification.domain.occasions import Occasion
from services.notification.domain.promise import (
    CONFIRMED_BEFORE,
    PATIENCE,
    REMINDED_WITHIN,
    WINDOWS,
    Close,
    Count,
)
from services.notification.tables import FAILED, one_of

_BAD_WITHIN: Final = ",\n".join(
    f"count(*) filter (where good_at > $1 - ${5 + place}::interval) as good_{place}, "
    f"count(*) filter (where bad_at > $1 - ${5 + place}::interval and bad_at <= $1) as bad_{place}"
    for place in range(len(WINDOWS))
)
# A reminder that was not sent because it was no longer true promised nothing. When something was confirmed is when we
# recorded it. `bad_at`: since when it counts as lost; of one that waits, once patience has run out.
_STANDING: Final = f"""
with reminded as (
    select m.registration_id, m.deadline_at, m.deadline_at - $3::interval as mark,
           min(m.state_at) filter (where m.state = '{State.DELIVERED}') as told_at,
           min(m.state_at) filter (where m.state = '{State.DELIVERED}' and m.channel = 'sms') as rang_at,
           bool_and({one_of("m.state", (*FAILED, State.DELIVERED))}) as ended,
           max(m.state_at) as last_at, max(m.not_before) as went_at
    from messages m
    where m.occasion = '{Occasion.CLOSING_SOON}' and m.deadline_at > $2 and m.state <> '{State.SUPERSEDED}'
      and (m.facts ->> 'offset')::int > extract(epoch from $3::interval)
      and (m.facts ->> 'offset')::int <= extract(epoch from $4::interval)
    group by m.registration_id, m.deadline_at
), owed as (
    select t.*, coalesce(r.pay_by <> t.deadline_at, false) as moved,
           coalesce(told_at <= mark, false) as confirmed,
           coalesce(told_at > mark, false) as late,
           told_at is null and (ended or $1 > mark) as failed
    from reminded t join recipients r on r.registration_id = t.registration_id
    where r.erased_at is null and r.standing <> '{Standing.CANCELLED}'
), judged as (
    select o.*, case when confirmed and not moved then told_at end as good_at,
           case when moved or confirmed then null
                when ended and not late then least(mark, last_at)
                else least(mark, went_at + ${5 + len(WINDOWS)}::interval) end as bad_at
    from owed o
)
select deadline_at,
       count(*) filter (where moved) as moved,
       count(*) filter (where not moved and confirmed) as confirmed,
       count(*) filter (where not moved and confirmed and rang_at <= mark) as by_sms,
       count(*) filter (where not moved and late) as late,
       count(*) filter (where not moved and failed) as failed,
       count(*) filter (where not moved and told_at is null and not failed) as waiting,
       {_BAD_WITHIN}
from judged group by deadline_at order by deadline_at
"""


@dataclass(frozen=True, slots=True)
class Standings:
    """Every close and, over all of them, what was decided within each window."""

    closes: list[Close]
    within: Mapping[timedelta, Count]


async def standings(uow: UnitOfWork, since: datetime) -> Standings:
    """Of the closes after `since`, as things stand at the transaction's moment."""
    rows = await uow.sql(_STANDING, uow.at, since, CONFIRMED_BEFORE, REMINDED_WITHIN, *WINDOWS, PATIENCE)
    closes = [
        Close(
            row.deadline_at, row.confirmed, row.by_sms, row.late, row.failed, row.waiting, row.moved
        )
        for row in rows
    ]  # fmt: skip
    within = {
        window: Count(
            sum(getattr(row, f"good_{place}") for row in rows),
            sum(getattr(row, f"bad_{place}") for row in rows),
        )
        for place, window in enumerate(WINDOWS)
    }
    return Standings(closes, within)
