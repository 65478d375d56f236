"""procrastinate with one deferred job for each who owes, all due at the close: forfeiture, proof and event in one transaction.

The same writes to the same tables as a row of the sweep. As many of its own workers as cores, each with so many at a time.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import procrastinate
from psycopg_pool import AsyncConnectionPool

from deploy.bench.program import Door, Task, run
from services.chassis.db import driver_url

_FORFEIT = """
with expired as (
    update obligations o
    set status = 'expired', version = o.version + 1, expired_at = %(at)s, changed_at = %(at)s, proof_id = uuidv7()
    where o.registration_id = %(id)s and o.status = 'awaiting' and o.closes_at <= %(at)s
      and not exists (select from orders r where r.registration_id = o.registration_id
                      and r.status in ('creating', 'open', 'unknown', 'lapsing'))
    returning o.*
), proven as (
    insert into proofs (proof_id, registration_id, closes_at, expired_at, amount_fen, rule, orders, leaf)
    select proof_id, registration_id, closes_at, %(at)s, amount_fen, 'unpaid-at-close', 'none',
           sha256(convert_to(concat_ws('|', proof_id, registration_id, closes_at, amount_fen), 'UTF8'))
    from expired
)
insert into outbox (event_id, topic, key, type, sequence, occurred_at, payload, correlation_id)
select uuidv7(), 'exam.payment', registration_id::text, 'kaowu.payment.expired.v1', version, %(at)s,
       json_build_object('cycle_id', cycle_id, 'registration_id', registration_id, 'closes_at', closes_at, 'cause', 'unpaid',
                         'proof_id', proof_id)::text, uuidv7()::text
from expired
"""
_DSN, _CONCURRENCY = os.environ.get("BENCH_DATABASE", ""), int(os.environ.get("BENCH_CONCURRENCY", "1"))
_AT = datetime.fromisoformat(os.environ.get("BENCH_AT", "2024-01-01T00:00:00+00:00"))

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=_DSN, min_size=2, max_size=_CONCURRENCY + 2)
)
_kept: list[AsyncConnectionPool[Any]] = []


async def _pool() -> AsyncConnectionPool[Any]:
    if not _kept:
        _kept.append(AsyncConnectionPool(_DSN, min_size=2, max_size=_CONCURRENCY, open=False))
        await _kept[0].open()
    return _kept[0]


@app.task(name="forfeit", queue="closes")
async def forfeit(registration_id: str) -> None:
    pool = await _pool()
    async with pool.connection() as database:
        await database.execute(_FORFEIT, {"id": registration_id, "at": _AT})


async def work(task: Task, door: Door) -> None:
    dsn = driver_url(task["database"])
    environment = os.environ | {
        "BENCH_DATABASE": dsn,
        "BENCH_CONCURRENCY": str(task["concurrency"]),
        "BENCH_AT": task["at"],
    }
    connector = procrastinate.PsycopgConnector(conninfo=dsn, min_size=2, max_size=2)
    with app.replace_connector(connector) as filling:
        async with filling.open_async():
            await filling.schema_manager.apply_schema_async()
            due = datetime.now(UTC) - timedelta(seconds=1)
            deferring = forfeit.configure(schedule_at=due)
            for first in range(0, task["jobs"], 1000):
                await deferring.batch_defer_async(
                    *({"registration_id": one} for one in task["people"][first : first + 1000])
                )
    await door.ready()
    command = [
        sys.executable, "-m", "procrastinate", "--app=tests.benchmarks.peers.procrastinate_deferred.app", "worker",
        "--queues=closes", f"--concurrency={task['concurrency']}", "--fetch-job-polling-interval=0.1",
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
            (done,) = await (await looking.execute("select count(*) from proofs")).fetchone() or (0,)
            at = time.monotonic()
            if first_seen is None and done >= task["jobs"] // 10:
                first_seen = (at, done)
            if done >= task["jobs"]:
                last = (at, done)
            assert any(worker.poll() is None for worker in workers), "the workers ended"
            await asyncio.sleep(0.05)
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.wait(30)
    assert first_seen is not None
    door.result(seconds=last[0] - first_seen[0], jobs=last[1] - first_seen[1])


if __name__ == "__main__":
    run(work)
