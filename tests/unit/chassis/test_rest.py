"""Whoever waits for a service's rest is kept waiting by what is under way, for a moment and not for ever."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest

from services.chassis.clock import SystemClock
from services.chassis.jobs import Job, Jobs
from services.chassis.operations import settled
from services.chassis.process import Process


async def nothing() -> None: ...


def serving(job: Job) -> Process:
    jobs = Jobs([job], clock=SystemClock(), database_url="postgresql://nowhere")
    parts = {
        "jobs": jobs,
        "plumbing": SimpleNamespace(clock=SystemClock()),
        "consumers": SimpleNamespace(busy=False, hurry=lambda: None),
        "relay": SimpleNamespace(hurry=lambda: None),
    }
    return cast("Process", SimpleNamespace(**parts))


@pytest.mark.parametrize("what", ["running", "asked for", "due", "taking in"])
async def test_what_is_under_way_may_end_before_the_answer(what: str) -> None:
    job = Job("act", nothing, timedelta(hours=1))
    process = serving(job)
    if what == "running":
        job.running = True
    elif what == "asked for":
        job.wake()
    elif what == "due":
        job.due_at = datetime.now(UTC)
    else:
        process.consumers.busy = True
    waiting = asyncio.create_task(settled(process))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    job.running = process.consumers.busy = False
    job.awake.clear()
    job.due_at = datetime.now(UTC) + timedelta(hours=1)
    await asyncio.wait_for(waiting, 5)


async def test_who_does_not_end_is_not_waited_for() -> None:
    job = Job("act", nothing, timedelta(hours=1))
    job.running = True
    await asyncio.wait_for(settled(serving(job)), 5)
