"""The desks' windows as the office set them."""

from __future__ import annotations

from contracts import confirmation
from services.chassis.db import UnitOfWork
from services.registration.domain.desks import Hours

_DESK_HOURS = "select site_id, opens_at, closes_at from desk_windows where cycle_id = $1"
_SET_DESK_HOURS = """
insert into desk_windows as w (cycle_id, site_id, opens_at, closes_at, reason_code, sequence)
values ($1, $2, $3, $4, $5, $6)
on conflict (cycle_id, site_id) do update
set opens_at = excluded.opens_at, closes_at = excluded.closes_at, reason_code = excluded.reason_code,
    sequence = excluded.sequence
where w.sequence < excluded.sequence
"""


async def desk_hours(uow: UnitOfWork, cycle_id: str) -> dict[str, Hours]:
    """What the office set; a desk that is not in it keeps what the cycle file says."""
    rows = await uow.sql(_DESK_HOURS, cycle_id)
    return {row.site_id: Hours(row.opens_at, row.closes_at) for row in rows}


async def set_desk_hours(uow: UnitOfWork, event: confirmation.DeskWindowSet, sequence: int) -> None:
    await uow.sql(
        _SET_DESK_HOURS,
        event.cycle_id,
        event.site_id,
        event.opens_at,
        event.closes_at,
        event.reason_code.value,
        sequence,
    )
