"""Raw asyncpg: the same transaction so many times a second; noted is how long its COMMIT takes."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import asyncpg
from uuid_utils.compat import uuid7

from deploy.bench.cases import pre_registered
from deploy.bench.program import Door, Task, run
from services.chassis.db import driver_url

_CHANGE = """
insert into bench_cases (id, version) values ($1, 1)
on conflict (id) do update set version = bench_cases.version + 1 returning version
"""
_SAY = """
insert into bench_outbox (event_id, topic, key, type, sequence, occurred_at, payload, correlation_id)
values ($1, $2, $3, $4, $5, $6, $7, $8)
"""


async def work(task: Task, door: Door) -> None:
    pool = await asyncpg.create_pool(driver_url(task["database"]), min_size=8, max_size=8)
    people = [uuid7() for _ in range(1000)]
    took: list[tuple[float, float]] = []

    async def one(number: int) -> None:
        person = people[number % len(people)]
        event, event_id = pre_registered(person), uuid7()
        async with pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            version = await connection.fetchval(_CHANGE, person)
            await connection.execute(
                _SAY, event_id, event.topic, event.key, event.type, version, datetime.now(UTC),
                event.model_dump_json(), str(event_id),
            )  # fmt: skip
            committing = time.monotonic()
            await transaction.commit()
            took.append((committing, time.monotonic() - committing))

    await door.ready()
    began, rate, total = time.monotonic(), task["rate"], task["events"]
    tasks = []
    for number in range(total):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    await pool.close()
    door.result(took=took, began=began)


if __name__ == "__main__":
    run(work)
