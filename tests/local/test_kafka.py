"""The broker of the local system."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from deploy.local.kafka import Detour, LocalKafka
from deploy.local.processes import StartFailed, free_port
from deploy.local.rungs import start_broker
from tests.support.kafka import TestKafka
from tests.support.proxy import UP, Proxy, Slicer

pytestmark = pytest.mark.broker


async def test_what_was_published_is_read_back_in_order_with_its_headers(kafka: TestKafka) -> None:
    topic = await kafka.topic(partitions=1)
    records = [(b"k", str(number).encode(), [("ce_type", b"t")]) for number in range(50)]
    await kafka.produce(topic, records)
    read = await kafka.read(topic)
    assert [record.value for record in read] == [value for _, value, _ in records]
    assert read[0].headers == (("ce_type", b"t"),)


async def test_topics_outlive_a_crash_of_the_broker(tmp_path: Path) -> None:
    broker = LocalKafka(tmp_path / "kafka")
    await broker.start()
    try:
        outside = TestKafka(broker)
        await outside.create({"exam.kept": 1})
        await outside.produce("exam.kept", [(b"k", b"v", [])])
        await broker.kill()
        await broker.start()
        assert [record.value for record in await outside.read("exam.kept")] == [b"v"]
    finally:
        await broker.stop()
    assert not broker.process.alive


async def test_a_second_start_does_not_need_the_ports_of_the_first(tmp_path: Path) -> None:
    broker = LocalKafka(tmp_path / "kafka")
    await broker.start()
    first = broker.port
    await TestKafka(broker).create({"exam.kept": 1})
    await broker.stop()
    again = LocalKafka(tmp_path / "kafka")
    await again.start()
    try:
        assert again.port != first
        assert await TestKafka(again).read("exam.kept") == []
    finally:
        await again.stop()


async def test_whoever_comes_by_the_detour_stays_on_it(tmp_path: Path) -> None:
    """A client is told where the broker is: by the detour it is told the proxy, and never finds the straight way."""
    port = free_port()
    async with Proxy(port) as proxy:
        broker = LocalKafka(tmp_path / "kafka", detour=Detour(port, proxy.port))
        await broker.start()
        try:
            straight = TestKafka(broker)
            topic = await straight.topic(partitions=1)
            await straight.produce(topic, [(b"k", b"straight", [])])
            assert proxy.accepted == 0
            detoured = AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{proxy.port}")
            with proxy.poisoned(UP, Slicer(1 << 16)) as passing:
                await detoured.start()
                await detoured.send_and_wait(topic, b"by the detour" * 100)
                await detoured.stop()
            assert passing.done > 2
            assert [r.value for r in await straight.read(topic)] == [b"straight", b"by the detour" * 100]
        finally:
            await broker.stop()


async def test_a_detour_that_cannot_be_is_refused(tmp_path: Path) -> None:
    for given in (
        {"KAOWU_KAFKA_DETOUR": "29100"},
        {"KAOWU_KAFKA_DETOUR": "29100:29101", "KAOWU_KAFKA_RUNG": "containers"},
    ):
        with pytest.raises(StartFailed, match="KAOWU_KAFKA_DETOUR"):
            await start_broker(tmp_path, given)
