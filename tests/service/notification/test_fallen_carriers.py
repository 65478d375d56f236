"""Of two carriers of SMS one is dead or slow: the other has everything, and it comes back by what it answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta

import pytest

from deploy.simulators.outage import Outage
from services.notification.app import create_app
from services.notification.domain.life import LEASE
from services.notification.domain.providers import (
    ENOUGH,
    EVERY,
    FLOOR,
    LONGEST_PAUSE,
    PAUSE,
    PROBES,
    PROBING,
    Circuit,
)
from services.notification.handlers.scoreboard import Scoreboard
from tests.service.notification.at_carriers import (
    go_on,
    knocks,
    seen,
    shares,
    sms,
    taken,
    told,
    until_sent,
)
from tests.service.notification.killing import Killed, kill_at
from tests.service.notification.system import System, expired, paid

LONG = pytest.mark.faults(long=True)  # `make test-faults` plays these
DAY = 24 * 3600


@pytest.mark.parametrize("dead", [pytest.param("sms", marks=LONG), "tencent"])
async def test_when_one_refuses_the_other_has_everything_within_two_minutes(two: System, dead: str) -> None:
    broken, well = (getattr(two.world, name) for name in (dead, "tencent" if dead == "sms" else "sms"))
    people = await told(two, 60)
    broken.throttle(3600)  # it answers, and surely takes nothing
    started = two.clock.now()
    await until_sent(two, timedelta(minutes=2))
    assert two.clock.now() - started < timedelta(minutes=2)
    assert {row["state"] for row in await sms(two)} <= {"accepted", "delivered"}
    assert all(len(two.sms_to(one)) == 2 for one in people)
    name = {"sms": "aliyun", "tencent": "tencent"}[dead]
    assert taken(two)[name] == 0
    assert sum(taken(two).values()) == 60
    assert (await shares(two))[name] <= FLOOR
    assert broken.refused, "it was reached"
    assert well.refused == {}


async def fallen(system: System, many: int = 12) -> None:
    """The second carrier says no to everything and is known to; whoever was to be told was told by the first."""
    await told(system, many)
    system.world.tencent.throttle(7 * DAY)
    await until_sent(system, timedelta(seconds=20))
    assert (await seen(system))["tencent"]["circuit"] == Circuit.PAUSED
    assert knocks(system) > 0


def recovers(system: System) -> None:
    """The second carrier works again, which nobody is told."""
    system.world.tencent.throttle(0)
    system.world.tencent.refused.clear()


@LONG
async def test_a_carrier_that_dies_is_left_alone_by_what_is_claimed_for_it_already(two: System) -> None:
    people = await told(two, 200)
    two.world.tencent.throttle(600)
    await until_sent(two, timedelta(seconds=20))
    assert ENOUGH <= knocks(two) <= two.settings.sms_in_flight, "not the hundred whose turn it was"
    assert all(len(two.sms_to(one)) == 2 for one in people)
    found = await seen(two)
    assert (found["tencent"]["why"], found["tencent"]["well"]) == ("RequestLimitExceeded", False)
    assert found["tencent"]["failed"] == knocks(two)
    assert found["aliyun"]["well"]


async def test_however_long_it_was_quiet_a_wave_costs_a_dead_carrier_only_its_probes(two: System) -> None:
    await fallen(two)
    for quiet in (timedelta(minutes=6), timedelta(hours=23)):
        await go_on(two, quiet)
        assert (await seen(two))["tencent"]["circuit"] == Circuit.WAITING
        two.world.tencent.refused.clear()
        people = await two.registered(60)
        assert knocks(two) == PROBES
        assert (await seen(two))["tencent"]["circuit"] == Circuit.PAUSED
        await until_sent(two, timedelta(seconds=2))
        assert knocks(two) == PROBES
        assert all(len(two.sms_to(one)) == 1 for one in people), "within two seconds, by the other one"


async def test_the_first_messages_after_it_works_again_are_few_and_open_the_way_for_more(two: System) -> None:
    await fallen(two)
    recovers(two)
    await go_on(two, LONGEST_PAUSE)
    before = len(two.world.tencent.messages)
    await two.registered(60)
    assert len(two.world.tencent.messages) == before + PROBES
    found = (await seen(two))["tencent"]
    assert (found["circuit"], found["share"], found["why"]) == (Circuit.RISING, FLOOR, "RequestLimitExceeded")


@LONG
async def test_under_steady_messages_it_has_its_share_again_six_minutes_after_its_last_pause(
    two: System,
) -> None:
    await fallen(two)
    recovers(two)
    await go_on(two, LONGEST_PAUSE)
    found = []
    for _ in range(6):
        await two.registered(60)
        await two.hear_receipts()
        found.append((await shares(two))["tencent"])
        await go_on(two, EVERY)
    assert found == [FLOOR, 4, 8, 16, 32, 50]
    assert (await seen(two))["tencent"] | {"tries": 0, "failed": 0} == {
        "provider": "tencent",
        "circuit": Circuit.WELL,
        "share": 50,
        "configured_share": 50,
        "well": True,
        "fell_at": None,
        "why": None,
        "paused_until": None,
        "tries": 0,
        "failed": 0,
        "slow": 0,
    }
    await go_on(two, timedelta(days=1))
    assert (await shares(two))["tencent"] == 50


@LONG
async def test_one_that_dies_again_while_its_share_rises_is_left_alone_at_once(two: System) -> None:
    await fallen(two)
    recovers(two)
    await go_on(two, LONGEST_PAUSE)
    for _ in range(4):
        await two.registered(60)
        await go_on(two, EVERY)
    assert (await shares(two))["tencent"] == 16
    two.world.tencent.throttle(3600)
    people = await two.registered(60)
    assert knocks(two) <= 60 * 0.16 * 2
    assert (await shares(two))["tencent"] == 0
    await until_sent(two, timedelta(seconds=2))
    assert all(len(two.sms_to(one)) == 1 for one in people)


async def test_two_processes_try_a_fallen_one_with_no_more_messages_than_one_does(two: System) -> None:
    await fallen(two)
    await go_on(two, LONGEST_PAUSE)
    people = await two.registered_unsent(80)
    two.world.tencent.refused.clear()
    other = create_app(two.settings)
    try:
        (theirs,) = (job for job in other.jobs.jobs if job.name == two.sms_job.name)
        await asyncio.gather(two.sms_job.run(), theirs.run())
        assert knocks(two) == PROBES
        await go_on(two, timedelta(seconds=1))
        await asyncio.gather(two.sms_job.run(), theirs.run())
        assert knocks(two) == PROBES
        assert all(len(two.sms_to(one)) == 1 for one in people)
        assert (await seen(two))["tencent"]["failed"] == 6 + PROBES, "each counted once, by whoever saw it"
    finally:
        await other.plumbing.database.dispose()


@LONG
async def test_a_fall_that_one_process_saw_counts_for_the_other(two: System) -> None:
    await fallen(two)
    two.start()  # another process of the service
    assert (await shares(two))["tencent"] == 0
    two.world.tencent.refused.clear()
    await two.registered(20)
    assert knocks(two) == 0, "it is paused"


@LONG
async def test_whose_process_dies_with_the_probes_in_its_hands_is_tried_by_another_one(
    two: System, arm: None
) -> None:
    await fallen(two)
    recovers(two)
    await go_on(two, LONGEST_PAUSE)
    people = await two.registered_unsent(20)
    kill_at("sms-claimed")
    with pytest.raises(Killed):
        await two.sms_job.run()
    kill_at("", 0)
    before = len(two.world.tencent.messages)
    two.start()
    await go_on(two, PROBING - timedelta(microseconds=1))
    await two.registered(20)
    assert len(two.world.tencent.messages) == before, "they may be on their way"
    two.clock.jump(two.clock.now() + timedelta(microseconds=1))
    await two.registered(20)
    assert len(two.world.tencent.messages) == before + PROBES
    await go_on(two, LEASE)
    await until_sent(two, timedelta(hours=2))
    assert all(len(two.sms_to(one)) == 1 for one in people)


@LONG
async def test_questions_about_what_it_may_have_are_the_probes_of_a_fallen_one(
    two: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who must ask it before anybody else may have their message asks first, a few at a time."""
    monkeypatch.setattr("services.notification.adapters.tencent.PATIENCE", 0.3)
    two.start()
    tencent = two.world.tencent
    people = await told(two, 40)
    tencent.receipts_url = None
    tencent.weather.bring(120, Outage.LOSE)
    await two.sms_job.run()
    stuck = [row for row in await sms(two) if row["ask_since"] is not None]
    assert len(stuck) == 20
    assert (await seen(two))["tencent"]["circuit"] == Circuit.PAUSED
    before = tencent.weather.reached
    two.clock.jump(two.clock.now() + timedelta(seconds=60))  # a try is due, and its pause is over
    await two.sms_job.run()
    assert tencent.weather.reached - before == PROBES
    await until_sent(two, timedelta(minutes=30))
    assert tencent.asked == PROBES + len(stuck), "once more each than it answered"
    assert all(len(two.sms_to(one)) == 2 for one in people), (
        "told once each, and once that they are registered"
    )


