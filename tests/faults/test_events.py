"""Events that cannot be read, that nobody knows yet, or that never work: rows 19, 21 and 22 of the fault matrix.

Parked is not lost: whatever an operator replays gives the state as if it had never been parked, row by row.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest

from contracts.catalogue import fact_of, look_up
from contracts.topics import TOPICS
from deploy.rehearsal.invariants.reading import subscriptions_of
from tests.faults import upgraded
from tests.faults.harness import Battle, fight
from tests.faults.operating import Operator
from tests.faults.spoiling import (
    SKIPPED,
    WAYS,
    Content,
    Planted,
    Planter,
    Spoilt,
    anew,
    of_type,
    planting,
    records_of,
    renamed,
    spoilt,
)

pytestmark = pytest.mark.faults

HANDLERS: Final = subscriptions_of(("registration", "confirmation", "payment", "notification"))
READ: Final = tuple(name for name, topic in TOPICS.items() if topic.consumers)
FOREIGN: Final = "kaowu.examination.seat-assigned.v1"
UPGRADED: Final = "tests.faults.upgraded"
SICK: Final = 6  # candidates whose confirmation never works, in each of two services
# A row that may not be there: what somebody's hand, or a later migration, puts into a database and nobody's code expects.
POISON: Final = {
    "notification": ("messages", "registration_id", "occasion"),
    "registration": ("registrations", "id", "confirmation"),
}


async def test_what_cannot_be_read_or_never_works_is_parked_and_an_operator_makes_it_as_if_it_never_was(
    tmp_path: Path,
) -> None:
    planted: list[Planted] = []

    async def breaks(battle: Battle) -> None:
        operator, chance = Operator(battle.system), random.Random(19)
        await battle.until(0.15)
        sick = await _poison(operator)
        async with planting(battle.system.kafka_bootstrap) as planter:
            for share in (0.2, 0.35, 0.5):
                await battle.until(share)
                await _plant(battle, planter, chance, blocking=False)
            await battle.until(0.7)
            await _plant(battle, planter, chance, blocking=True)
        planted.extend(planter.planted)
        battle.planted |= {one.place for one in planted}
        await battle.until(0.8)
        async with battle.doors_closed():
            await _look_at_what_waits(battle, operator, sick)
            await _cure(operator)
            await _empty(battle, operator)

    async def at_rest(battle: Battle) -> None:
        operator = Operator(battle.system)
        assert [await _waiting(operator, service) for service in HANDLERS] == [[]] * len(HANDLERS)
        verified = await operator.verified()
        assert not verified.differences, "\n".join(map(str, verified.differences[:20]))
        battle.reached["rebuilt and compared"] += verified.events

    fought = await fight(tmp_path, breaks, people=32, at_rest=at_rest)
    fought.holds({19: "malformed, parked", 21: "a newer major, parked", 22: "poison, parked"})
    assert fought.reached["an unknown type, skipped"]
    assert fought.reached["behind-parked"]
    assert fought.reached["rebuilt and compared"]
    fought.as_the_rules_say()
    _each_is_parked_as_it_must_be(planted, fought.evidence)


async def test_a_fact_in_a_new_form_waits_until_its_reader_is_upgraded(tmp_path: Path) -> None:
    """Row 21, as it comes in a roll-out: the writer is a version ahead. Nobody guesses, and nobody else is held up."""

    async def breaks(battle: Battle) -> None:
        system, operator = battle.system, Operator(battle.system)
        await battle.until(0.42)
        await system.restart("confirmation", module=(UPGRADED, "confirmation", "run"))
        await battle.until(0.62)
        async with battle.doors_closed():
            await battle.streams.rest()
            waiting = await operator.parked("registration")
            battle.reached["a new form, parked"] += sum(one["reason"] == "unknown-major" for one in waiting)
            battle.reached["behind a new form"] += sum(one["reason"] == "behind-parked" for one in waiting)
            assert {one["type"] for one in waiting if one["reason"] == "unknown-major"} == {upgraded.NEW}
            # Payment and notification never reacted to it in any form.
            assert [await _waiting(operator, one) for one in ("payment", "notification")] == [[], []]
            too_early = await operator.replay("registration")
            assert too_early.code == 1, "a version that does not know the new form must not take it in"
            assert len(await _waiting(operator, "registration")) == len(waiting)
            await system.restart("registration", module=(UPGRADED, "registration", "run"))
            done = await operator.replay("registration", module=UPGRADED)
            assert done.code == 0, done
            assert await _waiting(operator, "registration") == []
            battle.reached["replayed after the upgrade"] += len(waiting)

    async def at_rest(battle: Battle) -> None:
        operator = Operator(battle.system)
        assert [await _waiting(operator, service) for service in HANDLERS] == [[]] * len(HANDLERS)
        forms = await operator.ask_database(
            "confirmation", "select type, count(*) from outbox where type like '%.reviewed.%' group by 1"
        )
        assert {row[0] for row in forms} == {upgraded.OLD, upgraded.NEW}, "both forms were said"

    fought = await fight(tmp_path, breaks, people=24, at_rest=at_rest)
    fought.holds({21: "a new form, parked"})
    assert fought.reached["behind a new form"]
    assert fought.reached["replayed after the upgrade"]
    fought.as_the_rules_say()


async def _poison(operator: Operator) -> Mapping[str, list[str]]:
    """From now on a few candidates' confirmation cannot be written, in two services that must hear of it."""
    rows = await operator.ask_database(
        "confirmation",
        "select registration_id::text from cases where state = 'pre-registered' order by 1 limit $1",
        2 * SICK,
    )
    ids = [row[0] for row in rows]
    assert len(ids) == 2 * SICK
    chosen = {"notification": ids[::2], "registration": ids[1::2]}
    for service, (table, column, state) in POISON.items():
        listed = ", ".join(f"'{one}'" for one in chosen[service])
        await operator.ask_database(
            service,
            f"alter table {table} add constraint poison check ({state} <> 'confirmed' or {column} not in ({listed})) "
            "not valid",
        )
    return chosen


