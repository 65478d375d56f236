"""Our relay alone, over an outbox that others filled."""

from __future__ import annotations

import asyncio
import time

import psutil

from deploy.bench.program import Door, Task, run
from services.chassis import memory
from services.chassis.relay import Relay


async def work(task: Task, door: Door) -> None:
    memory.settle()
    await door.ready()
    itself = psutil.Process()
    samples: list[tuple[int, float]] = []
    relay = Relay(task["database"], task["bootstrap"], service="bench")
    running = asyncio.create_task(relay.run())
    while not relay.leading:
        await asyncio.sleep(0.001)
    began = sampled = time.perf_counter()
    while relay.published < task["rows"]:
        await asyncio.sleep(0.002)
        if (now := time.perf_counter()) - sampled >= 0.05:
            sampled = now
            samples.append((relay.published, itself.memory_info().rss / 2**20))
    took = time.perf_counter() - began
    relay.stop()
    await running
    door.result(seconds=took, rows=relay.published, memory=samples)


if __name__ == "__main__":
    run(work)
