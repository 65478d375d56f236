"""The consuming side of notification, with its own handlers and texts: from forfeitures to messages that wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import psutil

from contracts.cycle import Cycle
from deploy.bench.counter import CYCLE_FILE
from deploy.bench.ours.member import quiet
from deploy.bench.program import Door, Task, own_cpu, run
from services.chassis import memory
from services.chassis.clock import SystemClock
from services.chassis.consuming import Consumers, Record, make_broker
from services.chassis.db import Database
from services.notification.consumers import BATCH, HANDLERS
from services.notification.handlers.telling import Teller
from services.notification.templates.wording import Wording


async def work(task: Task, door: Door) -> None:
    """Takes in what lies on the topics once it is told to begin, and says how far it is."""
    quiet()
    memory.settle()
    database = Database(task["database"], clock=SystemClock())
    teller = Teller(Cycle.read(CYCLE_FILE), Wording.load(), _nothing, _nothing)
    consumers = Consumers(
        HANDLERS, database=database, service=task["group"], deps={"teller": teller}, batch=BATCH
    )
    broker = make_broker(task["bootstrap"], service=task["group"])
    begun = asyncio.Event()
    take_in = consumers.on_batch

    async def once_all_are_there(records: Sequence[Record]) -> None:
        await begun.wait()
        await take_in(records)

    consumers.on_batch = once_all_are_there  # type: ignore[method-assign]
    consumers.subscribe(broker)
    own = psutil.Process()
    await door.ready()
    await broker.start()
    while (word := await door.told()) in {"count", "begin"}:
        if word == "begin":
            begun.set()
        assigned = [len(s.consumer.assignment()) for s in broker.subscribers if s.consumer]  # type: ignore[attr-defined]
        door.result(
            handled=consumers.handled, at=time.monotonic(), own=own_cpu(), assigned=sum(assigned),
            resident=own.memory_info().rss / 2**20,
        )  # fmt: skip
    await broker.stop()
    await database.dispose()


def _nothing() -> None: ...


if __name__ == "__main__":
    run(work)
