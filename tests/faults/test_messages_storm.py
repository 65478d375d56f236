"""A storm of messages through a service that is killed, frozen and doubled, and topics that are read once more: row 8 at
every point of the way, row 10 and row 23 for what leaves the system. Nobody is lost, nobody is told again uncounted.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from contracts.topics import TOPICS
from deploy.replay.topics import set_offsets
from services.notification.handlers.delivery import PATIENCE
from tests.faults.telling import NOTIFICATION, Person, Telling, telling

pytestmark = pytest.mark.faults

MINUTE: Final = timedelta(minutes=1)
WAVE: Final = 120  # people who are told something in each life
# Where a message that is on its way can be left alone, from the event that tells of it to its receipt.
POINTS: Final = (
    "consumer-in-transaction",
    "consumer-before-offset-commit",
    "before-commit",
    "after-commit",
    "sms-claimed",
    "email-claimed",
    "sms-accepted",
    "email-accepted",
    "sms-before-record",
    "email-before-record",
    "sms-recorded",
    "email-recorded",
    "relay-before-publish",
    "relay-after-ack",
)
# The same for what a carrier says of a message later; each with what makes it happen.
LATER: Final = ("sms-asked", "receipts-taken", "accepted-asked", "receipts-pulled", "bounces-recorded")


@pytest.mark.parametrize(
    ("seed", "kills"),
    [
        (8, 2),
        pytest.param(53, 8, marks=pytest.mark.faults(long=True)),
        pytest.param(2024, 8, marks=pytest.mark.faults(long=True)),
    ],
)
async def test_a_service_killed_at_seeded_moments_of_a_storm_tells_everybody_and_counts_what_it_tells_twice(
    tmp_path: Path, seed: int, kills: int
) -> None:
    """At crash points and, by SIGKILL, wherever it just is; each life finds what the one before left and new people besides."""
    chance = random.Random(seed)
    async with telling(tmp_path) as told:
        people: list[Person] = []
        await told.away()
        for _ in range(kills):
            people += (new := await told.know(WAVE))
            await told.say(told.expired, new, heard=False)
            await _dies(told, chance)
            await told.away()
            told.reached["killed with messages still to be told"] += bool(await told.unfinished(people))
            await told.passes(2 * MINUTE)
        await told.system.restart(NOTIFICATION)
        await told.rests()
        await told.taken_over()
        twice = await told.nothing_lost("expired", people)
        counted = sum(row["ambiguous"] for row in await told.of("expired", people))
    print(f"seed {seed}: {dict(told.reached)}; told twice: {dict(twice)}, counted as possible: {counted}")
    assert told.reached["killed"] == kills
    assert told.reached["killed with messages still to be told"] >= kills / 2
    assert told.reached["under way when it was killed"]
    assert told.reached["a carrier had it and nobody here knew"]
    assert not twice["aliyun"] + twice["tencent"], "both carriers could be asked"
    assert twice["smtp"] <= counted


async def _dies(told: Telling, chance: random.Random) -> None:
    way = chance.choice((*POINTS[4:12], ""))
    if way:
        one_by_one = way.endswith("-accepted")
        await told.dies_at(way, chance.randint(1, 60 if one_by_one else 1))
        return
    copies = (await told.copies()).total()
    await told.system.restart(NOTIFICATION, wait=False)

    async def goes_on() -> bool:
        return (await told.copies()).total() > copies

    await told.eventually(goes_on, "the storm going on")
    await asyncio.sleep(chance.uniform(0, 0.1))
    await told.killed()
    told.reached["killed while messages left"] += 1


@pytest.mark.faults(long=True)
async def test_killed_at_each_point_of_its_way_in_turn_no_message_is_lost(tmp_path: Path) -> None:
    """From the event that tells of it until what became of it is published."""
    async with telling(tmp_path) as told:
        everybody: list[Person] = []
        for point in POINTS:
            everybody += (people := await told.know(20))
            await told.away()
            await told.say(told.expired, people, heard=False)
            await told.dies_at(point)
            await told.rests()
            await told.taken_over()
            twice = await told.nothing_lost("expired", people)
            assert not twice["aliyun"] + twice["tencent"], point
            assert point.startswith("email") or not twice["smtp"] or twice["smtp"] <= 20, point
        await told.nothing_lost("expired", everybody)
    assert [told.reached[f"died at {point}"] for point in POINTS] == [1] * len(POINTS)
    assert told.reached["under way when it was killed"]


@pytest.mark.faults(long=True)
async def test_killed_while_it_takes_in_what_became_of_a_message_it_learns_it_the_next_time(
    tmp_path: Path,
) -> None:
    """Answers to our questions, receipts that are pushed and pulled, and mail that comes back."""
    async with telling(tmp_path) as told:
        for point in LATER:
            people = await told.know(20, email=lambda n: "gone@example.cn" if n % 2 else f"p{n}@example.cn")
            await told.away()
            await told.say(told.expired, people, heard=False)
            if point == "sms-asked":
                await told.dies_at("sms-accepted", 10)
                await told.away()
                await told.passes(2 * MINUTE)
            elif point == "accepted-asked":
                for name in ("sms", "tencent"):
                    await told.outside(f"{name}/receipts-url", url=None)
                await told.system.restart(NOTIFICATION)
                await told.rests()
                await told.away()
                await told.passes(15 * MINUTE)
            elif point in ("receipts-pulled", "bounces-recorded"):
                await told.system.restart(NOTIFICATION)
                await told.rests()
                await told.away()
                await told.passes(2 * MINUTE)
            else:
                await told.arm(point)
                await told.rests()
                _jump(told, timedelta(seconds=10))
                await told.dead(point, told.system.services[NOTIFICATION])
                await told.system.restart(NOTIFICATION)
            if point != "receipts-taken":
                await told.dies_at(point)
            await told.taken_over()
            await told.passes(60 * MINUTE, 20 * MINUTE)
            rows = await told.of("expired", people)
            copies = await told.copies()
            for row in rows:
                expected = (
                    "undelivered"
                    if row["channel"] == "email" and copies and _came_back(told, row)
                    else "delivered"
                )
                assert row["state"] == expected, (point, row["channel"], row["state"], row["reason_code"])
            assert not [row for row in rows if copies[str(row["message_id"])] > 1 + row["ambiguous"]]
    assert [told.reached[f"died at {point}"] for point in LATER] == [1] * len(LATER)


def _came_back(told: Telling, row: Any) -> bool:
    return next(one for one in told.people if one.id == row["registration_id"]).email.startswith("gone@")


async def test_a_database_that_dies_under_a_storm_costs_nobody_a_message_and_nobody_hears_one_twice(
    tmp_path: Path,
) -> None:
    """Row 26. What carriers had answered by then is kept until it can be written down: no mail goes out again."""
    async with telling(tmp_path) as told:
        people = await told.know(400)
        await told.say(told.expired, people, heard=False)

        async def mails_leave() -> bool:
            return bool(await told.rows("state = 'sending' and channel = 'email'")) and bool(
                await told.mails()
            )

        await told.eventually(mails_leave, "the storm")
        await told.database_killed()
        await told.rests()
        for found in ("not-recorded", "job-failed", "relay-interrupted"):
            told.reached["found no database"] += await told.log_lines(found)
        await told.taken_over()
        assert not await told.nothing_lost("expired", people)
    assert told.reached["the database was killed"]
    assert told.reached["found no database"]


def _jump(told: Telling, by: timedelta) -> None:
    """Time goes on by so much at once, and nobody waits for rest."""
    assert told.system.clock_control is not None
    told.system.clock_control.jump(told.system.clock.now() + by)


async def _forfeited_by_night(told: Telling) -> list[Person]:
    """Four hundred whose SMS all come due at eight in the morning."""
    await told.passes(timedelta(hours=13))
    people = await told.know(400)
    await told.say(told.expired, people)
    await told.rests()
    return people


async def test_two_processes_share_a_storm_and_when_one_is_killed_the_other_does_its_part_once(
    tmp_path: Path,
) -> None:
    """Eight o'clock: all SMS of the night come due in one moment."""
    async with telling(tmp_path) as told:
        people = await _forfeited_by_night(told)
        name = await told.system.add_replica(NOTIFICATION, {"KAOWU_CRASH_AT": "sms-accepted:50"})
        other = told.system.replicas[name]
        one = told.system.services[NOTIFICATION]
        await told.passes(timedelta(hours=8, minutes=55))
        assert not await told.sms(), "by night no SMS leaves"
        _jump(told, 5 * MINUTE)
        await told.dead("sms-accepted", other)
        await told.rests()
        told.reached["the one that lived sent"] += int(await told.metric("kaowu_message_tries", one))
        told.reached["the one that died sent"] += 50
        await told.taken_over()
        twice = await told.nothing_lost("expired", people)
    assert not twice["aliyun"] + twice["tencent"], "told twice"
    assert told.reached["under way when it was killed"]
    assert told.reached["the one that lived sent"]
    assert told.reached["aliyun had it and nobody here knew"]
    assert told.reached["tencent had it and nobody here knew"]


