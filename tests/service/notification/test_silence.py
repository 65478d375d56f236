"""An SMS whose receipt does not come: its carrier is asked by our own reference, and after 72 hours it has run out."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts.notification import Delivered, Undeliverable
from deploy.simulators.outage import Outage
from deploy.simulators.sms_carrier import SILENT_PREFIX
from services.notification.domain.life import ASK_AFTER, RUNS_OUT_AFTER
from tests.service.notification.system import System, receipts

SILENT = f"{SILENT_PREFIX}0001"
TICK = timedelta(microseconds=1)
LONG = pytest.mark.faults(long=True)  # `make test-faults` plays these


async def accepted_at(system: System, one: UUID) -> datetime:
    sms = await of_sms(system, one)
    assert sms["state"] == "accepted"
    at: datetime = sms["state_at"]
    return at


async def of_sms(system: System, one: UUID) -> dict[str, Any]:
    return (await system.messages(one, "pre-registered"))["sms"]


async def follow(system: System, at: datetime) -> datetime | None:
    """The moment comes; whatever silence calls for is done, and the carrier asked where it is its turn."""
    system.clock.jump(at)
    next_at = await system.follow_job.run()
    await system.sms_job.run()
    return next_at


@LONG
async def test_a_silent_carrier_is_asked_at_each_set_time_and_once_at_each(system: System) -> None:
    (one,) = await system.registered(phone=SILENT)
    since = await accepted_at(system, one)
    assert await system.follow_job.run() == since + ASK_AFTER[0]
    for number, after in enumerate(ASK_AFTER):
        asked = system.world.sms.asked
        await follow(system, since + after - TICK)
        assert system.world.sms.asked == asked
        next_at = await follow(system, since + after)
        assert system.world.sms.asked > asked, "it looks through every day since it left"
        asked = system.world.sms.asked
        await follow(system, since + after + TICK)
        assert system.world.sms.asked == asked
        assert next_at == since + (*ASK_AFTER, RUNS_OUT_AFTER)[number + 1]
    assert len(system.sms_to(one)) == 1, "asking sends nothing"


async def test_what_was_just_accepted_is_looked_at_before_a_clock_that_jumps_has_passed_it(
    system: System,
) -> None:
    (one,) = await system.registered(phone=SILENT)
    follow = system.follow_job
    assert follow.awake.is_set(), "nothing was due"
    follow.awake.clear()
    follow.due_at = await follow.run()
    assert follow.due_at == await accepted_at(system, one) + ASK_AFTER[0]
    await system.registered(phone=SILENT)
    assert not follow.awake.is_set(), "it runs before then anyway"
    follow.due_at += timedelta(hours=71)
    await system.registered(phone=SILENT)
    assert follow.awake.is_set()


async def test_a_receipt_that_was_lost_is_learned_by_asking_a_quarter_of_an_hour_later(
    system: System,
) -> None:
    system.world.sms.receipts_url = None
    (one,) = await system.registered()
    since = system.world.sms.messages[-1].at
    assert (await of_sms(system, one))["state"] == "accepted"
    await follow(system, max(since + ASK_AFTER[0], system.clock.now()))
    assert (await of_sms(system, one))["state"] == "delivered"
    assert [type(event) for event in await system.told() if event.channel == "sms"] == [Delivered]
    assert await system.follow_job.run() is None


async def test_after_72_hours_without_a_word_it_has_run_out_and_that_is_said_once(system: System) -> None:
    (one,) = await system.registered(phone=SILENT)
    since = await accepted_at(system, one)
    await follow(system, since + ASK_AFTER[-1])
    await follow(system, since + RUNS_OUT_AFTER - TICK)
    assert (await of_sms(system, one))["state"] == "accepted"
    at = since + RUNS_OUT_AFTER
    await follow(system, at)
    await follow(system, at)
    sms = await of_sms(system, one)
    assert (sms["state"], sms["state_at"], sms["reason_code"]) == ("expired", at, "no-receipt")
    (said,) = [event for event in await system.told() if event.channel == "sms"]
    assert isinstance(said, Undeliverable)
    assert said.reason_code == "no-receipt"
    assert len(system.sms_to(one)) == 1


@LONG
@pytest.mark.parametrize(("success", "end"), [(True, "delivered"), (False, "undelivered")])
async def test_a_receipt_still_counts_after_that(system: System, *, success: bool, end: str) -> None:
    (one,) = await system.registered(phone=SILENT)
    since = await accepted_at(system, one)
    await follow(system, since + ASK_AFTER[-1])
    await follow(system, since + RUNS_OUT_AFTER)
    assert (await of_sms(system, one))["state"] == "expired"
    system.clock.jump(since + RUNS_OUT_AFTER + timedelta(hours=8))
    late = receipts(
        system.sms_to(one), success=success, code="DELIVERED" if success else "MOBILE_NOT_ON_SERVICE"
    )
    for _ in range(2):
        await system.push(late)
    sms = await of_sms(system, one)
    assert (sms["state"], sms["reason_code"]) == (end, None if success else "number-not-in-use")
    said = [type(event) for event in await system.told() if event.channel == "sms"]
    assert said == [Undeliverable, Delivered if success else Undeliverable]


@LONG
async def test_after_a_standstill_of_days_it_is_asked_about_before_it_is_given_up(system: System) -> None:
    system.world.sms.receipts_url = None
    (lost,) = await system.registered()
    (silent,) = await system.registered(phone=SILENT)
    await follow(system, system.clock.now() + timedelta(days=5))
    assert (await of_sms(system, lost))["state"] == "delivered"
    assert (await of_sms(system, silent))["state"] == "accepted"
    await follow(system, system.clock.now() + timedelta(minutes=1))
    assert (await of_sms(system, silent))["state"] == "expired"


@LONG
async def test_a_carrier_that_does_not_answer_the_last_question_holds_up_the_end_for_an_hour(
    system: System,
) -> None:
    (one,) = await system.registered(phone=SILENT)
    since = await accepted_at(system, one)
    system.clock.jump(since + ASK_AFTER[-1])
    system.world.sms.weather.bring(7200, Outage.REFUSE)
    await follow(system, since + ASK_AFTER[-1])
    end = since + RUNS_OUT_AFTER + timedelta(hours=1)
    assert await follow(system, end - TICK) == end - TICK + timedelta(minutes=1)
    assert (await of_sms(system, one))["state"] == "accepted"
    await follow(system, end)
    assert (await of_sms(system, one))["state"] == "expired"


@LONG
async def test_many_are_followed_by_set_and_those_with_a_receipt_are_left_alone(system: System) -> None:
    heard = await system.registered(30)
    silent = await system.registered(30, phone=SILENT)
    for one in heard:
        assert (await of_sms(system, one))["state"] == "delivered"
    at = system.clock.now() + timedelta(hours=71)
    await follow(system, at)
    await follow(system, at + timedelta(hours=1))
    rows = await system.rows(
        "select state, count(*) as many from messages where channel = 'sms' group by state order by state"
    )
    assert [(row["state"], row["many"]) for row in rows] == [("delivered", 30), ("expired", 30)]
    assert {(await of_sms(system, one))["asks"] for one in silent} == {len(ASK_AFTER)}
