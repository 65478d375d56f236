"""What the carrier of SMS reports later: a hint that comes twice, late, unasked for, or about nothing of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import structlog
from prometheus_client import Counter

from services.chassis.db import Database
from services.notification.domain.life import State, reason_word
from services.notification.ports import MalformedReceipts, Receipt, Sms
from services.notification.repository import messages
from services.notification.repository.messages import Outcome

log = structlog.get_logger(__name__)

RECEIPTS: Final = Counter("kaowu_receipts", "Receipts of the SMS carrier by what came of them", ["outcome"])


async def take_receipts(database: Database, sms: Sms, raw: bytes) -> None:
    """Take a pushed batch in. What cannot be used is counted: pushing it again would not mend it."""
    try:
        receipts = sms.parse_receipts(raw)
    except MalformedReceipts as error:
        RECEIPTS.labels("malformed").inc()
        log.warning("receipts-malformed", reason=str(error))
        return
    outcomes = _outcomes(receipts)
    if not outcomes:
        return
    async with database.unit_of_work() as uow:
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
