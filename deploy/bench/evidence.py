"""What a measurement left in a topic: nothing lost, nothing double, every key in order.

Read by a client that none of the measured uses.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from deploy.bench.contender import Failed, Violated

_PATIENCE = 30.0  # seconds without a record, before the reading is given up


@dataclass
class Evidence:
    """`records` lie there, of `events` different ids; `disordered` keys whose versions do not come as 1, 2, 3, …"""

    records: int = 0
    events: int = 0
    keys: int = 0
    disordered: int = 0

    def require(self, what: str, *, events: int, in_order: bool = True, once: bool = True) -> str:
        """One sentence of what was checked. Raises Violated where it is violated."""
        if self.events != events:
            raise Violated(f"{what}: {events} events were said, {self.events} lie in the topic")
        if once and self.records != self.events:
            raise Violated(f"{what}: {self.records - self.events} records are there twice")
        if in_order and self.disordered:
            raise Violated(f"{what}: {self.disordered} keys of {self.keys} are out of order")
        twice = "" if once else f", {self.records - self.events} twice"
        order = "every key in order" if not self.disordered else f"{self.disordered:,} of them out of order"
        if self.keys == self.events:
            order = "one event each"
        return f"{events:,} events, none lost{twice or ', none twice'}; {self.keys:,} keys, {order}"


def ends(bootstrap: str, topic: str) -> dict[int, int]:
    """The next offset of each partition."""
    consumer = _consumer(bootstrap)
    try:
        parts = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in parts}
    finally:
        consumer.close()


def stand_at(bootstrap: str, group: str, topic: str, offsets: Mapping[int, int]) -> None:
    """Let a group that has no member begin there."""
    consumer = _consumer(bootstrap, group)
    try:
        consumer.commit(
            offsets=[TopicPartition(topic, part, offset) for part, offset in offsets.items()],
            asynchronous=False,
        )
    finally:
        consumer.close()


def look(bootstrap: str, topic: str, start: Mapping[int, int]) -> Evidence:
    """Everything in the topic from these offsets to its end."""
    end = ends(bootstrap, topic)
    open_parts = {p for p in end if end[p] > start.get(p, 0)}
    consumer = _consumer(bootstrap)
    found = Evidence()
    ids: set[Any] = set()
    versions: dict[Any, int] = {}
    wrong: set[Any] = set()
    try:
        consumer.assign([TopicPartition(topic, p, start.get(p, 0)) for p in sorted(open_parts)])
        last = time.monotonic()
        while open_parts:
            records = consumer.consume(5000, timeout=0.1)  # waits for all of them, or for so long
            if records:
                last = time.monotonic()
            elif time.monotonic() - last > _PATIENCE:
                raise Failed(f"{topic} cannot be read to its end")
            for record in records:
                if record.error():
                    raise Failed(f"{topic} cannot be read: {record.error()}")
                part, offset = record.partition() or 0, record.offset() or 0
                if offset + 1 >= end[part]:
                    open_parts.discard(part)
                if offset >= end[part]:
                    continue
                headers: dict[str, Any] = dict(record.headers() or [])
                found.records += 1
                event, key = headers["ce_id"] or b"", record.key() or b""
                if event in ids:
                    continue
                ids.add(event)
                version = int(headers["ce_sequence"] or 0)
                if version != versions.get(key, 0) + 1:
                    wrong.add(key)
                versions[key] = version
    finally:
        consumer.close()
    found.events, found.keys, found.disordered = len(ids), len(versions), len(wrong)
    return found


def _consumer(bootstrap: str, group: str = "evidence") -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.min.bytes": 1,
            "queued.min.messages": 100_000,
        }
    )
