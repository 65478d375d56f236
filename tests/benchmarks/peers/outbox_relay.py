"""faststream-outbox relaying to Kafka as its tutorial says, with the settings that were the fastest of those tried.

Its table holds the same payloads, and the same attributes as headers; the key travels as one of them, because a row of its
table has none. Producer as durable as ours: idempotent, all replicas. Many workers reorder the events of a key.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import asyncpg
from faststream.kafka import KafkaBroker, KafkaResponse
from faststream_outbox import OutboxBroker, OutboxMessage, make_outbox_table
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from deploy.bench.program import Door, Task, run
from services.chassis.db import driver_url
from services.chassis.packing import headers_of

_KEY = "key"
_QUEUE = "events"


async def work(task: Task, door: Door) -> None:
    metadata = MetaData()
    table = make_outbox_table(metadata, table_name="relayed")
    engine = create_async_engine(task["database"], pool_size=task["workers"] + 2)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    topic = await _fill(driver_url(task["database"]), task["rows"])

    done, acked = asyncio.Event(), 0

    def count(event: str, _tags: Mapping[str, Any]) -> None:
        nonlocal acked
        acked += event == "acked"
        if acked == task["rows"]:
            done.set()

    quiet = logging.getLogger("quiet")
    quiet.setLevel(logging.ERROR)
    kafka = KafkaBroker(
        task["bootstrap"], enable_idempotence=True, acks="all", apply_types=False, logger=quiet
    )
    outbox = OutboxBroker(engine, outbox_table=table, metrics_recorder=count, apply_types=False, logger=quiet)

    @kafka.publisher(topic)
    @outbox.subscriber(
        _QUEUE,
        max_workers=task["workers"],
        fetch_batch_size=1000,
        min_fetch_interval=0.01,
        max_fetch_interval=0.25,
        terminal_flush_batch_size=100,
        decoder=_with_headers,
    )
    async def relay(message: tuple[bytes, dict[str, str]]) -> KafkaResponse:
        body, headers = message
        key = headers.pop(_KEY).encode()
        return KafkaResponse(body, headers=headers, correlation_id=headers["correlation_id"], key=key)

    await kafka.start()
    await door.ready()
    began = time.perf_counter()
    await outbox.start()
    await done.wait()
    took = time.perf_counter() - began
    door.result(seconds=took, rows=acked)
    await outbox.stop()
    await kafka.stop()
    await engine.dispose()


async def _with_headers(message: OutboxMessage) -> tuple[bytes, dict[str, str]]:
    """The handler wants the attributes too; asking for them any other way costs a dependency injection at each row."""
    return bytes(message.body), dict(message.headers)


async def _fill(dsn: str, rows: int) -> str:
    """Its table from ours, in the same order."""
    database = await asyncpg.connect(dsn)
    said = await database.fetch("select * from outbox order by id limit $1", rows)
    await database.copy_records_to_table(
        "relayed",
        columns=("queue", "payload", "headers"),
        records=[
            (
                _QUEUE,
                row["payload"].encode(),
                json.dumps({name: value.decode() for name, value in headers_of(row)} | {_KEY: row["key"]}),
            )
            for row in said
        ],
    )
    await database.execute("analyze relayed")
    await database.close()
    return str(said[0]["topic"])


if __name__ == "__main__":
    run(work)
