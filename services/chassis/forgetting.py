"""Whether a database has forgotten what its service has said: an old backup, or a standby that lagged when it took over.

Such a service must not work: it would say other things under versions that others know, and act on facts it no longer
has. The last events of its own topic are looked up in its log. See docs/runbooks/restore.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from contracts.catalogue import MalformedEvent, Unknown, look_up, parse
from contracts.envelope import Envelope, MalformedEnvelope
from contracts.topics import TOPICS
from services.chassis.db import driver_url
from services.chassis.retention import bound

_TAIL: Final = 50  # records of a partition; what else lies on a topic, if anything, is far less
_WITHIN: Final = 15.0  # seconds
_MISSING: Final = """
select t.key, t.sequence from unnest($1::text[], $2::bigint[], $3::uuid[]) as t(key, sequence, event_id)
where not exists (select from outbox o where o.key = t.key and o.sequence = t.sequence and o.event_id = t.event_id)
order by t.event_id limit 1
"""


class Forgotten(Exception):
    """What was said and is not in the log; and what to do."""


async def require_memory(
    service: str, database_url: str, bootstrap_servers: str, *, now: datetime, kept: timedelta
) -> None:
    """Raises Forgotten. `kept`: how long the log keeps what was said; older events are not asked for."""
    said = await _last_said(service, bootstrap_servers)
    recent = [one for one in said if one[2] >= bound(now - kept)]
    if not recent:
        return
    connection = await asyncpg.connect(driver_url(database_url), timeout=5, command_timeout=10)
    try:
        missing = await connection.fetch(_MISSING, *[list(column) for column in zip(*recent, strict=True)])
    finally:
        await connection.close()
    if missing:
        key, sequence = missing[0]
        raise Forgotten(
            f"{service} has said version {sequence} of {key} and its database does not know it: restored, or taken over by a "
            "standby that lagged. Stop every process of it and run `kaowu catch-up` (docs/runbooks/restore.md)"
        )


async def _last_said(service: str, bootstrap_servers: str) -> list[tuple[str, int, UUID]]:
    """(key, version, id) of the last events of this service's topics."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, enable_auto_commit=False)
    async with asyncio.timeout(_WITHIN):
        await consumer.start()
        try:
            there = await consumer.topics()
            partitions = [
                TopicPartition(topic.name, number)
                for topic in TOPICS.values()
                if topic.owner == service and topic.name in there
                for number in range(topic.partitions)
            ]
            if not partitions:
                return []
            consumer.assign(partitions)
            begins = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
            left = {one for one in partitions if ends[one] > begins[one]}
            for one in left:
                consumer.seek(one, max(begins[one], ends[one] - _TAIL))
            found: list[tuple[str, int, UUID]] = []
            while left:
                for batch in (await consumer.getmany(*left, timeout_ms=500)).values():
                    found.extend(_events(batch))
                left = {one for one in left if await consumer.position(one) < ends[one]}
            return found
        finally:
            await consumer.stop()


def _events(batch: Iterable[Any]) -> Iterable[tuple[str, int, UUID]]:
    """Those that are events of ours at all."""
    for record in batch:
        try:
            envelope = Envelope.from_headers(record.headers)
            if isinstance(look_up(envelope.type), Unknown):
                continue
            event = parse(envelope, record.value or b"")
        except (MalformedEnvelope, MalformedEvent):
            continue
        if event.topic == record.topic and record.key == event.key.encode():
            yield event.key, envelope.sequence, envelope.event_id
