"""Our sweep alone, on a database whose close has come; then the rest of the close, which is no part of the comparison."""

from __future__ import annotations

import time
from datetime import datetime

from deploy.bench.ours.member import quiet
from deploy.bench.program import Door, Task, own_cpu, run
from services.payment.app import create_app
from services.payment.handlers import closing
from services.payment.settings import Settings


async def work(task: Task, door: Door) -> None:
    quiet()
    settings = Settings.of_environment(task["environment"])
    process = create_app(settings)
    plumbing = process.plumbing
    close, *_ = process.jobs.jobs
    chunk = int(task.get("chunk") or settings.sweep_chunk)
    async with plumbing.database.reading() as uow:  # a connection, as a service has one
        await uow.sql("select 1")
    await door.ready()
    before, began = own_cpu(), time.perf_counter()
    at = datetime.fromisoformat(task["at"])
    swept = await closing.sweep(plumbing.database, plumbing.cycle, at, chunk=chunk)
    took, cpu = time.perf_counter() - began, own_cpu() - before
    # Guard of three clocks, nobody left to forfeit, totals and root: the close as its job does it.
    again = await close.run()
    door.result(
        seconds=took, swept=swept, own=cpu, rest=time.perf_counter() - began - took, again=again is not None
    )
    await plumbing.database.dispose()
    for resource in process.resources:
        await resource.__aexit__(None, None, None)


if __name__ == "__main__":
    run(work)
