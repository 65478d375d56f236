"""The benchmark on itself, tiny and without peers: it measures, and it sees what is lost, double or out of order."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.bench import cases, evidence, filling, flooding
from deploy.bench.backlog import behind
from deploy.bench.contender import Contender, Violated
from deploy.bench.draining import drain, examine, stretches
from deploy.bench.relaying import over_a_copy
from deploy.bench.stage import Stage
from deploy.local.databases import DatabaseLogin
from tests.support.kafka import Record, TestKafka
from tests.support.postgres import TestDatabases

pytestmark = pytest.mark.broker
_NUMBERS = itertools.count(10_000)  # beside those of the session's databases and groups


@pytest.fixture
async def stage(kafka: TestKafka, databases: TestDatabases, tmp_path: Path) -> AsyncIterator[Stage]:
    """On the session's servers, with empty topics."""
    templates = {name: await databases.migrated(name) for name in (filling.SERVICE, cases.SERVICE)}
    made = Stage(
        tmp_path,
        kafka.broker,
        databases.server,
        _numbers=_NUMBERS,
        _templates={name: login.database for name, login in templates.items()},
    )
    await made.fresh_topics()
    yield made
    await made.drop(*templates.values())


async def test_a_relay_is_measured_over_a_copy_and_what_it_left_is_read(stage: Stage) -> None:
    full = await stage.migrated(filling.SERVICE)
    rows = await filling.fill(full, 2_000)

    def relay(login: DatabaseLogin) -> Contender:
        return stage.contender("relay", "deploy.bench.ours.relay", database=login.url, rows=rows)

    result, held = await over_a_copy(stage, full, relay, rows)
    assert result["rows"] == rows
    assert result["seconds"] > 0
    assert held == "2,000 events, none lost, none twice; 500 keys, every key in order"
    with pytest.raises(Violated, match="1999 events were said, 2000 lie"):
        evidence.look(stage.bootstrap, filling.TOPIC, {}).require("relay", events=rows - 1)
    await stage.drop(full)


async def test_a_topic_is_drained_and_every_event_is_in_effect_once(stage: Stage) -> None:
    await flooding.flood(stage, 4_000)
    drained = await drain(stage, 4_000, members=1, within=120)
    assert 0 < drained.events <= 3_600  # the first tenth does not count
    assert drained.cost > 0
    assert drained.held == (
        "4,000 events, none lost, none twice; 1,000 keys, every key in order; each claimed, in effect and answered once"
    )
    # What follows lies in the topic, but this database has seen none of it.
    untouched = await cases.database(stage)
    with pytest.raises(Violated, match="of 4000 events 0 were claimed, 0 took effect, 0 were answered"):
        await examine(stage, untouched, 4_000, {})
    await stage.drop(untouched)


async def test_a_part_of_a_topic_is_drained_from_where_the_group_stands(stage: Stage) -> None:
    await flooding.flood(stage, 4_000)
    end = evidence.ends(stage.bootstrap, cases.SOURCE)
    drained = await drain(stage, 3_000, members=1, within=120, start=behind(end, 3_000))
    assert drained.held.startswith("3,000 events, none lost, none twice")


async def test_a_group_stands_still_at_the_last_mark_and_what_it_did_until_then_is_whole(
    stage: Stage,
) -> None:
    await flooding.flood(stage, 60_000)
    first, second = await stretches(stage, (1_000, 12_000, 24_000), members=2, within=120)
    assert first.held == second.held
    handled = int(first.held.split()[0].replace(",", ""))
    # What comes before the first mark counts for neither, and the rest stays in the topic.
    assert 12_000 < first.events + second.events < handled < 60_000
    with pytest.raises(Violated, match=r"12000 events lay in the topic, \d+ were handled"):
        await stretches(stage, (1_000, 12_000), members=1, within=120, whole=True)


async def test_the_evidence_sees_what_is_missing_double_or_out_of_order(
    stage: Stage, kafka: TestKafka
) -> None:
    await flooding.flood(stage, 40)
    whole = await kafka.read(cases.SOURCE)
    assert len(whole) == 40
    first, second = _two_of_one_key(whole)
    spoilt = {
        "40 events were said, 39 lie in the topic": [one for one in whole if one is not first],
        "1 records are there twice": [*whole, first],
        "1 keys of 10 are out of order": [_other(one, first, second) for one in whole],
    }
    for complaint, records in spoilt.items():
        await stage.fresh_topics()
        await kafka.produce(cases.SOURCE, [(one.key, one.value or b"", one.headers) for one in records])
        with pytest.raises(Violated, match=complaint):
            evidence.look(stage.bootstrap, cases.SOURCE, {}).require("the flood", events=40)


def _two_of_one_key(records: list[Record]) -> tuple[Record, Record]:
    """Its first and its second version."""
    first = records[0]
    return first, next(one for one in records[1:] if one.key == first.key)


def _other(one: Record, first: Record, second: Record) -> Record:
    """Where one of the two stood stands the other."""
    return second if one is first else first if one is second else one
