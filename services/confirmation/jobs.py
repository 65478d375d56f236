"""Door 3, time: a desk's window, or a candidate's own time to put things right, has ended."""

from __future__ import annotations

from datetime import datetime, timedelta

from contracts.cycle import Cycle
from services.chassis.db import Database
from services.chassis.jobs import Job
from services.confirmation import handlers

_CHUNK = 5_000


def lapse_job(database: Database, cycle: Cycle) -> Job:
    """The job that lapses whoever was not confirmed in time, exactly when it is too late."""

    async def lapse_missed() -> datetime | None:
        while True:
            async with database.unit_of_work() as uow:
                if not await handlers.lapse_missed(uow, cycle=cycle, limit=_CHUNK):
                    break
        # Rows that somebody held are waited for one at a time, so that two who wait for each other cannot arise.
        while True:
            async with database.unit_of_work() as uow:
                if not await handlers.lapse_missed(uow, cycle=cycle, limit=1, wait=True):
                    return await handlers.next_lapse(uow, cycle=cycle)

    return Job("lapse_missed", lapse_missed, every=timedelta(seconds=30))
