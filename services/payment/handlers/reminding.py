"""Reminders before the close: each once, by set, never to someone who has paid or is paying."""

from __future__ import annotations

from datetime import datetime

import structlog

from contracts.cycle import Cycle
from services.chassis.db import Database
from services.payment.domain.reminders import plan_reminders
from services.payment.handlers.metrics import REMINDED
from services.payment.repository import reminders

log = structlog.get_logger(__name__)


async def remind(database: Database, cycle: Cycle, at: datetime) -> datetime | None:
    """Say `closing-soon` where its moment has come; returns the next one. A repeated run goes on where it was."""
    window = cycle.windows.payment
    async with database.reading(at) as uow:
        done = await reminders.done(uow, cycle.id, window.told_closes)
    plan = plan_reminders(at, window.opens, window.told_closes, window.reminders, done)
    if plan.send is not None:
        told = 0
        while True:
            async with database.unit_of_work(at) as uow:
                chunk = await reminders.remind_chunk(uow, window.told_closes, plan.send)
            told += chunk
            if chunk < reminders.CHUNK:
                break
        REMINDED.labels(str(int(plan.send.total_seconds()))).inc(told)
        log.info("reminded", registrations=told, offset=str(plan.send))
    finished = [(offset, True) for offset in plan.skip] + ([(plan.send, False)] if plan.send else [])
    if finished:
        async with database.unit_of_work(at) as uow:
            for offset, skipped in finished:
                await reminders.finish(uow, cycle.id, window.told_closes, offset, skipped=skipped)
    return plan.next_at
