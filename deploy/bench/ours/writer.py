"""A service that says something so many times a second, each in a transaction of its own; its relay in the same process."""

from __future__ import annotations

import asyncio
import time

from uuid_utils.compat import uuid7

from deploy.bench.cases import pre_registered
from deploy.bench.ours.member import quiet
from deploy.bench.program import Door, Task, run
from services.chassis import memory, outbox
from services.chassis.clock import SystemClock
from services.chassis.db import Database
from services.chassis.relay import Relay

_CHANGE = """
insert into bench_cases (id, version) values ($1, 1)
on conflict (id) do update set version = bench_cases.version + 1 returning version
"""


async def work(task: Task, door: Door) -> None:
    quiet()
    memory.settle()
    database = Database(task["database"], clock=SystemClock())
    relay = Relay(task["database"], task["bootstrap"], service="bench")
    database.on_events = relay.wake
    running = asyncio.create_task(relay.run())
    while not relay.leading:
        await asyncio.sleep(0.01)
    people = [uuid7() for _ in range(1000)]
    moments: list[tuple[str, int, float]] = []

    async def say(number: int) -> None:
        person = people[number % len(people)]
        async with database.unit_of_work() as uow:
            version = int((await uow.sql(_CHANGE, person))[0].version)
            await outbox.add(uow, pre_registered(person), sequence=version)
            committing = time.monotonic()
        moments.append((str(person), version, committing))

    await door.ready()
    began, rate, total = time.monotonic(), task["rate"], task["events"]
    tasks = []
    for number in range(total):
        # An open loop: a slow answer does not slow down what comes after it.
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        tasks.append(asyncio.create_task(say(number)))
    await asyncio.gather(*tasks)
    while relay.published < total:
        await asyncio.sleep(0.01)
    relay.stop()
    await running
    await database.dispose()
    door.result(moments=moments, began=began)


if __name__ == "__main__":
    run(work)
