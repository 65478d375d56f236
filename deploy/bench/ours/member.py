"""One consumer process of ours, with or without its relay: what a service runs, without its doors for people."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import structlog

from contracts import registration
from deploy.bench.cases import SERVICE, confirm_all
from deploy.bench.program import Door, Task, run
from services.chassis import memory
from services.chassis.clock import SystemClock
from services.chassis.consuming import Consumers, Record, make_broker
from services.chassis.db import Database
from services.chassis.relay import Relay


async def work(task: Task, door: Door) -> None:
    quiet()
    memory.settle()
    database = Database(task["database"], clock=SystemClock())
    consumers = Consumers({registration.PreRegistered: confirm_all}, database=database, service=task["group"])
    broker = make_broker(task["bootstrap"], service=task["group"])
    begun = asyncio.Event()
    busy = 0
    take_in = consumers.on_batch

    async def once_all_are_there(records: Sequence[Record]) -> None:
        """Joining takes a group seconds, in which whoever came first would have done the work."""
        nonlocal busy
        await begun.wait()
        busy += 1
        try:
            await take_in(records)
        finally:
            busy -= 1

    consumers.on_batch = once_all_are_there  # type: ignore[method-assign]
    consumers.subscribe(broker)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.dispose)
        relay = Relay(task["database"], task["bootstrap"], service=SERVICE)
        if task["relay"]:
            database.on_events = relay.wake
            running = asyncio.create_task(relay.run())
            stack.push_async_callback(_ended, relay, running)
            while not relay.leading:
                await asyncio.sleep(0.01)
        await door.ready()
        stack.push_async_callback(broker.stop)
        await broker.start()
        while (word := await door.told()) in {"count", "begin", "halt"}:
            if word == "begin":
                begun.set()
            elif word == "halt":
                begun.clear()
            assigned = [len(s.consumer.assignment()) for s in broker.subscribers if s.consumer]  # type: ignore[attr-defined]
            door.result(
                handled=consumers.handled,
                busy=busy,
                published=relay.published,
                at=time.monotonic(),
                assigned=sum(assigned),
            )
        assert word in {"stop", ""}


async def _ended(relay: Relay, running: asyncio.Task[None]) -> None:
    relay.stop()
    await running


def quiet() -> None:
    """As in production: one line a batch; here to the log of the contender."""
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(open("/dev/stderr", "w")),  # noqa: SIM115, PTH123
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    run(work)
