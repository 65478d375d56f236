"""Lost topics filled again: every log published once more from its beginning, every group sent back to it.

Consumers' inboxes absorb the repeats. The services must be stopped: a relay that leads goes on from memory, not from
its cursor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)

from contracts.topics import TOPICS
from deploy.replay.standing import Standing
from services.chassis.db import driver_url
from services.chassis.relay import Relay

_FROM_THE_START: Final = "update relay_cursor set lower = '0', upper = null, last_id = 0 where id = 1"
_LEFT: Final = """
    with c as (select * from relay_cursor where id = 1)
    select count(o.id) from c left join outbox o
    on o.xid >= c.lower and not (c.upper is not null and o.xid < c.upper and o.id <= c.last_id)
"""
_PATIENCE: Final = 600.0  # seconds for one service's log
# A cluster on which no group has ever been has no coordinator: the first who asks for one makes it.
_UNCOORDINATED: Final = (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)
_COORDINATED_WITHIN: Final = 60.0  # seconds


class NotPublished(Exception):
    """A log did not get out in time."""


async def republish(place: Standing) -> dict[str, int]:
    """service → how many events were published again."""
    published = {}
    for service, url in place.databases.items():
        published[service] = await _publish_all(service, url, place.bootstrap)
    for group in groups():
        await set_offsets(place.bootstrap, group, {})
    return published


async def _publish_all(service: str, url: str, bootstrap: str) -> int:
    connection = await asyncpg.connect(driver_url(url), timeout=10)
    relay = Relay(url, bootstrap, service=service)
    try:
        await connection.execute(_FROM_THE_START)
        total = int(await connection.fetchval("select count(*) from outbox"))
        task = asyncio.create_task(relay.run())
        try:
            async with asyncio.timeout(_PATIENCE):
                while await connection.fetchval(_LEFT):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise NotPublished(f"{service}'s log was not published within {_PATIENCE:.0f} s") from None
        finally:
            relay.stop()
            await task
        return total
    finally:
        await connection.close()


def groups() -> list[str]:
    """Every service that listens."""
    return sorted({group for topic in TOPICS.values() for group in topic.consumers})


def partitions_of(group: str) -> list[TopicPartition]:
    """What a group reads."""
    return [
        TopicPartition(topic.name, number)
        for topic in TOPICS.values()
        if group in topic.consumers
        for number in range(topic.partitions)
    ]


async def set_offsets(bootstrap: str, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Where a group goes on; partitions that are not named from their beginning. As the group's own member.

    A static member that stopped still counts for its session: whoever comes with its name takes its place at once.
    """
    mine = partitions_of(group)
    consumer = AIOKafkaConsumer(
        *sorted({partition.topic for partition in mine}),
        bootstrap_servers=bootstrap,
        group_id=group,
        group_instance_id=f"{group}-1",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=30_000,
    )
    await consumer.start()
    try:
        async with asyncio.timeout(60):
            while consumer.assignment() != set(mine):
                await asyncio.sleep(0.05)
        begins = await consumer.beginning_offsets(mine)
        await consumer.commit({partition: offsets.get(partition, begins[partition]) for partition in mine})
    finally:
        await consumer.stop()


async def read_offsets(bootstrap: str) -> dict[str, dict[TopicPartition, int]]:
    """Where each group is; partitions it never committed are absent."""
    from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        found = {}
        for group in groups():
            answer = await _offsets_of(admin, group)
            found[group] = {partition: one.offset for partition, one in answer.items() if one.offset >= 0}
        return found
    finally:
        await admin.close()


async def _offsets_of(admin: Any, group: str) -> Mapping[TopicPartition, Any]:
    deadline = time.monotonic() + _COORDINATED_WITHIN
    while True:
        try:
            found: Mapping[TopicPartition, Any] = await admin.list_consumer_group_offsets(
                group, partitions=partitions_of(group)
            )
            return found
        except _UNCOORDINATED:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


async def offsets_at(bootstrap: str, group: str, moment: datetime) -> dict[TopicPartition, int]:
    """Of everything that a group reads, the first record that the broker got at this moment or later."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        mine = partitions_of(group)
        consumer.assign(mine)
        ends = await consumer.end_offsets(mine)
        at = int(moment.timestamp() * 1000)
        found = await consumer.offsets_for_times(dict.fromkeys(mine, at))
        return {part: ends[part] if found[part] is None else found[part].offset for part in mine}
    finally:
        await consumer.stop()
