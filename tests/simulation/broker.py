"""A broker in memory: logs by topic and partition, groups with committed offsets, producers whose acknowledgements get lost.

It claims what tests/simulation/test_broker.py asks of it and of Kafka alike: offsets from 0 without a gap, a batch whole and in
order, a group begins where it last committed, what was not committed comes again, a partition belongs to one member of a group
and goes over to the next at the committed offset. It cannot do what needs time or several machines: retention, compaction,
replication, sessions that run out (a member leaves when it is told to), transactions, quotas, headers that are null, and it
takes a batch of any size. Which member gets which partition is its own choice, and so is what `weather` does to a batch: a
real idempotent producer tries again by itself and fails only after that.
"""

from __future__ import annotations

import asyncio
import bisect
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiokafka import ConsumerRecord
from aiokafka.record.memory_records import MemoryRecords

from services.chassis.record_batch import RecordBatch

Record: TypeAlias = ConsumerRecord[bytes | None, bytes | None]
Place = tuple[str, int]
Headers = Sequence[tuple[str, bytes]]


class BrokerAway(ConnectionError):
    """The broker did not answer; whether it took the records is not known."""


@dataclass
class SimulatedBatch:
    """As aiokafka's BatchBuilder: what is appended goes out together."""

    limit: int
    records: list[tuple[bytes | None, bytes, Headers]] = field(default_factory=list)
    size: int = 0

    def append(
        self, *, key: bytes | None, value: bytes, timestamp: int | None, headers: Headers
    ) -> object | None:
        """None when the batch is full."""
        del timestamp
        size = len(key or b"") + len(value) + sum(len(name) + len(content) for name, content in headers) + 70
        if self.records and self.size + size > self.limit:
            return None
        self.size += size
        self.records.append((key, value, tuple(headers)))
        return self

    def record_count(self) -> int:
        return len(self.records)


def records_in(batch: SimulatedBatch | RecordBatch) -> Sequence[tuple[bytes | None, bytes, Headers]]:
    """What was appended to it; what the relay has packed is read as a consumer would."""
    if isinstance(batch, SimulatedBatch):
        return batch.records
    read = MemoryRecords(bytes(batch._build())).next_batch()
    return [(record.key, record.value or b"", tuple(record.headers)) for record in read or ()]