async def _cure(operator: Operator) -> None:
    for service, (table, _, _) in POISON.items():
        await operator.ask_database(service, f"alter table {table} drop constraint poison")


async def _plant(battle: Battle, planter: Planter, chance: random.Random, *, blocking: bool) -> None:
    """One of each kind on each topic that has records yet, somewhere between good ones. `blocking`: under the keys of real
    registrations (of payment's topic, where nothing that people can do depends on it)."""
    good = defaultdict(list)
    spoilt_before = {one.place for one in planter.planted}
    for record in await records_of(battle.system.kafka_bootstrap, *READ):
        if (record.topic, record.partition, record.offset) in spoilt_before:
            continue
        if record.key.count(b"-") == 4 and look_up(_type(record)) in _known():
            good[record.topic].append(record)
    for topic in ("exam.payment",) if blocking else READ:
        partitions, copies = itertools.cycle(range(TOPICS[topic].partitions)), good[topic]
        if not copies:
            continue
        for how in (*WAYS, "newer major", "unknown type"):
            record = chance.choice(copies)
            content = anew(Content(record.key, record.value, list(record.headers)), uuid4())
            if not blocking:
                content = renamed(content, uuid4())
            if how == "newer major":
                one = Spoilt(how, of_type(content, f"{fact_of(_type(record))}.v99"), "unknown-major")
            elif how == "unknown type":
                one = Spoilt(how, of_type(content, FOREIGN), SKIPPED)
            else:
                one = spoilt(chance, content, how)
            await planter.plant(topic, record.partition if blocking else next(partitions), one)


def _type(record: Any) -> str:
    return str((dict(record.headers).get("ce_type") or b"?").decode("utf-8", "replace"))


def _known() -> set[object]:
    return {look_up(kind) for handlers in HANDLERS.values() for kind in handlers}


async def _look_at_what_waits(battle: Battle, operator: Operator, sick: Mapping[str, list[str]]) -> None:
    async def poison_met() -> bool:
        waiting = {service: await _waiting(operator, service) for service in POISON}
        return all(
            any(one["reason"].startswith("failed: ") and one["key"] in sick[service] for one in found)
            for service, found in waiting.items()
        )

    await battle.eventually(poison_met, "an event that never works, in two services")
    for service in POISON:
        for one in await operator.parked(service):
            if one["reason"] == "behind-parked":
                battle.reached["behind-parked"] += 1
            elif one["reason"] == "unknown-major":
                battle.reached["a newer major, parked"] += 1
            elif one["reason"].startswith("malformed"):
                battle.reached["malformed, parked"] += 1
            elif one["reason"] == "failed: CheckViolationError":
                assert one["key"] in sick[service], one
                battle.reached["poison, parked"] += 1
            else:
                assert one["reason"] == "key-differs-from-event", one
    battle.reached["an unknown type, skipped"] += int(
        await battle.metric("kaowu_events_skipped", label="unknown")
    )
    # Other candidates' confirmations were told all the while.
    told = await operator.ask_database(
        "notification", "select count(distinct registration_id) from messages where occasion = 'confirmed'"
    )
    assert told[0][0] > SICK


async def _waiting(operator: Operator, service: str) -> list[dict[str, Any]]:
    rows = await operator.ask_database(service, "select reason, key from parked where status = 'parked'")
    return [dict(row) for row in rows]


async def _empty(battle: Battle, operator: Operator) -> None:
    """As an operator does it: what nobody will ever read is discarded, everything else replayed."""

    async def empty(service: str) -> None:
        if not await _waiting(operator, service):
            return
        hopeless = [
            one["id"]
            for one in await operator.parked(service)
            if (one["topic"], one["partition"], one["offset"]) in battle.planted
        ]
        await operator.discard(service, hopeless, "nobody will ever read this")
        done = await operator.replay(service)
        assert done.code == 0, done
        battle.reached["replayed"] += int(done.out.split()[1])
        assert await _waiting(operator, service) == []

    await asyncio.gather(*map(empty, HANDLERS))


def _each_is_parked_as_it_must_be(planted: list[Planted], evidence: Any) -> None:
    """In every service that reads the topic, by whether it must, and with its reason."""
    found = {(one.service, one.topic, one.partition, one.offset): one for one in evidence.parked}
    wrong = []
    for one in planted:
        kind = dict(one.spoilt.content.headers).get("ce_type") or b""
        for service in TOPICS[one.topic].consumers:
            mine = {fact_of(known) for known in HANDLERS[service]}
            concerned = (
                one.spoilt.reason.startswith("malformed-envelope")
                or fact_of(kind.decode("utf-8", "replace")) in mine
            )
            row = found.get((service, *one.place))
            if row is None and (one.spoilt.reason and concerned):
                wrong.append(f"{one.spoilt.how} on {one.topic}: {service} has not parked it")
            if row is not None and not (one.spoilt.reason and concerned):
                wrong.append(f"{one.spoilt.how} on {one.topic}: {service} has parked it ({row.reason})")
            if row is not None and not row.reason.startswith(one.spoilt.reason):
                wrong.append(f"{one.spoilt.how} on {one.topic}: {service} calls it {row.reason}")
    assert not wrong, "\n".join(wrong[:20])
    assert {one.spoilt.how for one in planted} == {*WAYS, "newer major", "unknown type"}
