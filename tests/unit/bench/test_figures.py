"""What a benchmark says: a goal is met by a ratio, and never by what nobody measured."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.bench import record
from deploy.bench.backlog import behind
from deploy.bench.contender import Violated
from deploy.bench.evidence import Evidence
from deploy.bench.figures import Figure, Goal, percentile
from deploy.bench.latency import between

RELAY = Figure(
    name="P4 relay / raw aiokafka",
    unit="rows/s",
    ours=60_000.0,
    peer=100_000.0,
    peer_name="raw aiokafka",
    goal=Goal("≥", 0.5),
    checked=["10 events, none lost"],
    spread={"ours": [59_000.0, 60_000.0, 61_000.0]},
)
BEGAN = datetime(2026, 11, 24, 20, 0, tzinfo=UTC)


def _run(bench: str = "streams") -> record.Run:
    return record.Run(bench, "full", BEGAN, BEGAN + timedelta(minutes=50), "two cores", 0.1, "Kafka 4")


def test_a_goal_is_met_from_its_value_on() -> None:
    assert Goal("≥", 0.5).met(0.5)
    assert not Goal("≥", 0.5).met(0.499)
    assert Goal("≤", 2).met(2.0)
    assert not Goal("≤", 2).met(2.001)


def test_the_json_of_a_row_is_what_was_promised() -> None:
    assert RELAY.as_json() == {
        "name": "P4 relay / raw aiokafka",
        "ours": 60_000.0,
        "peer": 100_000.0,
        "unit": "rows/s",
        "ratio": 0.6,
        "goal": "≥ 0.5",
        "met": True,
        "invariants": "held: 10 events, none lost",
    }
    assert [row["name"] for row in json.loads(record.as_json([RELAY, RELAY]))] == [RELAY.name] * 2


def test_a_peer_that_could_not_be_had_is_no_met_goal() -> None:
    row = dataclasses.replace(RELAY, peer=None, not_measured="RabbitMQ is not installed")
    assert not row.met
    assert row.as_json()["ratio"] is None
    assert record.verdict(row) == "not measured"
    assert "RabbitMQ is not installed" in _run().section([row])


def test_a_fast_run_that_lost_something_meets_nothing() -> None:
    row = dataclasses.replace(RELAY, violated="one event is missing")
    assert not row.met
    assert row.invariants == "violated: one event is missing"
    assert "**violated**" in _run().section([row])


def test_a_missed_goal_is_written_down_as_missed() -> None:
    row = dataclasses.replace(RELAY, ours=40_000.0)
    assert not row.met
    assert "| **no** |" in _run().section([row])


def test_a_new_run_replaces_its_own_section_and_no_other(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    record.write(_run("messages"), [dataclasses.replace(RELAY, name="a storm")], document)
    record.write(_run(), [dataclasses.replace(RELAY, name="an old figure")], document)
    record.write(_run(), [RELAY], document)
    text = document.read_text(encoding="utf-8")
    assert "a storm" in text
    assert RELAY.name in text
    assert "an old figure" not in text
    assert text.count("# Performance") == 1
    assert list(record.sections_of(text)) == ["messages", "streams"]


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (Evidence(records=9, events=9, keys=3), "10 events were said, 9 lie in the topic"),
        (Evidence(records=11, events=10, keys=3), "1 records are there twice"),
        (Evidence(records=10, events=10, keys=3, disordered=1), "1 keys of 3 are out of order"),
    ],
)
def test_what_is_missing_double_or_out_of_order_is_no_figure(found: Evidence, complaint: str) -> None:
    with pytest.raises(Violated, match=complaint):
        found.require("the relay", events=10)


def test_an_event_that_was_said_and_never_heard_is_no_latency() -> None:
    said = {"began": 0.0, "moments": [("a", 1, 2.0), ("a", 2, 3.0)]}
    assert between(said, {"moments": [("a", 1, 2.005), ("a", 2, 3.001), ("a", 1, 9.0)]}) == pytest.approx(
        [5.0, 1.0]
    )
    with pytest.raises(Violated, match="1 events of 2"):
        between(said, {"moments": [("a", 2, 3.001)]})


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert percentile(values, 99) == 99.0
    assert percentile(values, 50) == 50.0
    assert percentile(values, 100) == 100.0
    assert percentile([7.0], 99) == 7.0


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=8), st.data())
def test_exactly_so_many_events_are_left_behind(ends: list[int], data: st.DataObject) -> None:
    events = data.draw(st.integers(1, sum(ends)))
    end = dict(enumerate(ends))
    start = behind(end, events)
    assert sum(end[part] - start[part] for part in end) == events
    assert all(0 <= start[part] <= end[part] for part in end)
