"""The broker of the local system."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.kafka import LocalKafka
from tests.support.kafka import TestKafka

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
