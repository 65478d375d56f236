"""Messages that a carrier took and of which nothing more was heard: asked about, and in the end run out.

The asking itself is the channel's (`asking`): here is decided whose turn it is. A receipt that comes after all still counts.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from services.chassis.db import Database
from services.notification.domain.life import NO_RECEIPT
from services.notification.repository import silence

log = structlog.get_logger(__name__)

BATCH: Final = 2000
# A carrier that does not even answer questions holds up the end of a message no longer than this.
_ANSWERS_WITHIN: Final = timedelta(hours=1)
_LATER: Final = timedelta(minutes=1)
SILENT: Final = Counter("kaowu_messages_silent", "SMS without a receipt: asked about, run out", ["what"])


async def follow_up(database: Database, on_questions: Callable[[], None]) -> datetime | None:
    """Do what silence calls for by now; the moment when it calls for more."""
    next_at = await _next(database)
    if next_at is None or next_at > database.clock.now():
        return next_at  # a receipt has come since this was put down for now
    # In this order: after a long standstill all are asked about once more before any is given up.
    ended = await _run_out(database)
    asked = await _ask(database, on_questions)
    if asked or ended:
        log.info("silent", asked=asked, ran_out=ended)
    next_at = await _next(database)
    # What is due already waits for an answer of the carrier's.
    return next_at and max(next_at, database.clock.now() + _LATER)


async def _next(database: Database) -> datetime | None:
    async with database.reading() as uow:
        return await silence.next_silent(uow)


async def _ask(database: Database, on_questions: Callable[[], None]) -> int:
    total = 0
    while True:
        async with database.unit_of_work() as uow:
            asked = await silence.ask_the_silent(uow, BATCH)
            if asked:
                uow.after_commit(on_questions)
        SILENT.labels("asked").inc(asked)
        total += asked
        if not asked:
            return total


async def _run_out(database: Database) -> int:
    total = 0
    while True:
        async with database.reading() as uow:
            people = await silence.run_out(uow, BATCH, _ANSWERS_WITHIN)
        if not people:
            return total
        async with database.unit_of_work() as uow:
            ended = await silence.expire(uow, people, NO_RECEIPT)
        SILENT.labels("ran-out").inc(ended)
        total += ended
