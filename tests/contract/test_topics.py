"""The topics against the events: one writer each, and somebody who reads."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from contracts.catalogue import EVENTS
from contracts.topics import TOPICS, Topic

FLOW = Path(__file__).parents[2] / "docs" / "flow.svg"
SERVICES = {"registration", "confirmation", "payment", "notification"}


def test_every_event_has_its_topic_and_every_topic_of_a_service_has_events() -> None:
    assert {event.topic for event in EVENTS.values()} | {"exam.clock"} == set(TOPICS)


def test_a_topic_is_written_by_the_service_it_is_named_after() -> None:
    for name, topic in TOPICS.items():
        assert topic.name == name
        if topic.owner != "chassis":
            assert name == f"exam.{topic.owner}"
            assert topic.owner in SERVICES
            assert topic.owner not in topic.consumers
            assert set(topic.consumers) <= SERVICES


def test_the_picture_shows_who_reads_whom() -> None:
    inboxes = re.findall(r'<text id="inbox-(\w+)"[^>]*>(.*?)</text>', FLOW.read_text(encoding="utf-8"))
    shown = {reader: set(re.findall(r"<tspan[^>]*>(\w+)</tspan>", words)) for reader, words in inboxes}
    assert shown == {
        reader: {topic.owner for topic in TOPICS.values() if reader in topic.consumers} for reader in SERVICES
    }


def test_the_clock_of_the_broker_has_one_partition_and_the_time_of_the_broker() -> None:
    clock = TOPICS["exam.clock"]
    assert (clock.partitions, clock.timestamps, clock.consumers) == (1, "LogAppendTime", ())
    assert clock.retention == timedelta(days=1)
    assert {topic.partitions for name, topic in TOPICS.items() if name != "exam.clock"} == {4}


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="retention_hours"):
        Topic.model_validate(
            {"name": "exam.x", "owner": "x", "consumers": [], "retention_days": 1, "retention_hours": 2}
        )
