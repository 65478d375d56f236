"""Reminders before the close: each once, by set, never to someone who has paid or is paying."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from contracts.cycle import Cycle
from services.chassis.db import Database
from services.chassis.giving_way import GivingWay, Visitors
from services.payment.domain.closes import grace
from services.payment.domain.reminders import plan_reminders
from services.payment.handlers.metrics import REMINDED
from services.payment.repository import closing, decisions, reminders, windows

log = structlog.get_logger(__name__)


async def remind(
    database: Database, cycle: Cycle, at: datetime, visitors: Visitors | None = None
) -> datetime | None:
    """Say `closing-soon` where its moment has come; returns the next one. A repeated run goes on where it was.

    While any of `visitors` come it lets them through.
    """
    async with database.reading(at) as uow:
        told = {
            close.told_closes_at: close.since for close in (await windows.in_force(uow, cycle)).in_force()
        }
        for row in await decisions.revived(uow):
            told.setdefault(row.told_closes_at, row.since)
        # Whom an earlier close did not reach before it came: they keep one that holds at no desk any more.
        window = cycle.windows.payment
        for closes_at in await closing.owed_closes(uow):
            if closes_at > at:
                told.setdefault(closes_at - grace(window), window.opens)
    upcoming = [
        await _remind(database, cycle, told_closes_at, since, at, visitors or Visitors())
        for told_closes_at, since in told.items()
    ]
    return min((moment for moment in upcoming if moment is not None), default=None)


async def _remind(
    database: Database,
    cycle: Cycle,
    told_closes_at: datetime,
    since: datetime,
    at: datetime,
    visitors: Visitors,
) -> datetime | None:
    """Of one close. Reminders whose moment lies before it was set are never missed: that it moved was a message."""
    async with database.reading(at) as uow:
        done = await reminders.done(uow, cycle.id, told_closes_at)
    plan = plan_reminders(at, since, told_closes_at, cycle.windows.payment.reminders, done)
    if plan.send is not None:
        told = await _say(database, told_closes_at, plan.send, at, visitors)
        REMINDED.labels(str(int(plan.send.total_seconds()))).inc(told)
        log.info("reminded", registrations=told, offset=str(plan.send))
    finished = [(offset, True) for offset in plan.skip] + ([(plan.send, False)] if plan.send else [])
    if finished:
        async with database.unit_of_work(at) as uow:
            for offset, skipped in finished:
                await reminders.finish(uow, cycle.id, told_closes_at, offset, skipped=skipped)
    return plan.next_at


async def _say(
    database: Database, told_closes_at: datetime, offset: timedelta, at: datetime, visitors: Visitors
) -> int:
    """A chunk at a time, and again from the beginning until that finds nobody: some were approved meanwhile, and a row that
    somebody else changed while it was waited for is left to the next time round.
    """
    told, after = 0, reminders.FROM_THE_BEGINNING
    way = GivingWay(visitors, reminders.CHUNK)
    while True:
        size = way.size
        async with database.unit_of_work(at) as uow:
            chunk = await reminders.remind_chunk(uow, told_closes_at, offset, after, size)
        told += chunk.told
        if chunk.told == size and chunk.last is not None:
            after = chunk.last
            await way.rest()
        elif chunk.last is not None or after != reminders.FROM_THE_BEGINNING:
            after = reminders.FROM_THE_BEGINNING
        else:
            return told
