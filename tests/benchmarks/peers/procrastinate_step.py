"""procrastinate, whose queue is PostgreSQL itself: claim, change and the next job in one transaction, many at a time.

Its own outbox is its queue: what follows is deferred in the step's transaction, so the third statement is its own. As many
of its own worker processes as there are cores, each with so many jobs at a time.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
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

_COUNT = "select count(*) from procrastinate_jobs where queue_name = 'next'"
_FOLLOWING = """
select count(distinct args->>'event_id'), count(distinct args->'payload'->>'registration_id')
from procrastinate_jobs where queue_name = 'next'
"""
_DSN, _CONCURRENCY = os.environ.get("BENCH_DATABASE", ""), int(os.environ.get("BENCH_CONCURRENCY", "1"))

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=_DSN, min_size=2, max_size=_CONCURRENCY + 2)
)
_kept: list[AsyncConnectionPool[Any]] = []


async def _pool() -> AsyncConnectionPool[Any]:
    if not _kept:
        _kept.append(AsyncConnectionPool(_DSN, min_size=2, max_size=_CONCURRENCY, open=False))
        await _kept[0].open()
    return _kept[0]


@app.task(name="next", queue="next")
async def following(event_id: str, payload: dict[str, object]) -> None:
    raise AssertionError("nobody works on this queue here")


@app.task(name="step", queue="steps")
async def step(event_id: str, registration_id: str) -> None:
    event = pre_registered(UUID(registration_id))
    pool = await _pool()
    async with pool.connection() as database:
        if not await (await database.execute(CLAIM, ("confirm", event_id, datetime.now(UTC)))).fetchone():
            return
        await (await database.execute(CHANGE, (event.registration_id,))).fetchone()
        said = confirmed(event).model_dump(mode="json")
        await following.configure(connection=database).defer_async(event_id=str(uuid7()), payload=said)


async def work(task: Task, door: Door) -> None:
    dsn = driver_url(task["database"])
    environment = os.environ | {"BENCH_DATABASE": dsn, "BENCH_CONCURRENCY": str(task["concurrency"])}
    connector = procrastinate.PsycopgConnector(conninfo=dsn, min_size=2, max_size=2)
    with app.replace_connector(connector) as filling:
        async with filling.open_async():
            await filling.schema_manager.apply_schema_async()
            people = [str(uuid7()) for _ in range(task["events"] // task["versions"])]
            for _ in range(task["versions"]):
                for first in range(0, len(people), 1000):
                    await step.batch_defer_async(
                        *(
                            {"event_id": str(uuid7()), "registration_id": p}
                            for p in people[first : first + 1000]
                        )
                    )
    await door.ready()
    command = [
        sys.executable, "-m", "procrastinate", "--app=tests.benchmarks.peers.procrastinate_step.app", "worker",
        "--queues=steps", f"--concurrency={task['concurrency']}", "--fetch-job-polling-interval=0.1",
    ]  # fmt: skip
    workers = [
        subprocess.Popen(
            command, env=environment, stdout=sys.stderr, stderr=sys.stderr, stdin=subprocess.DEVNULL
        )
        for _ in range(task["processes"])
    ]
    first_seen = last = None
    async with (
        AsyncConnectionPool(dsn, min_size=1, max_size=1, open=False) as pool,
        pool.connection() as looking,
    ):
        await looking.set_autocommit(True)
        while last is None:
            (done,) = await (await looking.execute(_COUNT)).fetchone() or (0,)
            at = time.monotonic()
            if first_seen is None and done >= task["events"] // 10:
                first_seen = (at, done)
            if done >= task["events"]:
                last = (at, done)
            assert any(worker.poll() is None for worker in workers), "the workers ended"
            await asyncio.sleep(0.05)
        ids, keys = await (await looking.execute(_FOLLOWING)).fetchone() or (0, 0)
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.wait(30)
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
