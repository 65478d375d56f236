"""What desks, reviewers, the office and the candidate may see."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from contracts.cycle import Cycle
from contracts.reasons import ReasonCode
from services.chassis import audit
from services.chassis.db import UnitOfWork
from services.chassis.tokens import Actor
from services.chassis.vault import Vault
from services.confirmation import repository
from services.confirmation.domain import State
from services.confirmation.handlers.facts import Answer, listed, no_case, page, require_own


async def cases_of_desk(
    uow: UnitOfWork, *, site_id: str, state: State | None, after: UUID | None, limit: int, cycle: Cycle
) -> Answer:
    """A desk's own candidates."""
    cases = await repository.page(uow, after=after, limit=limit, site_id=site_id, state=state)
    return page([listed(case, cycle) for case in cases], limit)


async def all_cases(uow: UnitOfWork, *, after: UUID | None, limit: int, cycle: Cycle) -> Answer:
    """Every case, for the office."""
    cases = await repository.page(uow, after=after, limit=limit)
    return page([listed(case, cycle) for case in cases], limit)


async def undecided(uow: UnitOfWork, *, after: UUID | None, limit: int, cycle: Cycle) -> Answer:
    """Confirmed, but not decided at every level. Once payment has closed they can no longer be approved."""
    cases = await repository.page(uow, after=after, limit=limit, state=State.CONFIRMED)
    items = [{**listed(case, cycle), "awaits": cycle.review_levels[case.passed].id} for case in cases]
    return {
        **page(items, limit),
        "count": await repository.count_in(uow, State.CONFIRMED),
        "payment_closed": await _payment_is_over(uow, cycle),
    }


async def _payment_is_over(uow: UnitOfWork, cycle: Cycle) -> bool:
    """At every desk: the office may have moved the close of some."""
    moved = await repository.payment_closes(uow)
    announced = cycle.windows.payment.closes
    return all(
        uow.at >= (moved[site.id].closes_at if site.id in moved else announced) for site in cycle.sites
    )


async def read_case(
    uow: UnitOfWork,
    *,
    actor: Actor,
    registration_id: UUID,
    cycle: Cycle,
    vault: Vault,
    site_id: str | None = None,
) -> Answer:
    """One case with everything that was decided about it, in words. A look by staff is in the audit trail."""
    case = await repository.find(uow, registration_id)
    if case is None:
        raise no_case()
    if site_id is not None:
        require_own(actor, site_id, case)
    desk = (await repository.desks(uow, cycle))[case.form.site_id]
    rows = await repository.decisions_of(uow, registration_id)
    if actor.kind != "candidate":
        await audit.record(uow, actor, "read-case", subject=str(registration_id))
    return {
        **listed(case, cycle),
        "specialty_code": case.form.specialty_code,
        "level": case.form.level,
        "subjects": list(case.form.subjects),
        "returning": case.returning,
        "desk": {
            "site_id": desk.site_id,
            "name": cycle.site(desk.site_id).name,
            "undated": desk.window is None,
            "opens_at": desk.window.opens.isoformat() if desk.window else None,
            "closes_at": desk.closes_at.isoformat(),
        },
        "confirm_until": case.deadline(desk).isoformat(),
        "decisions": [_decision(row, vault) for row in rows],
    }


def _decision(row: Any, vault: Vault) -> Answer:
    codes = [ReasonCode(code) for code in row.reason_codes]
    return {
        "kind": row.kind,
        "level": row.level,
        "by": row.actor_kind,
        "at": row.at.isoformat(),
        "form_version": row.form_version,
        "reason_codes": [code.value for code in codes],
        "reasons": [code.text for code in codes],
        "note": None if row.note is None else vault.decrypt_text(bytes(row.note), row=str(row.decision_id)),
        "fix_until": None if row.fix_until is None else row.fix_until.isoformat(),
    }
