"""What is read and not decided upon: single cases, their decisions, pages of cases."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from services.chassis.db import Row, UnitOfWork
from services.confirmation.domain import Case, State
from services.confirmation.repository.cases import CASE, case_of


async def find(uow: UnitOfWork, registration_id: UUID) -> Case | None:
    """One case, unlocked."""
    rows = await uow.sql(f"select {CASE} from cases c where c.registration_id = $1", registration_id)  # noqa: S608
    return case_of(rows[0]) if rows else None


async def decisions_of(uow: UnitOfWork, registration_id: UUID) -> Sequence[Row]:
    """Everything that was decided about a case, in order."""
    return await uow.sql(
        "select decision_id, version, kind, level, actor_kind, reason_codes, note, fix_until, form_version, "
        "documents::text as documents, at from decisions where registration_id = $1 order by version",
        registration_id,
    )


async def page(
    uow: UnitOfWork,
    *,
    after: UUID | None,
    limit: int,
    site_id: str | None = None,
    state: State | None = None,
) -> list[Case]:
    """Cases in the order of their ids, from behind `after`; of one desk, or in one state, if asked."""
    # Only the conditions that are asked for: a plan for "or $1 is null" walks all cases to fill one desk's page.
    wanted: dict[str, object] = {"c.registration_id >": after, "c.site_id =": site_id, "c.state =": state}
    asked = {condition: value for condition, value in wanted.items() if value is not None}
    where = " and ".join(f"{condition} ${place}" for place, condition in enumerate(asked, start=2)) or "true"
    rows = await uow.sql(
        f"select {CASE} from cases c where {where} order by c.registration_id limit $1",  # noqa: S608  # columns
        limit,
        *asked.values(),
    )
    return [case_of(row) for row in rows]


async def count_in(uow: UnitOfWork, state: State) -> int:
    """How many cases are in this state."""
    count: int = (await uow.sql("select count(*) as n from cases where state = $1", state.value))[0].n
    return count
