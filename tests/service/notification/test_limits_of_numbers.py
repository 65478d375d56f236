"""What one number may get and what a day may cost: what has no room waits, and is never called sent."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from contracts.event import Event
from services.notification.domain.limits import Leaving
from services.notification.domain.parts import parts
from services.notification.repository import limits
from tests.conftest import ServiceDatabase
from tests.service.notification.at_carriers import TEN, sms, told, until_sent
from tests.service.notification.system import System, due, expired, paid, running

LONG = pytest.mark.faults(long=True)  # `make test-faults` plays these


async def same_text_to(system: System, phone: str) -> list[Event]:
    """Two people with one number and one tail of their registration number: their messages are the same, letter for letter."""
    people = await system.registered(2, phone=phone, number="202400004321")
    await system.hear_receipts()
    return [due(one) for one in people]


async def test_the_same_text_to_one_number_waits_thirty_seconds_and_is_not_called_sent(
    system: System,
) -> None:
    events = await same_text_to(system, "13812345678")
    await system.sms_job.run()
    system.at(TEN)
    await system.deliver(*events)
    started = system.clock.now()
    next_at = await system.sms_job.run()
    assert Counter(row["state"] for row in await sms(system)) == {"accepted": 1, "created": 1}
    assert next_at == started + timedelta(seconds=30)
    system.clock.jump(started + timedelta(seconds=29, microseconds=999_999))
    await system.sms_job.run()
    assert Counter(row["state"] for row in await sms(system)) == {"accepted": 1, "created": 1}
    system.clock.jump(started + timedelta(seconds=30))
    await system.sms_job.run()
    rows = await sms(system)
    assert [row["tries"] for row in rows] == [1, 1]
    assert {row["state"] for row in rows} <= {"accepted", "delivered"}
    assert system.world.sms.refused == {}, "the carrier never had to refuse one"


@LONG
async def test_with_two_carriers_the_second_takes_what_the_first_may_not_have_yet(two: System) -> None:
    events = await same_text_to(two, "13812345678")
    two.at(TEN)
    await two.deliver(*events)
    await two.sms_job.run()
    assert Counter(row["provider"] for row in await sms(two)) == {"aliyun": 1, "tencent": 1}


@LONG
async def test_the_carriers_daily_cap_delays_and_gives_nothing_up(
    service_database: ServiceDatabase, tmp_path: Path, carrier_keys: Path
) -> None:
    """Our own limits are off, so that the carrier is the one to say no: that is a delay, not a try."""
    async with running(
        await service_database("notification"),
        tmp_path,
        carrier_keys,
        both=True,
        sms_share_of_tencent=100,
        tencent_per_number=None,
        sms_same_text_seconds=0,
    ) as system:
        people = await system.registered(14, phone="13812345678")
        rows = await sms(system, "pre-registered")
        assert Counter(row["state"] for row in rows)["created"] == 4
        assert system.world.tencent.refused == {"LimitExceeded.PhoneNumberDailyLimit": 4}
        waiting = [row for row in rows if row["state"] == "created"]
        assert {(row["tries"], row["carrier_code"]) for row in waiting} == {
            (0, "LimitExceeded.PhoneNumberDailyLimit")
        }
        await until_sent(system, timedelta(days=2))
        await system.hear_receipts()
        assert {row["state"] for row in await sms(system, "pre-registered")} == {"delivered"}
        assert len(people) == 14


async def test_of_two_processes_that_claim_for_one_number_the_second_sees_what_the_first_let_go(
    system: System,
) -> None:
    number, other = b"n" * 32, b"m" * 32
    one = Leaving("aliyun", number, "t", b"x", system.clock.now())

    async def second() -> list[Leaving]:
        async with system.database.unit_of_work() as uow:
            return await limits.lately(uow, [other, number])

    async with system.database.unit_of_work() as uow:
        assert await limits.lately(uow, [number, other]) == []
        late = asyncio.create_task(second())
        await asyncio.sleep(0.2)
        assert not late.done(), "it waits for the first to commit"
        await limits.leave(uow, [(uuid7(), one)])
    assert [left.number for left in await late] == [number]


@LONG
async def test_no_number_is_kept_with_what_left_only_a_keyed_index(system: System) -> None:
    (one,) = await system.registered(phone="13812345678")
    (row,) = await system.rows("select * from sms_left")
    assert len(row["number"]) == 32
    assert b"13812345678" not in bytes(row["number"])
    assert row["message_id"] == (await system.messages(one, "pre-registered"))["sms"]["message_id"]
    system.clock.jump(system.clock.now() + timedelta(days=3))
    await system.forget_job.run()
    assert await system.rows("select * from sms_left") == []


async def test_the_signature_that_a_carrier_puts_in_front_is_counted_and_paid_too(system: System) -> None:
    (one,) = await system.registered()
    (before,) = await system.rows("select parts from sms_days")
    system.at("2023-12-05 12:30")
    await system.deliver(paid(one))
    await system.sms_job.run()
    sms = (await system.messages(one, "paid"))["sms"]
    (after,) = await system.rows("select parts from sms_days")
    assert parts(sms["body"]) == 1
    assert sms["parts"] == after["parts"] - before["parts"] == 2


@LONG
async def test_what_was_surely_not_taken_counts_for_no_limit_and_costs_nothing(system: System) -> None:
    await told(system, 3)
    system.world.sms.throttle(30)
    before = await system.rows("select count(*) from sms_left")
    parts = await system.rows("select coalesce(sum(parts), 0) as parts from sms_days")
    await system.sms_job.run()
    assert {row["state"] for row in await sms(system)} == {"created"}
    assert await system.rows("select count(*) from sms_left") == before
    assert await system.rows("select coalesce(sum(parts), 0) as parts from sms_days") == parts


async def test_when_the_days_budget_is_nearly_spent_ordinary_messages_wait_and_forfeitures_still_go(
    service_database: ServiceDatabase, tmp_path: Path, carrier_keys: Path
) -> None:
    async with running(
        await service_database("notification"), tmp_path, carrier_keys, sms_parts_a_day=30
    ) as system:
        people = await system.registered(8)  # three parts each
        assert {row["state"] for row in await sms(system, "pre-registered")} == {"delivered"}
        (spent,) = await system.rows("select parts from sms_days")
        await system.deliver(*(expired(one) for one in people[:2]), *(due(one) for one in people[2:]))
        with capture_logs() as logs:
            await system.sms_job.run()
        assert spent["parts"] == 24
        assert [log["event"] for log in logs].count("sms-budget-spent") == 1, "the alarm, once"
        assert [row["state"] for row in await sms(system, "expired")] == ["accepted"] * 2
        rows = await sms(system)
        assert {row["state"] for row in rows} == {"created"}
        assert {row["tries"] for row in rows} == {0}
        assert system.world.sms.messages[-1].template != "", "and nothing else left"
        assert len(system.world.sms.messages) == 10
        system.at("2023-12-06 00:00")
        await until_sent(system, timedelta(hours=12))
        assert {row["state"] for row in await sms(system)} == {"accepted"}
