"""Decisions that a restore has lost: closes that had not reached everybody, and events whose decision nobody knows any more."""

# ruff: noqa: S608 -- what is put into statements here are this package's own constants
from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from contracts import payment
from services.chassis.db import UnitOfWork
from services.payment.domain.obligation import MAY_MOVE
from services.payment.repository.vocabulary import one_of

# While a decision is carried out it stands among the decisions: what it has not reached yet is left behind by nothing.
_LEFT: Final = f"""
select w.site_id, w.closes_at, w.told_closes_at, count(*) as people
from windows w join obligations o on o.site_id = w.site_id
where o.status in {one_of(MAY_MOVE)} and o.closes_at < w.closes_at and not exists (
    select from decisions d left join verdicts v using (decision_id) left join carried_out c using (decision_id)
    where d.kind = 'extend-payment' and d.closes_at >= w.closes_at and (d.site_id is null or d.site_id = w.site_id)
      and c.done_at is null and v.word is distinct from 'rejected'
)
group by 1, 2, 3 order by 2, 1
"""
_UNRECORDED: Final = f"""
select substr(e.causation_id, 10)::uuid as decision_id, bool_or(d.decision_id is not null) as asked,
       count(*) filter (where e.type = '{payment.WindowMoved.type}') as moved,
       count(*) filter (where e.type = '{payment.Reinstated.type}') as reinstated
from outbox e
left join decisions d on e.causation_id = 'decision:' || d.decision_id
left join verdicts v on v.decision_id = d.decision_id
where e.type in ('{payment.WindowMoved.type}', '{payment.Reinstated.type}') and e.causation_id like 'decision:%'
  and v.decision_id is null
group by 1 order by 1
"""


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """A desk's close that was moved, and how many of its people have an earlier one without anybody being about to move it."""

    site_id: str
    closes_at: datetime
    told_closes_at: datetime
    people: int


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """A decision whose events are in the log, and whose approval is not. `asked`: that it was asked for is known."""

    decision_id: UUID
    asked: bool
    moved: int
    reinstated: int


async def left_behind(uow: UnitOfWork) -> list[LeftBehind]:
    """Desk by desk. Without a restore there is nobody."""
    return [
        LeftBehind(row.site_id, row.closes_at, row.told_closes_at, row.people) for row in await uow.sql(_LEFT)
    ]


async def unrecorded(uow: UnitOfWork) -> list[Unrecorded]:
    """What they did stands: it was said."""
    rows = await uow.sql(_UNRECORDED)
    return [Unrecorded(row.decision_id, row.asked, row.moved, row.reinstated) for row in rows]
