"""The desks' list of people to call: kept by time, and worked off by whoever calls. Every look at a number is on record."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge

from contracts.refusals import Code, Refused
from services.chassis import audit
from services.chassis.db import Database, Row, UnitOfWork
from services.chassis.tokens import Actor
from services.chassis.vault import Vault
from services.notification.domain.calling import SAID_BY_PEOPLE, CallOutcome, reason_in_words
from services.notification.domain.masking import masked
from services.notification.handlers.contacts import row_of
from services.notification.repository import calls

log = structlog.get_logger(__name__)

BATCH: Final = 1000
ENTERED: Final = Counter("kaowu_calls_entered", "People put on a desk's list because nothing told them")
OPEN: Final = Gauge("kaowu_calls_open", "People on a desk's list by why", ["reason"])


async def keep_list(database: Database) -> datetime | None:
    """Put those on the list who should have been told by now; the moment of the next look."""
    next_at, counted = await _as_it_stands(database)
    if next_at is not None and next_at <= database.clock.now():
        await _bring_up_to_date(database)
        next_at, counted = await _as_it_stands(database)
    by_reason: dict[str, int] = {}
    for row in counted:
        by_reason[row.reason_code] = by_reason.get(row.reason_code, 0) + row.calls * row.open
    for reason, many in by_reason.items():
        OPEN.labels(reason).set(many)
    return next_at


async def _as_it_stands(database: Database) -> tuple[datetime | None, Sequence[Row]]:
    """When something is to be done, which mostly is not yet, and how many calls there are."""
    async with database.reading() as uow:
        return await calls.next_moment(uow), await calls.counts(uow)


async def _bring_up_to_date(database: Database) -> None:
    while True:
        async with database.unit_of_work() as uow:
            looked_at, entered = await calls.enter(uow, BATCH)
        if not looked_at:
            break
        if entered:
            ENTERED.inc(entered)
            log.info("calls-entered", looked_at=looked_at, calls=entered)
    async with database.unit_of_work() as uow:
        if over := await calls.drop_over(uow):
            log.warning("calls-over", calls=over)


async def open_number(
    uow: UnitOfWork, *, actor: Actor, call_id: UUID, site_id: str | None, vault: Vault
) -> dict[str, Any]:
    """Show the number to whoever is about to call. Who saw whose, and when, is in the audit trail."""
    call = await _open_call(uow, call_id, site_id)
    row = await calls.opened(uow, call_id, actor.subject)
    await audit.record(
        uow,
        actor,
        "open-call",
        subject=str(row.registration_id),
        detail={"call_id": call_id, "site_id": call.site_id, "occasion": call.occasion},
    )
    return {
        "call_id": str(call_id),
        "registration_id": str(row.registration_id),
        "tail": row.tail,
        "phone": _phone(row, vault),
    }


async def close_call(
    uow: UnitOfWork, *, actor: Actor, call_id: UUID, site_id: str | None, outcome: CallOutcome
) -> dict[str, Any]:
    """What came of a call, by whoever made it."""
    assert outcome in SAID_BY_PEOPLE
    call = await _open_call(uow, call_id, site_id)
    if call.opened_at is None:
        raise Refused(Code.NOT_ALLOWED, "请先查看电话号码并联系考生，再登记结果。")
    await calls.note(uow, call_id, outcome, actor.subject)
    await audit.record(
        uow,
        actor,
        "close-call",
        subject=str(call.registration_id),
        detail={"call_id": call_id, "site_id": call.site_id, "outcome": outcome},
    )
    return {
        "call_id": str(call_id),
        "outcome": str(outcome),
        "on_the_list": outcome is CallOutcome.NOT_REACHED,
    }


async def _open_call(uow: UnitOfWork, call_id: UUID, site_id: str | None) -> Row:
    """Held until the end of the transaction. `site_id`: whose desk asks; none: the office."""
    call = await calls.lock(uow, call_id)
    if call is None or (site_id is not None and call.site_id != site_id):
        raise Refused(Code.NOT_FOUND, "名单上没有这一项，请刷新后再试。")
    if call.closed_at is not None:
        raise Refused(Code.NOT_ALLOWED, f"这一项已办结：{CallOutcome(call.outcome).text}。")
    return call


def shown(rows: Sequence[Row], vault: Vault) -> list[dict[str, Any]]:
    """The list as people read it: of the number only its ends."""
    return [
        {
            "call_id": row.call_id,
            "registration_id": row.registration_id,
            "site_id": row.site_id,
            "tail": row.tail,
            "phone": masked(_phone(row, vault)),
            "occasion": row.occasion,
            "text": row.body,
            "reason_code": row.reason_code,
            "reason": reason_in_words(row.reason_code),
            "created_at": row.created_at,
            "call_by": row.call_by,
            "attempts": row.attempts,
            "opened_at": row.opened_at,
            "outcome": row.outcome,
            "closed_at": row.closed_at,
        }
        for row in rows
    ]


def _phone(row: Row, vault: Vault) -> str | None:
    return row.phone and vault.decrypt_text(row.phone, row=row_of(row.registration_id, "phone"))