async def test_it_falls_at_the_first_answers_that_say_so_however_lately_all_was_well(two: System) -> None:
    await told(two, 12)
    await two.sms_job.run()
    two.world.tencent.throttle(600)
    await two.registered(12)
    assert (await shares(two))["tencent"] == 25, "half of the twelve it was given in this moment"


async def test_answers_that_were_on_their_way_when_it_fell_make_no_pause_longer(two: System) -> None:
    board, sent_at = Scoreboard({"aliyun": 50.0, "tencent": 50.0}), two.clock.now()

    async def fail() -> datetime:
        for _ in range(ENOUGH):
            board.note("tencent", two.clock.now(), sent_at=sent_at, failed=True, why="throttled")
        async with two.database.unit_of_work() as uow:
            await board.write(uow)
        (row,) = await two.rows("select paused_until from sms_providers where name = 'tencent'")
        paused_until: datetime = row["paused_until"]
        return paused_until

    paused_until = await fail()
    two.clock.jump(sent_at + timedelta(seconds=5))
    assert await fail() == paused_until


async def test_whoever_would_lose_something_is_not_among_those_who_try_a_fallen_one(two: System) -> None:
    await fallen(two)
    people = await two.registered(20)
    await go_on(two, LONGEST_PAUSE)
    await two.deliver(*(expired(one) for one in people[:10]), *(paid(one) for one in people[10:]))
    two.world.tencent.refused.clear()
    await two.sms_job.run()
    assert knocks(two) == PROBES
    refused = await two.rows("select occasion from messages where state = 'created' and tries > 0")
    assert [row["occasion"] for row in refused] == ["paid"] * PROBES


