"""After a restore: a close that two people had set and that had not reached everybody is asked for again.

The topic gives the desks their close back. Who had asked and who had approved stood in the lost database alone, so what is left
to do waits for one person of the office, and nobody whom it puts off is forfeited meanwhile.
"""

from __future__ import annotations

from typing import Final

import structlog
from uuid_utils.compat import uuid7

from contracts.cycle import Cycle
from contracts.reasons import WindowReason
from services.chassis import audit
from services.chassis.db import UnitOfWork
from services.chassis.tokens import Actor
from services.chassis.vault import Vault
from services.payment.domain.decision import Decision, Kind
from services.payment.repository import decisions, windows
from services.payment.repository.left_behind import left_behind

log = structlog.get_logger(__name__)

ACTOR: Final = Actor("payment-recovery", frozenset({"service"}))
REASON: Final = (
    "恢复备份后由系统重新提出：这一截止时间此前已由两人批准并公布，备份中没有原申请，"
    "还有考生没有改到。批准后只改这些考生。"
)


async def ask_again(uow: UnitOfWork, cycle: Cycle, vault: Vault) -> int:
    """For every desk, or for all at once where all close then; how many decisions now wait for the office."""
    await windows.hold(uow)
    in_force = await windows.in_force(uow, cycle)
    asked: set[tuple[str | None, object]] = set()
    for one in await left_behind(uow):
        if one.closes_at <= uow.at:
            log.warning("close-passed-before-it-was-done", site_id=one.site_id, people=one.people)
            continue
        everywhere = all(close.closes_at == one.closes_at for close in in_force.in_force())
        site_id = None if everywhere else one.site_id
        if (site_id, one.closes_at) in asked:
            continue
        asked.add((site_id, one.closes_at))
        figures = await decisions.count(
            uow,
            Kind.EXTEND_PAYMENT,
            earlier=False,
            closes_at=one.closes_at,
            site_id=site_id,
            registration_id=None,
        )
        decision = Decision(
            decision_id=uuid7(),
            kind=Kind.EXTEND_PAYMENT,
            site_id=site_id,
            registration_id=None,
            closes_at=one.closes_at,
            told_closes_at=one.told_closes_at,
            earlier=False,
            reason_code=WindowReason.EXTENDED.value,
            asked_by=ACTOR.subject,
            asked_at=uow.at,
            figures=figures,
        )
        await decisions.add(uow, decision, vault.encrypt(REASON, row=str(decision.decision_id)))
        detail = {"site_id": site_id, "closes_at": one.closes_at, **figures.as_facts()}
        await audit.record(uow, ACTOR, "decision-asked", subject=str(decision.decision_id), detail=detail)
        log.warning("decision-asked-again", decision_id=str(decision.decision_id), told=figures.told)
    return len(asked)
