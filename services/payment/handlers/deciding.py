"""Two people of the office move a close or lift a forfeiture: one asks and sees whom it concerns, another approves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from contracts import payment
from contracts.cycle import Cycle
from contracts.reasons import WindowReason
from services.chassis import audit, outbox
from services.chassis.crash import crash_point
from services.chassis.db import Database, UnitOfWork
from services.chassis.tokens import Actor
from services.chassis.vault import Vault
from services.payment.domain.closes import Close, grace
from services.payment.domain.decision import (
    CloseNotAhead,
    Decision,
    DecisionPending,
    Figures,
    Kind,
    NotForfeited,
    NothingMoves,
    Word,
    check_desks,
    check_share,
    close_of_a_revival,
)
from services.payment.handlers.metrics import DECIDED, REINSTATED
from services.payment.repository import decisions, obligations, windows

log = structlog.get_logger(__name__)

_LISTED = 200


class NoSuchDecision(Exception):
    """Nobody asked for it."""


class NoSuchSite(Exception):
    """No desk of this cycle."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asks for. Without a desk it is about all of them."""

    kind: Kind
    reason: str
    reason_code: WindowReason | None = None
    closes_at: datetime | None = None
    site_id: str | None = None
    registration_id: UUID | None = None


async def ask(uow: UnitOfWork, *, actor: Actor, wanted: Wanted, cycle: Cycle, vault: Vault) -> dict[str, Any]:
    """Ask for it: from now on nobody whose close it would put off is forfeited. Raises a rule of domain/decision.py."""
    await windows.hold(uow)
    for other in await decisions.not_done(uow):
        if other.concerns_as(wanted.kind, wanted.site_id, wanted.registration_id) and (
            other.word is not None or uow.at < other.closes_at
        ):
            raise DecisionPending(other.decision_id)
    before = await _scope(uow, wanted, cycle)
    closes_at = wanted.closes_at or close_of_a_revival(uow.at, cycle.zone)
    if closes_at <= max(uow.at, cycle.windows.payment.opens):
        raise CloseNotAhead
    earlier = wanted.kind is Kind.EXTEND_PAYMENT and closes_at < min(
        close.closes_at for close in before.values()
    )
    figures = await decisions.count(
        uow,
        wanted.kind,
        earlier=earlier,
        closes_at=closes_at,
        site_id=wanted.site_id,
        registration_id=wanted.registration_id,
    )
    as_it_is = all(close.closes_at == closes_at for close in before.values())
    # A close that is set and has not reached everybody, as after a restore, is carried out to the rest.
    if wanted.kind is Kind.EXTEND_PAYMENT and as_it_is and not figures.told and not figures.without_site:
        raise NothingMoves
    check_desks(figures)
    if earlier:
        check_share(figures, cycle.windows.payment.earlier_close_may_cost_per_mille)
    code = wanted.reason_code or (WindowReason.CORRECTED if earlier else WindowReason.EXTENDED)
    decision = Decision(
        decision_id=uuid7(),
        kind=wanted.kind,
        site_id=wanted.site_id,
        registration_id=wanted.registration_id,
        closes_at=closes_at,
        told_closes_at=closes_at - grace(cycle.windows.payment),
        earlier=earlier,
        reason_code=code.value,
        asked_by=actor.subject,
        asked_at=uow.at,
        figures=figures,
    )
    await decisions.add(uow, decision, vault.encrypt(wanted.reason, row=str(decision.decision_id)))
    await _note(uow, actor, "decision-asked", decision, figures)
    return facts_of(decision, uow.at, reason=wanted.reason)


async def _scope(uow: UnitOfWork, wanted: Wanted, cycle: Cycle) -> dict[str, Close]:
    """The closes it would move; of a revival none. Raises where there is nothing to move."""
    if wanted.registration_id is not None:
        owed = await obligations.lock_all(uow, [wanted.registration_id])
        if wanted.registration_id not in owed:
            raise NotForfeited("nothing was ever owed")
        if owed[wanted.registration_id].status != "expired":
            raise NotForfeited(owed[wanted.registration_id].status)
        return {}
    in_force = await windows.in_force(uow, cycle)
    if wanted.site_id is not None and wanted.site_id not in in_force.sites:
        raise NoSuchSite
    return in_force.of_scope(wanted.site_id)


async def decide(
    uow: UnitOfWork,
    *,
    actor: Actor,
    decision_id: UUID,
    word: Word,
    note: str | None,
    cycle: Cycle,
    vault: Vault,
    decided: Callable[[], None],
) -> dict[str, Any]:
    """The second person's word. `decided` is called after the commit. Raises a rule of domain/decision.py."""
    await windows.hold(uow)
    decision = await decisions.find(uow, decision_id)
    if decision is None:
        raise NoSuchDecision
    decision.check_verdict(actor.subject, uow.at, word)
    figures = await _count(uow, decision)
    if word is Word.APPROVED:
        if decision.kind is Kind.REVIVE and not figures.reinstated:
            raise NotForfeited("not forfeited any more")
        check_desks(figures)
        if decision.earlier:
            check_share(figures, cycle.windows.payment.earlier_close_may_cost_per_mille)
    sealed = vault.encrypt(note, row=f"{decision_id}:note") if note else None
    await decisions.decide(uow, decision, word, actor.subject, figures, sealed)
    if word is Word.APPROVED and decision.kind is Kind.EXTEND_PAYMENT:
        await _set_closes(uow, decision, cycle)
    await _note(uow, actor, f"decision-{word}", decision, figures)
    uow.after_commit(decided)
    uow.after_commit(DECIDED.labels(decision.kind, word).inc)
    now = await decisions.find(uow, decision_id)
    assert now is not None
    return facts_of(now, uow.at)