@pytest.mark.faults(long=True)
async def test_a_process_frozen_beyond_its_lease_sends_nothing_more_of_what_another_took_over(
    tmp_path: Path,
) -> None:
    """Row 10. It is frozen in the middle of a storm, and longer than a message of its batch may wait for its turn."""
    async with telling(tmp_path) as told:
        people = await _forfeited_by_night(told)
        frozen = told.system.services[NOTIFICATION]
        _jump(told, timedelta(hours=9))

        async def some_left() -> bool:
            return bool(await told.rows("state = 'sending' and channel = 'sms'")) and bool(await told.sms())

        await told.eventually(some_left, "the storm")
        told.system.suspend(NOTIFICATION)
        began = asyncio.get_running_loop().time()
        told.reached["under way when it froze"] += len(await told.rows("state = 'sending'"))
        other = told.system.replicas[await told.system.add_replica(NOTIFICATION)]

        async def all_sent() -> bool:
            """Nobody can be asked for rest while one of them is frozen: time goes on until the other one has done it all."""
            _jump(told, MINUTE)
            await asyncio.sleep(0.5)
            return not await told.unfinished(people)

        await told.eventually(all_sent, "the other one taking over")
        told.reached["the other one sent"] += int(await told.metric("kaowu_message_tries", other))
        before = await told.copies()
        await asyncio.sleep(max(0.0, began + PATIENCE - asyncio.get_running_loop().time()) + 1)
        told.system.resume(NOTIFICATION)
        await told.eventually(lambda: _answers(told, frozen), "the frozen one awake")
        await told.passes(10 * MINUTE, MINUTE)
        assert await told.copies() == before, "it went on with what was no longer its own"
        twice = await told.nothing_lost("expired", people)
    assert not twice["aliyun"] + twice["tencent"]
    assert told.reached["under way when it froze"]
    assert told.reached["the other one sent"]


