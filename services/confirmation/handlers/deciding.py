"""People decide: a desk about who stands before it, reviewers about many at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from contracts import confirmation
from contracts.cycle import Cycle
from contracts.envelope import Envelope
from contracts.event import Event
from contracts.reasons import Decision, ReasonCode
from contracts.refusals import Code, Refused
from services.chassis.db import UnitOfWork
from services.chassis.tokens import Actor
from services.chassis.vault import Vault
from services.confirmation import repository
from services.confirmation.domain import (
    AlreadyConfirmed,
    Case,
    Desk,
    DeskCheck,
    PaymentClose,
    State,
    not_confirmed,
    require_reasons,
)
from services.confirmation.handlers.facts import (
    Answer,
    approved,
    facts_of,
    no_case,
    refusal,
    require_own,
    returned,
    say,
)
from services.confirmation.repository import Decided


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a desk or a reviewer decided about one registration."""

    registration_id: UUID
    decision: Decision
    reason_codes: tuple[ReasonCode, ...] = ()
    note: str | None = None
    fix_until: datetime | None = None


async def confirm(
    uow: UnitOfWork, *, actor: Actor, site_id: str, registration_id: UUID, check: DeskCheck, cycle: Cycle
) -> Answer:
    """The desk saw the person, the stamped form and the papers."""
    before, desk = await _own_case(uow, actor, site_id, registration_id, cycle)
    try:
        case = before.confirmed(uow.at, desk, check, cycle)
    except AlreadyConfirmed:
        return facts_of(before)
    decided = Decided(
        case=case,
        kind=State.CONFIRMED,
        level=cycle.review_levels[0].id,
        documents={name: mark.value for name, mark in check.documents.items()},
    )
    await repository.save(uow, before, decided, actor.kind, actor.subject)
    said: list[Event] = [
        confirmation.Confirmed(
            cycle_id=case.cycle_id,
            registration_id=registration_id,
            site_id=case.form.site_id,
            form_version=case.form.form_version,
            desk=desk.site_id,
        )
    ]
    if case.state is State.APPROVED:
        said.append(approved(case))
    await say(uow, [(case, said, None)])
    return facts_of(case)


async def decide_at_desk(
    uow: UnitOfWork,
    *,
    actor: Actor,
    site_id: str,
    verdict: Verdict,
    cycle: Cycle,
    vault: Vault,
    wake_lapse: Callable[[], None],
) -> Answer:
    """The desk returns or rejects: with reasons, and what the candidate must do until when."""
    level = cycle.review_levels[0].id
    before, desk = await _own_case(uow, actor, site_id, verdict.registration_id, cycle)
    case = _judged(uow, before, desk, level, verdict, cycle)
    decided = _decided(case, level, verdict, vault)
    await repository.save(uow, before, decided, actor.kind, actor.subject)
    await say(uow, [(case, _said(case, level, verdict), None)])
    if case.state is State.RETURNED:
        uow.after_commit(wake_lapse)
    return facts_of(case)


async def _own_case(
    uow: UnitOfWork, actor: Actor, site_id: str, registration_id: UUID, cycle: Cycle
) -> tuple[Case, Desk]:
    found = await repository.lock(uow, registration_id, cycle)
    if found is None:
        raise no_case()
    require_own(actor, site_id, found[0])
    return found


async def review(
    uow: UnitOfWork,
    *,
    actor: Actor,
    level: str,
    verdicts: Sequence[Verdict],
    cycle: Cycle,
    vault: Vault,
    wake_lapse: Callable[[], None],
) -> list[Answer]:
    """Decide about many at one level: each on its own, a result for each, a few statements for all."""
    if level not in {known.id for known in cycle.review_levels}:
        raise Refused(Code.NOT_FOUND, "没有这一级审核。")
    read = await repository.lock_many(uow, (verdict.registration_id for verdict in verdicts))
    desks = await repository.desks(uow, cycle)
    payment = await repository.payment_closes(uow)
    now = dict(read)
    done: list[Decided] = []
    facts: list[tuple[Case, list[Event], Envelope | None]] = []
    results: list[Answer] = []
    for verdict in verdicts:
        before = now.get(verdict.registration_id)
        try:
            if before is None:
                raise not_confirmed() if verdict.decision is Decision.APPROVE else no_case()
            site_id = before.form.site_id
            close = payment.get(site_id)
            case = _judged(uow, before, desks[site_id], level, verdict, cycle, close)
        except Refused as no:
            results.append(refusal(verdict.registration_id, no))
            continue
        now[case.registration_id] = case
        done.append(_decided(case, level, verdict, vault))
        facts.append((case, _said(case, level, verdict, close), None))
        results.append({**facts_of(case), "ok": True})
    moved = [(before, now[key]) for key, before in read.items() if now[key] is not before]
    await repository.save_many(uow, moved)
    await repository.add_decisions(uow, done, actor.kind, actor.subject)
    await say(uow, facts)
    if any(decided.kind is State.RETURNED for decided in done):
        uow.after_commit(wake_lapse)
    return results


def _judged(
    uow: UnitOfWork,
    case: Case,
    desk: Desk,
    level: str,
    verdict: Verdict,
    cycle: Cycle,
    close: PaymentClose | None = None,
) -> Case:
    if verdict.decision is Decision.APPROVE:
        return case.approved(uow.at, level, cycle, close.closes_at if close else None)
    if verdict.decision is Decision.RETURN:
        after = case.returned(uow.at, desk, level, verdict.fix_until, cycle)
    else:
        after = case.rejected(uow.at, desk, level, cycle)
    require_reasons(verdict.reason_codes, verdict.note)
    return after


def _decided(case: Case, level: str, verdict: Verdict, vault: Vault) -> Decided:
    kinds = {
        Decision.APPROVE: State.APPROVED,
        Decision.RETURN: State.RETURNED,
        Decision.REJECT: State.REJECTED,
    }
    decided = Decided(case=case, kind=kinds[verdict.decision], level=level, reason_codes=verdict.reason_codes)
    if not verdict.note:
        return decided
    note = vault.encrypt(verdict.note, row=str(decided.decision_id))
    return replace(decided, note=note)


def _said(case: Case, level: str, verdict: Verdict, close: PaymentClose | None = None) -> list[Event]:
    if verdict.decision is Decision.RETURN:
        return [returned(case, level, verdict.reason_codes)]
    if verdict.decision is Decision.REJECT:
        return [
            confirmation.Rejected(
                cycle_id=case.cycle_id,
                registration_id=case.registration_id,
                level=level,
                reason_codes=verdict.reason_codes,
            )
        ]
    reviewed = confirmation.Reviewed(
        cycle_id=case.cycle_id,
        registration_id=case.registration_id,
        level=level,
        decision=Decision.APPROVE,
    )
    return [reviewed, approved(case, close)] if case.state is State.APPROVED else [reviewed]
