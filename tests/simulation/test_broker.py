"""What the simulated broker claims, asked of it and of the real one alike.

Every test here runs twice. Where they differ the simulation would prove something about a broker that does not exist.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from services.chassis.relay import producer
from tests.simulation.broker import Headers, Record, SimulatedBroker, SimulatedMember
from tests.support.eventually import eventually
from tests.support.kafka import TestKafka

pytestmark = pytest.mark.broker

Content = tuple[bytes | None, bytes, Headers]
GROUP_WITHIN = 20.0  # seconds for a real group to agree


class Member(Protocol):
    """One consumer of a group, offsets committed by hand."""

    async def places(self) -> set[int]:
        """The partitions that it has now."""
        ...

    async def fetch(self, partition: int, many: int) -> Sequence[Record]: ...

    async def commit(self) -> None: ...

    async def rewind(self, partition: int) -> None: ...

    async def leave(self) -> None: ...


class Broker(Protocol):
    """One topic of four partitions, its producer and its groups."""

    topic: str
    kafka: Any

    async def join(self, group: str) -> Member: ...


class _Simulated:
    topic = "contract"

    def __init__(self) -> None:
        self.kafka = SimulatedBroker({self.topic: 4, "another": 2})

    async def join(self, group: str) -> Member:
        return _SimulatedMember(self.kafka, self.kafka.join(group, [self.topic]))


class _SimulatedMember:
    def __init__(self, broker: SimulatedBroker, member: SimulatedMember) -> None:
        self._broker, self._member = broker, member

    async def places(self) -> set[int]:
        return {number for _, number in self._member.places}

    async def fetch(self, partition: int, many: int) -> Sequence[Record]:
        return await self._member.fetch(("contract", partition), many)

    async def commit(self) -> None:
        await self._member.commit()

    async def rewind(self, partition: int) -> None:
        self._member.rewind(("contract", partition))

    async def leave(self) -> None:
        self._broker.leave(self._member)


class _Real:
    def __init__(self, bootstrap: str, topic: str, kafka: Any) -> None:
        self._bootstrap, self.topic, self.kafka = bootstrap, topic, kafka
        self.members: list[_RealMember] = []

    async def join(self, group: str) -> Member:
        consumer = AIOKafkaConsumer(
            self.topic,
            bootstrap_servers=self._bootstrap,
            group_id=f"{self.topic}-{group}",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            heartbeat_interval_ms=100,
            metadata_max_age_ms=1000,
        )
        await consumer.start()
        self.members.append(_RealMember(consumer, self.topic))
        return self.members[-1]


class _RealMember:
    def __init__(self, consumer: AIOKafkaConsumer, topic: str) -> None:
        self._consumer, self._topic = consumer, topic
        self._left = False

    async def places(self) -> set[int]:
        return {place.partition for place in self._consumer.assignment()}

    async def fetch(self, partition: int, many: int) -> Sequence[Record]:
        place = TopicPartition(self._topic, partition)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 1.0
        found: list[Record] = []
        while len(found) < many and loop.time() < deadline:
            batches = await self._consumer.getmany(place, timeout_ms=100, max_records=many - len(found))
            found += batches.get(place, [])
        return found

    async def commit(self) -> None:
        await self._consumer.commit()

    async def rewind(self, partition: int) -> None:
        place = TopicPartition(self._topic, partition)
        await self._consumer.commit({place: 0})
        self._consumer.seek(place, 0)

    async def leave(self) -> None:
        if not self._left:
            self._left = True
            await self._consumer.stop()


@pytest.fixture(params=["simulated", "kafka"])
async def broker(request: pytest.FixtureRequest, kafka: TestKafka) -> AsyncIterator[Broker]:
    if request.param == "simulated":
        yield _Simulated()
        return
    topic = await kafka.topic("contract", partitions=4)
    async with producer(kafka.bootstrap) as publishing:
        found = _Real(kafka.bootstrap, topic, publishing)
        yield found
        for member in found.members:
            with contextlib.suppress(Exception):
                await member.leave()


def numbered(count: int, prefix: str = "n") -> list[Content]:
    return [
        (b"key", f"{prefix}{number}".encode(), [("number", str(number).encode())]) for number in range(count)
    ]


def values(records: Sequence[Record]) -> list[str]:
    return [(record.value or b"").decode() for record in records]


async def send(broker: Broker, contents: Sequence[Content], partition: int = 0) -> None:
    """One batch, acknowledged."""
    batch = broker.kafka.create_batch()
    for key, value, headers in contents:
        assert batch.append(key=key, value=value, timestamp=None, headers=headers) is not None
    await (await broker.kafka.send_batch(batch, broker.topic, partition=partition))


async def agreed(shares: Mapping[str, Member]) -> dict[str, set[int]]:
    """Who has which partitions once every partition has exactly one owner and everybody has some."""
    found: dict[str, set[int]] = {}

    async def settled() -> bool:
        for name, member in shares.items():
            found[name] = await member.places()
        every = sorted(number for places in found.values() for number in places)
        return every == [0, 1, 2, 3] and all(found.values())

    await eventually(settled, within=GROUP_WITHIN)
    return found


async def test_partitions_of_a_topic(broker: Broker) -> None:
    assert set(await broker.kafka.partitions_for(broker.topic)) == {0, 1, 2, 3}


async def test_a_batch_lies_whole_and_in_order_with_offsets_from_zero(broker: Broker) -> None:
    headers: Headers = [("ce_id", b"1"), ("ce_type", "类型".encode()), ("ce_id", b"again"), ("empty", b"")]
    await send(broker, [(b"a", b"first", headers), (None, b"second", []), (b"a", b"third", [])])
    await send(broker, numbered(2))
    await send(broker, [(b"b", b"elsewhere", [])], partition=1)
    member = await broker.join("reader")
    await agreed({"only": member})
    records = await member.fetch(0, 10)
    assert [record.offset for record in records] == [0, 1, 2, 3, 4]
    assert values(records) == ["first", "second", "third", "n0", "n1"]
    assert [record.key for record in records[:3]] == [b"a", None, b"a"]
    assert [tuple(record.headers) for record in records[:2]] == [tuple(headers), ()]
    assert {(record.topic, record.partition) for record in records} == {(broker.topic, 0)}
    assert [(one.offset, one.value) for one in await member.fetch(1, 10)] == [(0, b"elsewhere")]


async def test_a_full_batch_says_so_and_keeps_what_it_took(broker: Broker) -> None:
    batch, large = broker.kafka.create_batch(), b"x" * 40_000
    taken = 0
    while batch.append(key=b"k", value=large, timestamp=None, headers=[]) is not None:
        taken += 1
        assert taken < 20
    assert taken == (1 << 18) // 40_000
    await (await broker.kafka.send_batch(batch, broker.topic, partition=2))
    member = await broker.join("reader")
    await agreed({"only": member})
    assert len(await member.fetch(2, 20)) == taken


async def test_no_more_than_asked_for_and_the_rest_next(broker: Broker) -> None:
    await send(broker, numbered(5))
    member = await broker.join("reader")
    await agreed({"only": member})
    assert values(await member.fetch(0, 2)) == ["n0", "n1"]
    assert values(await member.fetch(0, 10)) == ["n2", "n3", "n4"]
    assert await member.fetch(0, 1) == []
    await send(broker, numbered(1, "later"))
    assert values(await member.fetch(0, 10)) == ["later0"]


async def test_what_was_not_committed_comes_again(broker: Broker) -> None:
    await send(broker, numbered(4))
    before = await broker.join("reader")
    await agreed({"before": before})
    await before.fetch(0, 2)
    await before.commit()
    assert values(await before.fetch(0, 10)) == ["n2", "n3"]
    await before.leave()  # the commit for these two was never made
    after = await broker.join("reader")
    await agreed({"after": after})
    assert values(await after.fetch(0, 10)) == ["n2", "n3"]


async def test_groups_do_not_know_each_other(broker: Broker) -> None:
    await send(broker, numbered(2))
    one = await broker.join("one")
    await agreed({"one": one})
    await one.fetch(0, 10)
    await one.commit()
    other = await broker.join("other")
    await agreed({"other": other})
    assert values(await other.fetch(0, 10)) == ["n0", "n1"]


async def test_a_group_reset_to_the_beginning_reads_everything_again(broker: Broker) -> None:
    await send(broker, numbered(3))
    member = await broker.join("reader")
    await agreed({"only": member})
    await member.fetch(0, 10)
    await member.commit()
    await member.rewind(0)
    assert values(await member.fetch(0, 10)) == ["n0", "n1", "n2"]


async def test_partitions_go_over_to_another_member_at_the_committed_offset(broker: Broker) -> None:
    """Both ways: to one that joins, and back from one that leaves. What a member keeps comes again too."""
    for partition in range(4):
        await send(broker, numbered(4, f"p{partition}-"), partition)
    first = await broker.join("shared")
    await agreed({"first": first})
    for partition in range(4):
        await first.fetch(partition, 1)
    await first.commit()
    for partition in range(4):
        assert values(await first.fetch(partition, 1)) == [f"p{partition}-1"]  # taken in, not committed
    second = await broker.join("shared")
    shares = await agreed({"first": first, "second": second})
    for member, name in ((first, "first"), (second, "second")):
        for partition in shares[name]:
            assert values(await member.fetch(partition, 2)) == [f"p{partition}-1", f"p{partition}-2"]
    await second.commit()
    await second.leave()
    await agreed({"first": first})
    for partition in range(4):
        expected = ["3"] if partition in shares["second"] else ["1", "2", "3"]
        assert values(await first.fetch(partition, 10)) == [f"p{partition}-{number}" for number in expected]