async def _set_closes(uow: UnitOfWork, decision: Decision, cycle: Cycle) -> None:
    """Whatever becomes owed from now on closes then; those who owe already follow (carry_out)."""
    in_force = await windows.in_force(uow, cycle)
    for site_id, close in sorted(in_force.of_scope(decision.site_id).items()):
        moves = (
            close.closes_at > decision.closes_at if decision.earlier else close.closes_at < decision.closes_at
        )
        if not moves:
            continue
        version = await windows.set_close(uow, cycle.id, site_id, decision.closes_at, decision.told_closes_at)
        moved = payment.SiteWindowSet(
            cycle_id=cycle.id,
            site_id=site_id,
            closes_at=decision.closes_at,
            told_closes_at=decision.told_closes_at,
            reason_code=WindowReason(decision.reason_code),
        )
        await outbox.add(uow, moved, sequence=version)


async def carry_out(database: Database, at: datetime, *, chunk: int = decisions.CHUNK) -> int:
    """Do what is approved, to everybody, in chunks; a run cut short goes on where it was. Returns how many were done."""
    async with database.reading(at) as uow:
        approved = [one for one in await decisions.not_done(uow) if one.word is Word.APPROVED]
    for decision in approved:
        if decision.earlier and at >= decision.closes_at:
            # An earlier close takes nobody's time who was not told of it before it came: they keep the close that they know.
            log.error("close-passed-before-it-was-done", decision_id=str(decision.decision_id))
        else:
            await _carry_out(database, decision, at, chunk)
        await _finish(database, decision, at)
    return len(approved)


async def _carry_out(database: Database, decision: Decision, at: datetime, chunk: int) -> None:
    counted = decision.decided_on or decision.figures
    after: UUID | None = None
    found = False
    while True:
        async with database.unit_of_work(at) as uow:
            step = await decisions.move_chunk(uow, decision, counted, after, chunk=chunk)
            crash_point("decision-in-chunk")
        REINSTATED.inc(step.reinstated)
        found, after = found or step.last is not None, step.last
        if after is not None:
            continue
        if not found:
            break
        found = False  # once more from the beginning: a row that was being paid when we came by


async def _finish(database: Database, decision: Decision, at: datetime) -> None:
    # Counted before anybody is kept waiting: that reads the whole log.
    async with database.reading(at) as uow:
        total = await decisions.done_so_far(uow, decision.decision_id)
    async with database.unit_of_work(at) as uow:
        await windows.hold(uow)
        await decisions.finish(uow, decision.decision_id, total.moved, total.reinstated)
    log.info(
        "decision-carried-out",
        decision_id=str(decision.decision_id),
        kind=decision.kind,
        moved=total.moved,
        reinstated=total.reinstated,
    )


async def _count(uow: UnitOfWork, decision: Decision) -> Figures:
    return await decisions.count(
        uow,
        decision.kind,
        earlier=decision.earlier,
        closes_at=decision.closes_at,
        site_id=decision.site_id,
        registration_id=decision.registration_id,
    )


async def _note(uow: UnitOfWork, actor: Actor, act: str, decision: Decision, figures: Figures) -> None:
    detail = {
        "kind": decision.kind,
        "site_id": decision.site_id,
        "registration_id": decision.registration_id,
        "closes_at": decision.closes_at,
        **figures.as_facts(),
    }
    await audit.record(uow, actor, act, subject=str(decision.decision_id), detail=detail)


async def read(uow: UnitOfWork, *, decision_id: UUID, vault: Vault) -> dict[str, Any]:
    """One decision; as long as it waits, with whom it would concern if it were approved now."""
    decision = await decisions.find(uow, decision_id)
    if decision is None:
        raise NoSuchDecision
    sealed = await decisions.reason(uow, decision_id)
    facts = facts_of(decision, uow.at, reason=vault.decrypt_text(sealed, row=str(decision_id)))
    if decision.word is None:
        facts["preview"] = (await _count(uow, decision)).as_facts()
    return facts


async def listed(uow: UnitOfWork) -> dict[str, Any]:
    """The newest, without the free text."""
    return {"items": [facts_of(one, uow.at) for one in await decisions.newest(uow, _LISTED)]}


def facts_of(decision: Decision, at: datetime, *, reason: str | None = None) -> dict[str, Any]:
    """As the office reads it. `preview`: whom it concerns, as last counted."""
    facts: dict[str, Any] = {
        "decision_id": str(decision.decision_id),
        "kind": decision.kind.value,
        "state": decision.stage(at).value,
        "site": decision.site_id,
        "registration_id": str(decision.registration_id) if decision.registration_id else None,
        "closes_at": _text(decision.closes_at),
        "told_closes_at": _text(decision.told_closes_at),
        "earlier": decision.earlier,
        "reason_code": decision.reason_code,
        "asked_by": decision.asked_by,
        "asked_at": _text(decision.asked_at),
        "preview": (decision.decided_on or decision.figures).as_facts(),
        "decided_by": decision.decided_by,
        "decided_at": _text(decision.decided_at),
        "done_at": _text(decision.done_at),
        "done": None
        if decision.done_at is None
        else {"moved": decision.done_moved, "reinstated": decision.done_reinstated},
    }
    return facts if reason is None else {**facts, "reason": reason}


def _text(moment: datetime | None) -> str | None:
    """In one spelling, so that a repeated request gets the same answer to the letter."""
    return None if moment is None else moment.astimezone(UTC).isoformat()
