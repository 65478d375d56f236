"""Cases and what was decided about them; rows to domain values and back, by hand.

Rows are locked in the order of their ids before anything is decided, and written with the version they were read at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from uuid_utils.compat import uuid7

from contracts.cycle import Cycle, Interval, Window
from contracts.reasons import ReasonCode
from services.chassis.db import Row, UnitOfWork
from services.confirmation.domain import Case, Desk, Form, State

CASE = (
    "c.registration_id, c.cycle_id, c.site_id, c.specialty_code, c.level, c.subjects, c.form_version, "
    "c.is_returning, c.state, c.passed, c.fix_until, c.version"
)
_LOCK = f"""
select {CASE}, w.opens_at, w.closes_at
from cases c left join desk_windows w on w.site_id = c.site_id
where c.registration_id = $1 for update of c
"""  # noqa: S608  # column names
_LOCK_MANY = f"""
select {CASE} from cases c where c.registration_id = any($1::uuid[]) order by c.registration_id for update
"""  # noqa: S608  # column names
_OPEN = """
insert into cases (registration_id, cycle_id, site_id, specialty_code, level, subjects, form_version, is_returning,
                   state, passed, fix_until, version, opened_at, changed_at)
select n.registration_id, n.cycle_id, n.site_id, n.specialty_code, n.level, n.subjects::smallint[], n.form_version,
       n.is_returning, $9, 0, null, 0, $10, $10
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::boolean[])
     as n(registration_id, cycle_id, site_id, specialty_code, level, subjects, form_version, is_returning)
on conflict do nothing
"""
DECISION = (
    "decision_id, registration_id, version, kind, level, actor_kind, actor, reason_codes, note, fix_until, "
    "form_version, documents, at"
)
# One statement for one decision: the case moves from the version it was read at, or nothing is written.
_SAVE = f"""
with moved as (
    update cases set state = $3, passed = $4, fix_until = $5, version = $6, changed_at = $7
    where registration_id = $1 and version = $2 returning registration_id
)
insert into decisions ({DECISION})
select $8::uuid, registration_id, $6, $9::text, $10::text, $11::text, $12::text, $13::text[], $14::bytea, $5,
       $15::int, $16::text::jsonb, $7
from moved
"""  # noqa: S608  # column names
_SAVE_MANY = """
update cases c
set site_id = n.site_id, specialty_code = n.specialty_code, level = n.level, subjects = n.subjects::smallint[],
    form_version = n.form_version, state = n.state, passed = n.passed, fix_until = n.fix_until,
    version = n.version, changed_at = $12
from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::text[],
            $9::smallint[], $10::timestamptz[], $11::bigint[])
     as n(registration_id, read_version, site_id, specialty_code, level, subjects, form_version, state,
          passed, fix_until, version)
where c.registration_id = n.registration_id and c.version = n.read_version
"""
_ADD_DECISIONS = f"""
insert into decisions ({DECISION})
select n.decision_id, n.registration_id, n.version, n.kind, n.level, $7, $8, n.reason_codes::text[], n.note,
       n.fix_until, n.form_version, null, $12
from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $9::bytea[],
            $10::timestamptz[], $11::int[])
     as n(decision_id, registration_id, version, kind, level, reason_codes, note, fix_until, form_version)
"""  # noqa: S608  # column names


class Overtaken(Exception):
    """A locked row was not at the version it was read at: somebody writes without locking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """One row of the decisions: what a case became, by whom, why."""

    case: Case  # as it is afterwards
    kind: State
    level: str
    reason_codes: tuple[ReasonCode, ...] = ()
    note: bytes | None = None
    documents: Mapping[str, str] | None = None
    decision_id: UUID = field(default_factory=uuid7)


async def lock(uow: UnitOfWork, registration_id: UUID, cycle: Cycle) -> tuple[Case, Desk] | None:
    """The case and its desk as it stands now; others wait until this transaction ends."""
    rows = await uow.sql(_LOCK, registration_id)
    if not rows:
        return None
    row = rows[0]
    return case_of(row), Desk.of(cycle, row.site_id, window_of(row))


async def save(uow: UnitOfWork, before: Case, decided: Decided, actor_kind: str, actor: str) -> None:
    """Write the case and the decision that moved it."""
    case = decided.case
    written = await uow.changed(
        _SAVE,
        case.registration_id,
        before.version,
        case.state.value,
        case.passed,
        case.fix_until,
        case.version,
        uow.at,
        decided.decision_id,
        decided.kind.value,
        decided.level,
        actor_kind,
        actor,
        [code.value for code in decided.reason_codes],
        decided.note,
        case.form.form_version,
        None if decided.documents is None else json.dumps(dict(decided.documents)),
    )
    if written != 1:
        raise Overtaken


async def open_cases(uow: UnitOfWork, cases: Sequence[Case]) -> int:
    """Add these cases; how many were new."""
    return await uow.changed(
        _OPEN,
        [c.registration_id for c in cases],
        [c.cycle_id for c in cases],
        *_forms(cases),
        [c.returning for c in cases],
        State.PRE_REGISTERED.value,
        uow.at,
    )


async def lock_many(uow: UnitOfWork, registration_ids: Iterable[UUID]) -> dict[UUID, Case]:
    """The cases there are, locked in the order of their ids so that two such calls cannot deadlock."""
    rows = await uow.sql(_LOCK_MANY, sorted(set(registration_ids)))
    return {row.registration_id: case_of(row) for row in rows}


async def save_many(uow: UnitOfWork, moved: Sequence[tuple[Case, Case]]) -> None:
    """Write each (as it was read, as it is now)."""
    if not moved:
        return
    after = [case for _, case in moved]
    written = await uow.changed(
        _SAVE_MANY,
        [c.registration_id for c in after],
        [before.version for before, _ in moved],
        *_forms(after),
        [c.state.value for c in after],
        [c.passed for c in after],
        [c.fix_until for c in after],
        [c.version for c in after],
        uow.at,
    )
    if written != len(moved):
        raise Overtaken


async def add_decisions(uow: UnitOfWork, decided: Sequence[Decided], actor_kind: str, actor: str) -> None:
    """Keep many decisions of one actor."""
    if not decided:
        return
    await uow.sql(
        _ADD_DECISIONS,
        [d.decision_id for d in decided],
        [d.case.registration_id for d in decided],
        [d.case.version for d in decided],
        [d.kind.value for d in decided],
        [d.level for d in decided],
        ["{" + ",".join(d.reason_codes) + "}" for d in decided],
        actor_kind,
        actor,
        [d.note for d in decided],
        [d.case.fix_until for d in decided],
        [d.case.form.form_version for d in decided],
        uow.at,
    )


def _forms(cases: Sequence[Case]) -> tuple[list[object], ...]:
    return (
        [c.form.site_id for c in cases],
        [c.form.specialty_code for c in cases],
        [c.form.level for c in cases],
        ["{" + ",".join(map(str, c.form.subjects)) + "}" for c in cases],
        [c.form.form_version for c in cases],
    )


def case_of(row: Row) -> Case:
    return Case(
        registration_id=UUID(int=row.registration_id.int),
        cycle_id=row.cycle_id,
        form=Form(row.site_id, row.specialty_code, row.level, tuple(row.subjects), row.form_version),
        returning=row.is_returning,
        state=State(row.state),
        passed=row.passed,
        fix_until=row.fix_until,
        version=row.version,
    )


def window_of(row: Row) -> Window | None:
    if row.opens_at is None:
        return None
    return Window(intervals=(Interval(opens=row.opens_at, closes=row.closes_at),))
