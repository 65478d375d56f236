"""Topics for tests on the session's real broker."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.local.kafka import LocalKafka
from tests.support.eventually import eventually

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Record:
    """What lies in a topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp: int


class TestKafka:
    """The broker, and what a test wants to do to it from outside."""

    __test__ = False

    def __init__(self, broker: LocalKafka) -> None:
        self.broker = broker
        self._numbers = itertools.count(1)

    @property
    def bootstrap(self) -> str:
        return self.broker.bootstrap

    def name(self, prefix: str = "test") -> str:
        """A topic or group nobody else uses."""
        return f"{prefix}-{next(self._numbers)}"

    async def topic(self, prefix: str = "test", *, partitions: int = 4, log_append_time: bool = False) -> str:
        name = self.name(prefix)
        await self.create({name: partitions}, log_append_time=log_append_time)
        return name

    async def create(self, topics: dict[str, int], *, log_append_time: bool = False) -> None:
        configs = {"message.timestamp.type": "LogAppendTime"} if log_append_time else {}
        async with self.admin() as admin:
            await admin.create_topics(
                [NewTopic(name, partitions, 1, topic_configs=configs) for name, partitions in topics.items()]
            )

    async def fresh(self, topics: dict[str, int]) -> None:
        """Topics with fixed names (those of the contracts), emptied for this test."""
        async with self.admin() as admin:
            existing = set(await admin.list_topics())
            if old := sorted(existing & set(topics)):
                await admin.delete_topics(old)

                async def gone() -> bool:
                    return not set(old) & set(await admin.list_topics())

                await eventually(gone, within=20)
        await self.create(topics)

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def produce(
        self,
        topic: str,
        records: Sequence[tuple[bytes | None, bytes, Headers]],
        *,
        partition: int | None = None,
    ) -> None:
        """(key, value, headers) each, in order."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, enable_idempotence=True)
        await producer.start()
        try:
            for key, value, headers in records:
                await producer.send_and_wait(
                    topic, value, key=key, headers=list(headers), partition=partition
                )
        finally:
            await producer.stop()

    async def read(self, topic: str) -> list[Record]:
        """Everything that lies in the topic now, partition by partition."""
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=self.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        await consumer.start()
        found: list[Record] = []
        try:
            ends = await consumer.end_offsets(sorted(consumer.assignment()))
            reached = dict.fromkeys(ends, 0)
            while any(reached[part] < end for part, end in ends.items()):
                for part, records in (await consumer.getmany(timeout_ms=500)).items():
                    reached[part] = records[-1].offset + 1
                    found.extend(
                        Record(
                            part.topic,
                            part.partition,
                            r.offset,
                            r.key,
                            r.value,
                            tuple(r.headers),
                            r.timestamp,
                        )
                        for r in records
                    )
        finally:
            await consumer.stop()
        return sorted(found, key=lambda record: (record.partition, record.offset))
