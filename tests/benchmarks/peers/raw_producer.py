"""Raw aiokafka: the same records, already in memory with key, headers and partition decided, through batch builders.

Nothing is left to do but to pack and to send, which is the ceiling of any relay on this client.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner

from deploy.bench.program import Door, Task, run
from services.chassis.db import driver_url
from services.chassis.packing import headers_of

_IN_FLIGHT = 64  # batches handed over before the oldest is waited for


async def work(task: Task, door: Door) -> None:
    database = await asyncpg.connect(driver_url(task["database"]))
    rows = await database.fetch("select * from outbox order by id")
    await database.close()
    producer = AIOKafkaProducer(
        bootstrap_servers=task["bootstrap"],
        enable_idempotence=True,
        acks="all",
        max_batch_size=task["batch_bytes"],
        max_request_size=1 << 20,
    )
    await producer.start()
    topic = rows[0]["topic"]
    parts = sorted(await producer.partitions_for(topic))
    place = DefaultPartitioner()
    records = [
        (place(key, parts, parts), key, row["payload"].encode(), headers_of(row))
        for row in rows
        if (key := row["key"].encode())
    ]
    del rows
    await door.ready()
    began = time.perf_counter()
    waiting: list[asyncio.Future[Any]] = []
    builders = {part: producer.create_batch() for part in parts}
    for part, key, value, headers in records:
        batch = builders[part]
        if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
            waiting.append(await producer.send_batch(batch, topic, partition=part))
            builders[part] = batch = producer.create_batch()
            assert batch.append(timestamp=None, key=key, value=value, headers=headers) is not None
            if len(waiting) > _IN_FLIGHT:
                await waiting.pop(0)
    for part, batch in builders.items():
        if batch.record_count():
            waiting.append(await producer.send_batch(batch, topic, partition=part))
    await asyncio.gather(*waiting)
    took = time.perf_counter() - began
    door.result(seconds=took, rows=len(records))
    await producer.stop()


if __name__ == "__main__":
    run(work)
