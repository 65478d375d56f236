"""What was said, as a replay reads it: from the services' logs, or from the topics alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from contracts.catalogue import Unknown, look_up
from contracts.envelope import Envelope, MalformedEnvelope
from contracts.event import schema_of
from contracts.topics import TOPICS
from services.chassis.header_names import forgive

_LOG: Final = """
select event_id, topic, key, type, sequence, occurred_at, payload, correlation_id, causation_id, traceparent
from outbox order by id
"""
_PAGE: Final = 5_000


@dataclass(frozen=True)
class Said:
    """One event with all that was said around it."""

    event_id: UUID
    topic: str
    key: str
    type: str
    sequence: int
    occurred_at: datetime
    payload: str
    correlation_id: str
    causation_id: str | None
    traceparent: str | None
    # Where it lies on its topic, if that is where it was read.
    partition: int = 0
    offset: int = 0

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The payload, read."""
        found: dict[str, Any] = json.loads(self.payload)
        return found

    @property
    def word(self) -> str:
        """The fact without service and major: `pre-registered`."""
        return self.type.split(".")[2]

    def record(self) -> ConsumerRecord[bytes | None, bytes | None]:
        """As a consumer gets it."""
        event = look_up(self.type)
        assert not isinstance(event, Unknown), f"nobody reads {self.type}"
        envelope = Envelope(
            event_id=self.event_id,
            type=self.type,
            source=event.source,
            subject=self.key,
            time=self.occurred_at,
            dataschema=schema_of(self.type),
            sequence=self.sequence,
            correlation_id=self.correlation_id,
            causation_id=self.causation_id,
            traceparent=self.traceparent,
        )
        return ConsumerRecord(
            topic=self.topic,
            partition=self.partition,
            offset=self.offset,
            timestamp=0,
            timestamp_type=0,
            key=self.key.encode(),
            value=self.payload.encode(),
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=0,
            headers=envelope.headers(),
        )

    @classmethod
    def of_record(cls, record: Any) -> Said:
        """From a record of the broker. Raises MalformedEnvelope, or ValueError for a type that nobody knows."""
        envelope = Envelope.from_headers(record.headers)
        if isinstance(look_up(envelope.type), Unknown):
            raise ValueError("unknown type")
        return cls(
            envelope.event_id,
            record.topic,
            (record.key or b"").decode(),
            envelope.type,
            envelope.sequence,
            envelope.time,
            (record.value or b"").decode(),
            envelope.correlation_id,
            envelope.causation_id,
            envelope.traceparent,
            record.partition,
            record.offset,
        )


@dataclass
class History:
    """Every service's events, each once, those of one key in their order. `seen`: also those that were not kept."""

    source: str
    said: dict[str, list[Said]] = field(default_factory=dict)
    unreadable: int = 0
    records: int = 0
    seen: dict[str, set[UUID]] = field(default_factory=dict)
    ends: dict[TopicPartition, int] = field(default_factory=dict)

    def ids(self, service: str) -> set[UUID]:
        """Of what this service said."""
        return {one.event_id for one in self.said.get(service, ())}

    def __len__(self) -> int:
        return sum(map(len, self.said.values()))


async def read_log(connection: Any) -> list[Said]:
    """One service's log in its order. Inside the caller's snapshot."""
    return [Said(*row) for row in await connection.fetch(_LOG)]


def owners() -> Mapping[str, str]:
    """topic → the service that alone writes it."""
    return {name: topic.owner for name, topic in TOPICS.items() if topic.consumers}


async def read_topics(bootstrap: str, *, keep: Callable[[Said], bool] = lambda _: True) -> History:
    """Every topic from its beginning to its present end, as far as it is to be kept. What is no event of ours is counted."""
    history = History(
        "topics",
        {service: [] for service in owners().values()},
        seen={service: set() for service in owners().values()},
    )
    forgive()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        fetch_max_bytes=32 * 2**20,
        # A reset to the latest, which assign() begins by itself otherwise, may overtake seek_to_beginning().
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(name, n) for name in owners() for n in range(TOPICS[name].partitions)]
        consumer.assign(partitions)
        begins = await consumer.beginning_offsets(partitions)
        ends = history.ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        left = {partition for partition in partitions if ends[partition] > begins[partition]}
        while left:
            batches = await consumer.getmany(*left, timeout_ms=1000, max_records=_PAGE)
            for partition, batch in batches.items():
                _take(history, (one for one in batch if one.offset < ends[partition]), keep)
                # By what was read, not by where the consumer says that it is.
                if batch and batch[-1].offset + 1 >= ends[partition]:
                    left.discard(partition)
    finally:
        await consumer.stop()
    return history


def _take(history: History, batch: Iterable[Any], keep: Callable[[Said], bool]) -> None:
    owner = owners()
    for record in batch:
        history.records += 1
        try:
            one = Said.of_record(record)
        except (MalformedEnvelope, ValueError):
            history.unreadable += 1
            continue
        service = owner[record.topic]
        if one.event_id not in history.seen[service]:  # published twice: the first occurrence is in order
            history.seen[service].add(one.event_id)
            if keep(one):
                history.said[service].append(one)
