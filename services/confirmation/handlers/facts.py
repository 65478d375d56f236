"""How what happened is said: to other services as events, to whoever asked as an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from contracts import confirmation
from contracts.cycle import Cycle
from contracts.envelope import Envelope
from contracts.event import Event
from contracts.reasons import ReasonCode
from contracts.refusals import Code, Refused
from services.chassis import audit, outbox
from services.chassis.db import UnitOfWork
from services.chassis.tokens import Actor
from services.confirmation.domain import Case, PaymentClose

Answer = dict[str, Any]


async def say(uow: UnitOfWork, facts: Sequence[tuple[Case, Sequence[Event], Envelope | None]]) -> None:
    """Each case's facts took its last versions, in their order."""
    await outbox.add_all(
        uow,
        [
            (event, case.version - len(said) + place, cause)
            for case, said, cause in facts
            for place, event in enumerate(said, start=1)
        ],
    )


def approved(case: Case, close: PaymentClose | None = None) -> Event:
    return confirmation.Approved(
        cycle_id=case.cycle_id,
        registration_id=case.registration_id,
        level=case.form.level,
        subjects=case.form.subjects,
        specialty_code=case.form.specialty_code,
        site_id=case.form.site_id,
        told_closes_at=close.told_closes_at if close else None,
    )


def returned(case: Case, level: str, reason_codes: tuple[ReasonCode, ...]) -> Event:
    return confirmation.Returned(
        cycle_id=case.cycle_id,
        registration_id=case.registration_id,
        level=level,
        reason_codes=reason_codes,
        fix_until=case.fix_until,
    )


def facts_of(case: Case) -> Answer:
    return {
        "registration_id": str(case.registration_id),
        "state": case.state.value,
        "sequence": case.version,
    }


def listed(case: Case, cycle: Cycle) -> Answer:
    return {
        **facts_of(case),
        "site_id": case.form.site_id,
        "form_version": case.form.form_version,
        "fix_until": None if case.fix_until is None else case.fix_until.isoformat(),
        "levels": [
            {"level": level.id, "name": level.name, "passed": place < case.passed}
            for place, level in enumerate(cycle.review_levels)
        ],
    }


def page(items: list[Answer], limit: int) -> Answer:
    return {"items": items, "next": items[-1]["registration_id"] if len(items) == limit else None}


def refusal(registration_id: UUID, no: Refused) -> Answer:
    return {
        "registration_id": str(registration_id),
        "ok": False,
        "code": no.code.value,
        "detail": no.message,
        "fields": [{"field": field.field, "reason": field.reason} for field in no.fields],
    }


def no_case() -> Refused:
    return Refused(Code.NOT_FOUND, "没有找到这份报名，请核对编号。")


def require_own(actor: Actor, site_id: str, case: Case) -> None:
    """A desk sees only its own candidates."""
    if case.form.site_id != site_id:
        audit.refused_access(
            "POST", "/desks/{site_id}/cases/{registration_id}", "other-site", actor.kind, actor.subject
        )
        raise Refused(Code.OTHER_SITE, "该考生不属于本报名点，请考生到所选报名点办理。")
