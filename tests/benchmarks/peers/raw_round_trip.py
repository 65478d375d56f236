"""Raw aiokafka: one side sends so many records a second, without waiting for each; the other notes when it has them."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from uuid_utils.compat import uuid7

from deploy.bench.cases import pre_registered
from deploy.bench.program import Door, Task, run
from services.chassis.packing import headers_of


async def send(task: Task, door: Door) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=task["bootstrap"], enable_idempotence=True, acks="all")
    await producer.start()
    people = [uuid7() for _ in range(1000)]
    moments: list[tuple[str, int, float]] = []
    await door.ready()
    began, rate, total = time.monotonic(), task["rate"], task["events"]
    waiting = []
    for number in range(total):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        person, version = people[number % len(people)], number // len(people) + 1
        event, event_id = pre_registered(person), uuid7()
        row = {
            "id": number, "event_id": event_id, "topic": event.topic, "key": event.key, "type": event.type,
            "sequence": version, "occurred_at": datetime.now(UTC), "payload": event.model_dump_json(),
            "correlation_id": str(event_id), "causation_id": None, "traceparent": None,
        }  # fmt: skip
        value, key, headers = str(row["payload"]).encode(), event.key.encode(), headers_of(row)
        moments.append((event.key, version, time.monotonic()))
        waiting.append(await producer.send(event.topic, value, key=key, headers=headers))
    await asyncio.gather(*waiting)
    await producer.stop()
    door.result(moments=moments, began=began)


async def receive(task: Task, door: Door) -> None:
    consumer = AIOKafkaConsumer(
        pre_registered(uuid7()).topic,
        bootstrap_servers=task["bootstrap"],
        group_id=task["group"],
        enable_auto_commit=False,
        auto_offset_reset="latest",
    )
    await consumer.start()
    while not consumer.assignment():
        await asyncio.sleep(0.02)
    for part in consumer.assignment():
        await consumer.position(part)
    met: list[tuple[str, int, float]] = []
    await door.ready()
    while len(met) < task["events"]:
        found = await consumer.getmany(timeout_ms=1000)
        at = time.monotonic()
        for records in found.values():
            for record in records:
                met.append((record.key.decode(), int(dict(record.headers)["ce_sequence"]), at))  # noqa: PERF401
    await consumer.stop()
    door.result(moments=met)


async def work(task: Task, door: Door) -> None:
    await (send if task["side"] == "send" else receive)(task, door)


if __name__ == "__main__":
    run(work)
