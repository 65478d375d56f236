"""Everything comes again: each event three times and out of order, whole topics from the beginning, topics that were lost
and are filled from the logs. Rows 17, 18, 23 and 24 of the fault matrix. Nothing may change, and nobody may be told twice.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from contracts.topics import TOPICS
from deploy.local.environment import SERVICES
from deploy.local.topics import make_topics
from deploy.rehearsal.invariants.reading import subscriptions_of
from deploy.replay.standing import standing
from deploy.replay.topics import republish, set_offsets
from services.chassis.wire import Wires
from tests.faults.harness import Battle, fight
from tests.faults.operating import Operator
from tests.faults.spoiling import Content, Spoilt, planting, records_of

pytestmark = pytest.mark.faults

HANDLERS: Final = subscriptions_of(SERVICES)
READ: Final = tuple(name for name, topic in TOPICS.items() if topic.consumers)
_TABLES: Final = """
select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'public' and c.relkind in ('r', 'p') and not c.relispartition
  and c.relname not in ('relay_cursor', 'alembic_version')
  -- What left more than a day ago is forgotten by time, also by a process that has just started.
  and c.relname <> 'sms_left' order by 1
"""


async def test_each_event_three_times_in_any_order_and_whole_topics_once_more_change_nothing(
    tmp_path: Path,
) -> None:
    """Rows 17, 18 and 23."""

    async def breaks(battle: Battle) -> None:
        for share in (0.4, 0.75):
            await battle.until(share)
            async with battle.doors_closed():
                before = await _before(battle)
                await _twice_more(battle, random.Random(17))
                _same(before, await _state(battle))
                battle.reached["delivered three times, changed nothing"] += 1
        await battle.until(0.9)
        async with battle.doors_closed():
            before = await _before(battle)
            await _read_everything_again(battle)
            _same(before, await _state(battle))
            battle.reached["read from the beginning, changed nothing"] += 1

    fought = await fight(tmp_path, breaks, people=24, at_rest=_rebuilt_alike)
    fought.holds(
        {
            17: "delivered three times, changed nothing",
            18: "an older version after a newer",
            23: "read from the beginning, changed nothing",
        }
    )
    assert fought.reached["every event was read again"]
    fought.as_the_rules_say()


async def test_topics_that_were_lost_are_filled_from_the_logs(tmp_path: Path) -> None:
    """Row 24: Kafka's directory is gone. The services' logs are not, and they are what the topics are made of."""

    async def breaks(battle: Battle) -> None:
        system = battle.system
        await battle.until(0.6)
        async with battle.doors_closed():
            before = await _before(battle)
            said = len(await records_of(system.kafka_bootstrap, *READ))
            battle.streams.faulted = True
            await _all_stopped(battle)
            await system.stop_broker()
            shutil.rmtree(system.data / "kafka" / "logs")
            await system.start_broker()
            await make_topics(system.kafka_bootstrap)
            assert await records_of(system.kafka_bootstrap, *READ) == []
            battle.reached["the topics were lost"] += said
            async with standing(system.data) as place:
                published = await republish(place)
            assert sum(published.values()) == len(await records_of(system.kafka_bootstrap, *READ))
            await asyncio.gather(*(system.restart(name) for name in SERVICES))
            battle.streams.faulted = False
            _same(before, await _state(battle))
            battle.reached["filled from the logs, changed nothing"] += 1

    fought = await fight(tmp_path, breaks, people=24, at_rest=_rebuilt_alike)
    fought.holds({24: "filled from the logs, changed nothing"})
    assert fought.reached["the topics were lost"]
    fought.as_the_rules_say()


async def _rebuilt_alike(battle: Battle) -> None:
    verified = await Operator(battle.system).verified()
    assert not verified.differences, "\n".join(map(str, verified.differences[:20]))


async def _before(battle: Battle) -> Mapping[str, list[str]]:
    """The state that nothing but what is done to it can change.

    Who sees to messages without a receipt looks every few real seconds, and the virtual clock has jumped days since: a process
    that starts makes up for one step of it (asks the carrier, lets the message run out).
    """
    state = await _state(battle)
    while True:
        await battle.system.restart("notification")
        before, state = state, await _state(battle)
        if state == before:
            return state


async def _state(battle: Battle) -> Mapping[str, list[str]]:
    """At rest: every row of every service, and how many messages have left."""
    await battle.streams.rest()
    operator = Operator(battle.system)
    found: dict[str, list[str]] = {}
    for service in SERVICES:
        for (table,) in await operator.ask_database(service, _TABLES):
            rows = await operator.ask_database(
                service, f"select to_jsonb(t)::text as row from {table} t order by row"
            )
            found[f"{service}.{table}"] = [row[0] for row in rows]
    outside = battle.system.outside
    assert outside is not None
    async with Wires(connections=1, patience=30.0, limit=1 << 26) as wires:
        for what in ("sms", "tencent", "mail"):
            answer = await wires.request("GET", f"{outside.control_url}/sim/{what}/book?limit=1", {})
            found[what] = [str(orjson.loads(answer.body)["totals"])]
    return found


def _same(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> None:
    """Says which rows are others."""
    other = {
        what: (sorted(set(before[what]) - set(after[what])), sorted(set(after[what]) - set(before[what])))
        for what in before
        if before[what] != after[what]
    }
    assert not other, "\n".join(f"{what}: {gone[:3]} became {new[:3]}" for what, (gone, new) in other.items())


async def _twice_more(battle: Battle, chance: random.Random) -> None:
    """Everything that lies on the topics once more as it was, and once more with each key's order broken."""
    before = await battle.metric("kaowu_events_duplicate")
    again = await records_of(battle.system.kafka_bootstrap, *READ)
    by_key = defaultdict(list)
    for record in again:
        by_key[record.topic, record.key].append(record)
    disordered = []
    for records in by_key.values():
        first = list(records)
        chance.shuffle(records)
        battle.reached["an older version after a newer"] += records != first
        disordered += records
    async with planting(battle.system.kafka_bootstrap) as planter:
        for record in (*again, *disordered):
            content = Content(record.key, record.value, list(record.headers))
            await planter.plant(record.topic, record.partition, Spoilt("once more", content, ""))

    async def dropped() -> bool:
        return await battle.metric("kaowu_events_duplicate") - before >= 2 * _deliveries(again)

    await battle.eventually(dropped, "every event dropped twice")


def _deliveries(records: Sequence[Any]) -> int:
    """How many times a handler is given one of these."""
    return sum(
        dict(record.headers)["ce_type"].decode() in handlers
        for record in records
        for service, handlers in HANDLERS.items()
        if service in TOPICS[record.topic].consumers
    )


async def _read_everything_again(battle: Battle) -> None:
    """Somebody resets every group to the beginning."""
    system = battle.system
    deliveries = _deliveries(await records_of(system.kafka_bootstrap, *READ))
    battle.streams.faulted = True
    await _all_stopped(battle)
    groups = {group for topic in TOPICS.values() for group in topic.consumers}
    await asyncio.gather(*(set_offsets(system.kafka_bootstrap, group, {}) for group in groups))
    await asyncio.gather(*(system.restart(name) for name in SERVICES))
    battle.streams.faulted = False

    async def read_again() -> bool:
        # These processes are new: all they have seen they have seen before.
        return await battle.metric("kaowu_events_duplicate") >= deliveries

    await battle.eventually(read_again, "everything read again")
    assert await battle.metric("kaowu_events_handled") == 0
    battle.reached["every event was read again"] += deliveries


async def _all_stopped(battle: Battle) -> None:
    await asyncio.gather(*(battle.system.services[name].process.stop() for name in SERVICES))
