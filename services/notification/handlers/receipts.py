"""What the carrier of SMS reports later: a hint that comes twice, late, unasked for, or about nothing of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

import structlog
from prometheus_client import Counter

from services.chassis.crash import crash_point
from services.chassis.db import Database, UnitOfWork
from services.notification.domain.life import State, reason_word
from services.notification.ports import MalformedReceipts, Pushed, Receipt, Sms
from services.notification.repository import messages, providers
from services.notification.repository.messages import Outcome

log = structlog.get_logger(__name__)

RECEIPTS: Final = Counter(
    "kaowu_receipts", "Receipts of the carriers of SMS by what came of them", ["outcome"]
)


async def take_pushed(database: Database, sms: Sms, raw: bytes) -> None:
    """Take a pushed batch in. What cannot be used is counted: pushing it again would not mend it."""
    try:
        pushed = sms.parse_receipts(raw)
    except MalformedReceipts as error:
        RECEIPTS.labels("malformed").inc()
        log.warning("receipts-malformed", provider=sms.name, reason=str(error))
        return
    await take_page(database, sms.name, pushed)


async def take_page(database: Database, provider: str, page: Pushed) -> None:
    """What came together, pushed or pulled: what of it can be read, whatever the rest is."""
    if page.unreadable:
        RECEIPTS.labels("malformed").inc(len(page.unreadable))
        log.warning(
            "receipts-malformed",
            provider=provider,
            reason=page.unreadable[0],
            entries=len(page.unreadable),
            read=len(page.receipts),
        )
    await take_receipts(database, provider, page.receipts)


async def take_early(database: Database, provider: str) -> int:
    """Take in what came before the messages were on record under the carrier's numbers. Returns how many."""
    async with database.unit_of_work() as uow:
        rows = await providers.take_early(uow, provider)
        receipts = [
            Receipt(str(row.message_id), row.provider_ref, row.delivered, row.code, None) for row in rows
        ]
        await _take(uow, receipts)
    return len(receipts)


async def take_receipts(database: Database, provider: str, receipts: Sequence[Receipt]) -> None:
    """Receipts of one carrier, pushed or pulled."""
    if not receipts:
        return
    early: dict[str, tuple[bool, str]] = {}
    async with database.unit_of_work() as uow:
        named = [receipt for receipt in receipts if receipt.reference]
        serials = [receipt for receipt in receipts if not receipt.reference and receipt.provider_ref]
        if serials:
            ours = await providers.ours(uow, [receipt.provider_ref for receipt in serials])
            named += [
                replace(one, reference=str(ours[one.provider_ref]))
                for one in serials
                if one.provider_ref in ours
            ]
            # It may be faster than our own note of the number.
            early = {
                one.provider_ref: (one.delivered, one.code) for one in serials if one.provider_ref not in ours
            }
            await providers.keep_early(uow, provider, early)
        await _take(uow, named)
    crash_point("receipts-taken")
    if early:
        # Each side looks after it has committed: of a note and a receipt at one moment one sees the other.
        await take_early(database, provider)


async def _take(uow: UnitOfWork, receipts: Sequence[Receipt]) -> None:
    outcomes = _outcomes(receipts)
    if not outcomes:
        return
    people = await messages.referred(uow, list(outcomes))
    RECEIPTS.labels("unknown").inc(len(outcomes) - len(people))
    if not people:
        return
    mine = [outcome for reference, outcome in outcomes.items() if reference in people]
    moved = await messages.receive(uow, mine, set(people.values()))
    RECEIPTS.labels("taken").inc(moved)
    RECEIPTS.labels("repeated").inc(len(people) - moved)


def _outcomes(receipts: Sequence[Receipt]) -> dict[UUID, Outcome]:
    """One per message, the last; a reference that is none of ours is unknown."""
    found: dict[UUID, Outcome] = {}
    for receipt in receipts:
        try:
            reference = UUID(receipt.reference)
        except ValueError:
            RECEIPTS.labels("unknown").inc()
            continue
        state = State.DELIVERED if receipt.delivered else State.UNDELIVERED
        reason = None if receipt.delivered else reason_word(receipt.code)
        found[reference] = Outcome(reference, state, receipt.provider_ref, receipt.code, reason)
    return found
