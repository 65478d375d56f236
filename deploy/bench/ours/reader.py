"""A service that notes when its handler meets each event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from contracts import registration
from deploy.bench.ours.member import quiet
from deploy.bench.program import Door, Task, run
from services.chassis import memory
from services.chassis.clock import SystemClock
from services.chassis.consuming import Consumers, make_broker
from services.chassis.db import Database, UnitOfWork

_EFFECT = """
insert into bench_cases (id, version) select id, count(*) from unnest($1::uuid[]) id group by id order by id
on conflict (id) do update set version = bench_cases.version + excluded.version
"""


async def work(task: Task, door: Door) -> None:
    quiet()
    memory.settle()
    met: list[tuple[str, int, float]] = []

    async def meet(uow: UnitOfWork, events: Sequence[registration.PreRegistered]) -> None:
        at = time.monotonic()
        met.extend((event.key, event.envelope.sequence, at) for event in events)
        await uow.changed(_EFFECT, [event.registration_id for event in events])

    database = Database(task["database"], clock=SystemClock())
    consumers = Consumers({registration.PreRegistered: meet}, database=database, service=task["group"])
    broker = make_broker(task["bootstrap"], service=task["group"])
    consumers.subscribe(broker)
    await broker.start()
    while not all(s.consumer and s.consumer.assignment() for s in broker.subscribers):  # type: ignore[attr-defined]
        await asyncio.sleep(0.02)
    await door.ready()
    while len(met) < task["events"]:
        await asyncio.sleep(0.02)
    await broker.stop()
    await database.dispose()
    door.result(moments=met)


if __name__ == "__main__":
    run(work)