async def test_while_nobody_takes_anything_what_waits_is_left_as_it_is(two: System) -> None:
    await told(two, 80)
    two.world.sms.throttle(3600)
    two.world.tencent.throttle(3600)
    await two.sms_job.run()
    before = await sms(two)
    assert [row for row in before if row["tries"] == 0]
    assert await two.sms_job.run() == two.clock.now() + PAUSE
    assert await sms(two) == before


@LONG
async def test_slow_answers_cost_a_carrier_half_its_share(
    two: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    await told(two, 40)
    monkeypatch.setattr("services.notification.handlers.sending.SLOW", timedelta(seconds=0.2))
    monkeypatch.setattr("deploy.simulators.sms_carrier.SLOW", 0.6)
    two.world.sms.weather.bring(60, Outage.SLOW)
    await until_sent(two, timedelta(minutes=1))
    assert two.world.sms.weather.reached > 0
    found = await shares(two)
    assert found["aliyun"] < 50
    assert found["tencent"] == 50
    assert {row["state"] for row in await sms(two)} == {"accepted"}, "slow is no failure of a message"


async def test_if_both_are_away_everything_waits_and_goes_when_one_is_back(two: System) -> None:
    people = await told(two, 30)
    two.world.sms.throttle(1800)
    two.world.tencent.throttle(3600)
    started = two.clock.now()
    await until_sent(two, timedelta(minutes=30, seconds=-1))
    waiting = await sms(two)
    assert {row["state"] for row in waiting} == {"created"}
    knocked = knocks(two) + sum(two.world.sms.refused.values())
    assert knocked <= 30 + 2 * PROBES * 10, (
        "ten rounds of probes in half an hour, not one knock of each at every step"
    )
    two.clock.jump(started + timedelta(minutes=30))
    await until_sent(two, LONGEST_PAUSE)
    assert two.clock.now() - started <= timedelta(minutes=30) + LONGEST_PAUSE
    rows = await sms(two)
    assert Counter(row["state"] for row in rows).keys() <= {"accepted", "delivered", "created"}
    late = [row for row in rows if row["state"] == "created"]
    assert len(late) <= 30 // 2, "only who was tried several times waits for their own next try"
    await until_sent(two, timedelta(hours=2))
    assert all(len(two.sms_to(one)) == 2 for one in people)


@LONG
async def test_nobody_is_given_up_because_both_were_away_for_a_day(two: System) -> None:
    people = await told(two, 12)
    two.world.sms.throttle(DAY)
    two.world.tencent.throttle(DAY)
    await until_sent(two, timedelta(days=1))
    assert {row["state"] for row in await sms(two)} == {"created"}
    await until_sent(two, timedelta(days=2))
    rows = await sms(two)
    assert {row["state"] for row in rows} <= {"accepted", "delivered"}
    assert all(len(two.sms_to(one)) == 2 for one in people)
