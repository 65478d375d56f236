"""procrastinate, whose queue is PostgreSQL itself: claim, change and the next job in one transaction, many at a time.

Its own outbox is its queue: what follows is deferred in the step's transaction, so the third statement is its own.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import procrastinate
from psycopg_pool import AsyncConnectionPool
from uuid_utils.compat import uuid7

from deploy.bench.cases import confirmed, pre_registered
from deploy.bench.program import Door, Task, run
from services.chassis.db import driver_url
from tests.benchmarks.peers.sql import CHANGE, CLAIM


async def work(task: Task, door: Door) -> None:
    dsn, concurrency = driver_url(task["database"]), task["concurrency"]
    app = procrastinate.App(
        connector=procrastinate.PsycopgConnector(conninfo=dsn, min_size=4, max_size=concurrency + 4)
    )
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(dsn, min_size=4, max_size=concurrency, open=False)

    @app.task(name="next", queue="next")
    async def following(event_id: str, payload: dict[str, object]) -> None:
        raise AssertionError("nobody works on this queue here")

    @app.task(name="step", queue="steps")
    async def step(event_id: str, registration_id: str) -> None:
        event = pre_registered(UUID(registration_id))
        async with pool.connection() as database:
            if not await (await database.execute(CLAIM, ("confirm", event_id, datetime.now(UTC)))).fetchone():
                return
            await (await database.execute(CHANGE, (event.registration_id,))).fetchone()
            said = confirmed(event).model_dump(mode="json")
            await following.configure(connection=database).defer_async(event_id=str(uuid7()), payload=said)

    await pool.open()
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        people = [str(uuid7()) for _ in range(task["events"] // task["versions"])]
        for _ in range(task["versions"]):
            for first in range(0, len(people), 1000):
                jobs = [
                    {"event_id": str(uuid7()), "registration_id": p} for p in people[first : first + 1000]
                ]
                await step.batch_defer_async(*jobs)
        await door.ready()
        working = asyncio.create_task(
            app.run_worker_async(
                queues=["steps"],
                concurrency=concurrency,
                install_signal_handlers=False,
                delete_jobs=task["delete_jobs"],
                fetch_job_polling_interval=0.1,
                listen_notify=False,
            )
        )
        first_seen = last = None
        async with pool.connection() as looking:
            await looking.set_autocommit(True)
            while last is None:
                cursor = await looking.execute(
                    "select count(*) from procrastinate_jobs where queue_name = 'next'"
                )
                (done,) = await cursor.fetchone() or (0,)
                at = time.monotonic()
                if first_seen is None and done >= task["events"] // 10:
                    first_seen = (at, done)
                if done >= task["events"]:
                    last = (at, done)
                await asyncio.sleep(0.05)
            cursor = await looking.execute(
                "select count(distinct args->>'event_id'), count(distinct args->'payload'->>'registration_id') "
                "from procrastinate_jobs where queue_name = 'next'"
            )
            ids, keys = await cursor.fetchone() or (0, 0)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    await pool.close()
    assert first_seen is not None
    door.result(
        seconds=last[0] - first_seen[0],
        events=last[1] - first_seen[1],
        following=ids,
        keys=keys,
        all=task["events"],
    )


if __name__ == "__main__":
    run(work)