async def _answers(told: Telling, one: Any) -> bool:
    return bool(await told.ready(one))


@pytest.mark.parametrize("remembered", [True, False], ids=["", "with its inbox lost"])
async def test_every_topic_read_again_from_the_beginning_sends_nothing(
    tmp_path: Path, *, remembered: bool
) -> None:
    """Row 23. Even if nobody remembered which events were taken in: a message is once for each person, fact and channel."""
    async with telling(tmp_path) as told:
        lost, lifted, found = await told.know(40), await told.know(40), await told.know(40)
        await told.say(told.expired, [*lost, *lifted, *found])
        await told.say(told.reinstated, lifted)
        await told.say(told.found_paid, found)
        await told.say(told.paid, found)
        await told.taken_over()
        before, standings = await told.copies(), await _standings(told)
        states = sorted((row["message_id"], row["state"]) for row in await told.rows())
        await told.system.services[NOTIFICATION].process.stop()
        if not remembered:
            await told.database.execute("delete from inbox")
        assert NOTIFICATION in {group for topic in TOPICS.values() for group in topic.consumers}
        await set_offsets(told.system.kafka_bootstrap, NOTIFICATION, {})
        await told.system.restart(NOTIFICATION)
        counter = "kaowu_events_duplicate" if remembered else "kaowu_events_handled"
        said = told.told.total()

        async def read_again() -> bool:
            return await told.metric(counter) >= said

        await told.eventually(read_again, "every event read again")
        told.reached["events that were read again"] += said
        await told.passes(60 * MINUTE, 10 * MINUTE)
        assert await told.copies() == before
        assert sorted((row["message_id"], row["state"]) for row in await told.rows()) == states
        assert await _standings(told) == standings
    assert before.total() > 0
    assert told.reached["events that were read again"] == 240


async def _standings(told: Telling) -> Sequence[Any]:
    return list(
        await told.database.fetch("select registration_id, standing, pay_by from recipients order by 1")
    )