class SimulatedBroker:
    """`weather(place)` decides what becomes of a batch: `ok`, `lost` (never arrived) or `unheard` (taken, its answer lost).

    `watch(record)` is shown every record that is taken.
    """

    def __init__(self, topics: dict[str, int]) -> None:
        self.logs: dict[Place, list[Record]] = {
            (topic, number): [] for topic, partitions in topics.items() for number in range(partitions)
        }
        self.written: list[Place] = []
        """Those with any records, in order."""
        self.committed: dict[tuple[str, Place], int] = defaultdict(int)
        self._groups: dict[str, list[SimulatedMember]] = defaultdict(list)
        self.weather: Callable[[Place], str] = lambda _place: "ok"
        self.watch: Callable[[Record], None] = lambda _record: None

    def forget(self) -> None:
        """Empty, as if new."""
        for place in self.written:
            self.logs[place].clear()
        self.written.clear()
        self.committed.clear()
        self._groups.clear()

    # As a producer of aiokafka, the part that the relay uses.

    async def partitions_for(self, topic: str) -> set[int]:
        return {number for name, number in self.logs if name == topic}

    def create_batch(self) -> SimulatedBatch:
        return SimulatedBatch(limit=1 << 18)

    async def send_batch(
        self, batch: SimulatedBatch | RecordBatch, topic: str, *, partition: int
    ) -> asyncio.Future[None]:
        """A future that is done when the broker has acknowledged; raises BrokerAway."""
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        outcome = self.weather((topic, partition))
        if outcome != "lost":
            self._take((topic, partition), records_in(batch))
        if outcome == "ok":
            acknowledged.set_result(None)
        else:
            acknowledged.set_exception(BrokerAway(outcome))
        return acknowledged

    def _take(self, place: Place, records: Sequence[tuple[bytes | None, bytes, Headers]]) -> None:
        log = self.logs[place]
        if records and not log:
            bisect.insort(self.written, place)
        for key, value, headers in records:
            content: dict[str, Any] = {
                "topic": place[0],
                "partition": place[1],
                "offset": len(log),
                "timestamp": 0,
                "timestamp_type": 0,
                "key": key,
                "value": value,
                "checksum": None,
                "serialized_key_size": len(key or b""),
                "serialized_value_size": len(value),
                "headers": tuple(headers),
            }
            log.append(ConsumerRecord(**content))
            self.watch(log[-1])

    # As a group sees it.

    def member(self, group: str, topics: Sequence[str]) -> SimulatedMember:
        """The one member of its group: it begins where the group last committed."""
        self._groups.pop(group, None)
        return self.join(group, topics)

    def join(self, group: str, topics: Sequence[str]) -> SimulatedMember:
        """One more member of its group; the partitions are shared out anew."""
        member = SimulatedMember(self, group, topics)
        self._groups[group].append(member)
        self._share_out(group)
        return member

    def leave(self, member: SimulatedMember) -> None:
        """Its partitions go over to the others, from where the group last committed."""
        self._groups[member.group].remove(member)
        member.hold(())
        self._share_out(member.group)

    def _share_out(self, group: str) -> None:
        members = self._groups[group]
        shares: dict[int, list[Place]] = {number: [] for number in range(len(members))}
        for topic in sorted({topic for member in members for topic in member.topics}):
            takers = [number for number, member in enumerate(members) if topic in member.topics]
            places = sorted(place for place in self.logs if place[0] == topic)
            for turn, number in enumerate(takers):
                shares[number] += places[turn :: len(takers)]
        for number, member in enumerate(members):
            member.hold(shares[number])


class SimulatedMember:
    """A consumer with its share of the partitions of its topics."""

    def __init__(self, broker: SimulatedBroker, group: str, topics: Sequence[str]) -> None:
        self._broker = broker
        self.group = group
        self.topics = tuple(topics)
        self._position: dict[Place, int] = {}

    @property
    def places(self) -> tuple[Place, ...]:
        """Topic and partition of each it holds."""
        return tuple(self._position)

    def hold(self, places: Sequence[Place]) -> None:
        """For the broker: from now on these, and each from where the group last committed, kept or new."""
        self._position = {place: self._broker.committed[self.group, place] for place in places}

    def lag(self, place: Place) -> int:
        """Records it has not fetched."""
        return len(self._broker.logs[place]) - self._position[place]

    def waiting(self) -> list[Place]:
        logs, position = self._broker.logs, self._position
        return [
            place
            for place in self._broker.written
            if place in position and len(logs[place]) > position[place]
        ]

    async def fetch(self, place: Place, many: int) -> list[Record]:
        """The next records of a partition; the position moves behind them."""
        at = self._position[place]
        records = self._broker.logs[place][at : at + many]
        self._position[place] += len(records)
        return records

    async def commit(self, *places: Place) -> None:
        """What was fetched is done with, of these places or of all."""
        for place in places or self.places:
            self._broker.committed[self.group, place] = self._position[place]

    def restart(self) -> None:
        """A new session: from where the group last committed."""
        self.hold(self.places)

    def rewind(self, place: Place) -> None:
        """Somebody reset this group to the beginning of a partition."""
        self._broker.committed[self.group, place] = 0
        self._position[place] = 0

    @property
    def behind(self) -> int:
        """Records of its partitions that the group has not committed."""
        logs, committed = self._broker.logs, self._broker.committed
        return sum(
            len(logs[place]) - committed[self.group, place]
            for place in self._broker.written
            if place in self._position
        )
