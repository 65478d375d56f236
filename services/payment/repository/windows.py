"""The closes in force by desk, as two people of the office have set them over the cycle file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from contracts.cycle import Cycle
from services.chassis.db import UnitOfWork
from services.payment.domain.closes import Close, Closes

# Whoever moves a close, or asks for it, holds this alone; whoever forfeits or makes something owed shares it. So nobody is
# forfeited by a close that is being decided about, and nothing is owed until a close that has just moved.
_WINDOWS: Final = (0x6B77_7077, 1)

# A later close that is asked for and may still be approved, or is approved and not yet done to everybody. $1 is now.
_DECIDING: Final = """
    d.kind = 'extend-payment' and not d.earlier
    and not exists (select from carried_out c where c.decision_id = d.decision_id)
    and not exists (select from verdicts v where v.decision_id = d.decision_id and v.word = 'rejected')
    and (d.closes_at > $1 or exists (select from verdicts v where v.decision_id = d.decision_id))
"""
# Whose close may be another one soon: nobody of them is forfeited meanwhile. Asked once for a statement, not for each row.
# `is true` and not a bare comparison: with a value unknown when the statement is planned, a comparison is taken for the other
# end of a range and a million rows for some thousand, which are then all sorted for each chunk of the sweep.
PUT_OFF: Final = f"""
    ((o.closes_at < (select max(d.closes_at) from decisions d where d.site_id is null and {_DECIDING})) is true
     or (o.site_id = any(array(select d.site_id from decisions d where d.site_id is not null and {_DECIDING}))) is true)
"""  # noqa: S608 -- constants of this module


@dataclass(frozen=True, slots=True)
class PutOff:
    """A decision under way, as the close sees it."""

    site_id: str | None
    closes_at: datetime


async def put_off(uow: UnitOfWork) -> list[PutOff]:
    """The later closes that are being decided about or carried out."""
    rows = await uow.sql(
        f"select d.site_id, d.closes_at from decisions d where {_DECIDING}",  # noqa: S608 -- a constant of this module
        uow.at,
    )
    return [PutOff(row.site_id, row.closes_at) for row in rows]


async def share(uow: UnitOfWork) -> None:
    """Until this transaction ends no close moves and none is asked to."""
    await uow.sql("select pg_advisory_xact_lock_shared($1, $2)", *_WINDOWS)


async def hold(uow: UnitOfWork) -> None:
    """Until this transaction ends nobody is forfeited and nothing new is owed."""
    await uow.sql("select pg_advisory_xact_lock($1, $2)", *_WINDOWS)


async def in_force(uow: UnitOfWork, cycle: Cycle) -> Closes:
    """Every desk's close as it stands now."""
    rows = await uow.sql("select site_id, closes_at, told_closes_at, set_at from windows")
    moved = {row.site_id: Close(row.closes_at, row.told_closes_at, row.set_at) for row in rows}
    return Closes.of(cycle.windows.payment, (site.id for site in cycle.sites), moved)


async def close_of(uow: UnitOfWork, cycle: Cycle, registration_id: UUID) -> datetime:
    """When payment closes at the desk of a registration; of one that is not known here, what holds at every desk."""
    rows = await uow.sql("select site_id from obligations where registration_id = $1", registration_id)
    return (await in_force(uow, cycle)).at_site(rows[0].site_id if rows else None).closes_at


async def set_close(
    uow: UnitOfWork, cycle_id: str, site_id: str, closes_at: datetime, told_closes_at: datetime
) -> int:
    """Put this close over the cycle file's; its version."""
    rows = await uow.sql(
        """
        insert into windows as w (site_id, cycle_id, closes_at, told_closes_at, version, set_at)
        values ($1, $2, $3, $4, 1, $5)
        on conflict (site_id) do update
        set closes_at = excluded.closes_at, told_closes_at = excluded.told_closes_at, version = w.version + 1,
            set_at = excluded.set_at
        returning version
        """,
        site_id,
        cycle_id,
        closes_at,
        told_closes_at,
        uow.at,
    )
    return int(rows[0].version)
