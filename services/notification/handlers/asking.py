"""After a restore: what carriers have of ours that the restored messages do not know.

A message that may have left is looked up under its reference before it is sent, and one that had left is asked about once
more: its receipt may have come in between. A mail server cannot be asked; what may be a second copy is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

import structlog
from prometheus_client import Counter

from contracts.reasons import Carrier
from services.chassis.crash import crash_point
from services.chassis.db import Database
from services.chassis.vault import Vault
from services.notification.domain.life import State, reason_word
from services.notification.handlers.contacts import row_of
from services.notification.ports import NoAnswer, Rejected, Sent
from services.notification.repository import messages, silence
from services.notification.repository.messages import Outcome

log = structlog.get_logger(__name__)

Find: TypeAlias = Callable[[str, datetime, str], Awaitable[Sent | None]]
FOUND: Final = Counter(
    "kaowu_messages_found", "Messages a carrier had already that were not known to have left", ["channel"]
)
_BATCH: Final = 128
_LATER: Final = timedelta(minutes=1)


async def ask_about_accepted(
    database: Database,
    vault: Vault,
    finder: Callable[[str | None], Find | None],
    carrier: Carrier,
    at_once: int,
) -> datetime | None:
    """Ask about every message that had left before a restore; when to ask again, if a question was not answered."""
    places = asyncio.Semaphore(at_once)
    while True:
        async with database.reading() as uow:
            rows = await silence.accepted_to_ask(uow, carrier, _BATCH)
        if not rows:
            return None

        async def ask(row: silence.Asked) -> tuple[UUID, Sent | None]:
            async with places:
                address = vault.decrypt_text(row.address, row=row_of(row.registration_id, "phone"))
                find = finder(row.provider)
                assert find is not None, "of a channel whose carriers can be asked"
                return row.message_id, await find(address, row.since, str(row.message_id))

        answers = await asyncio.gather(*(ask(row) for row in rows), return_exceptions=True)
        told = [answer for answer in answers if not isinstance(answer, BaseException)]
        outcomes = [
            Outcome(
                message_id,
                State.DELIVERED if sent.delivered else State.UNDELIVERED,
                None,
                sent.code,
                None if sent.delivered else reason_word(sent.code),
            )
            for message_id, sent in told
            if sent is not None and sent.delivered is not None
        ]
        crash_point("accepted-asked")
        async with database.unit_of_work() as uow:
            await silence.asked(uow, [message_id for message_id, _ in told])
            if outcomes:
                ended = {outcome.message_id for outcome in outcomes}
                people = {row.registration_id for row in rows if row.message_id in ended}
                await messages.receive(uow, outcomes, people)
            at = uow.at
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        for answer in failed:
            if not isinstance(answer, Exception):
                raise answer
            if not isinstance(answer, NoAnswer | Rejected):
                # An adapter's own fault, or an address that cannot be opened: what is due is sent all the same.
                log.error("ask-failed", channel=carrier, error=type(answer).__name__, exc_info=answer)
        if failed:
            log.warning("carrier-silent", channel=carrier, asked=len(rows), unanswered=len(failed))
            return at + _LATER
