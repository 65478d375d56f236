"""Two carriers of SMS: one dead or slow, an answer that is unclear, limits of a number, a budget, receipts by both ways."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from contracts.event import Event
from deploy.simulators.outage import Outage
from deploy.simulators.sms_carrier import DEAD_PREFIX
from services.notification.domain.life import LEASE
from services.notification.domain.limits import Leaving
from services.notification.domain.providers import FLOOR, REST
from services.notification.repository import limits
from tests.conftest import ServiceDatabase
from tests.service.notification.killing import kill_at
from tests.service.notification.system import System, due, expired, running
from tests.service.notification.test_asking import Backups
from tests.support.postgres import TestDatabases

TEN = "2024-02-01 10:00"
LONG = pytest.mark.faults(long=True)  # `make test-faults` plays these


@pytest.fixture
async def two(service_database: ServiceDatabase, tmp_path: Path, carrier_keys: Path) -> AsyncIterator[System]:
    """The service with an account at both, half of the messages each."""
    async with running(await service_database("notification"), tmp_path, carrier_keys, both=True) as started:
        yield started


async def told(system: System, many: int, at: str = TEN, **contact: str | None) -> list[UUID]:
    """So many people who are to be told that they must pay; nothing was sent yet."""
    people = await system.registered(many, **contact)
    await system.hear_receipts()
    system.at(at)
    await system.deliver(*(due(one) for one in people))
    return people


async def sms(system: System, occasion: str = "due") -> list[Any]:
    return await system.rows(
        "select * from messages where channel = 'sms' and occasion = $1 order by message_id", occasion
    )


async def until_sent(system: System, within: timedelta) -> int:
    """The SMS job's turns until nothing is due within this time; how many turns."""
    until, turns = system.clock.now() + within, 0
    while True:
        next_at = await system.sms_job.run()
        turns += 1
        if next_at is None or next_at > until:
            return turns
        system.clock.jump(max(next_at, system.clock.now()))


def taken(system: System) -> dict[str, int]:
    """How many messages of the occasion at hand each carrier took."""
    books = {"aliyun": system.world.sms.messages, "tencent": system.world.tencent.messages}
    return {name: sum("应缴考试费" in one.text for one in book) for name, book in books.items()}


async def shares(system: System) -> dict[str, float]:
    answer = await system.call("GET", "/office/messages/providers", "office")
    return {one["provider"]: one["share"] for one in answer.json()["items"]}


async def test_both_carry_their_share_and_every_message_arrives_whatever_way_its_receipt_names_it(
    two: System,
) -> None:
    await told(two, 40)
    await two.send()
    assert taken(two) == {"aliyun": 20, "tencent": 20}
    assert Counter(row["provider"] for row in await sms(two)) == {"aliyun": 20, "tencent": 20}
    await two.hear_receipts()
    assert {row["state"] for row in await sms(two)} == {"delivered"}
    texts = {one.text for one in (*two.world.sms.messages, *two.world.tencent.messages)}
    assert texts == {row["body"] for row in await two.rows("select body from messages where channel = 'sms'")}


@LONG
async def test_a_dead_number_at_the_second_carrier_is_learned_from_its_receipt(two: System) -> None:
    two.world.sms.weather.bring(3600, Outage.LOSE)  # so that the second one gets it, whoever's turn it is
    await told(two, 1, phone=f"{DEAD_PREFIX}0007")
    row = (await two.rows("select * from messages where channel = 'sms' and occasion = 'pre-registered'"))[0]
    if row["provider"] == "aliyun":
        await until_sent(two, timedelta(hours=2))
    await two.send()
    await two.hear_receipts()
    found = [row for row in await sms(two) if row["provider"] == "tencent"]
    assert [(row["state"], row["reason_code"]) for row in found] == [("undelivered", "number-not-in-use")]


# A carrier that fails


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


@LONG
async def test_a_dead_carrier_is_not_stormed_and_its_share_drifts_back(two: System) -> None:
    await told(two, 60)
    two.world.tencent.throttle(600)
    await until_sent(two, timedelta(minutes=2))
    reached = sum(two.world.tencent.refused.values())
    assert reached <= 40
    fell = two.clock.now()
    assert (await shares(two))["tencent"] <= FLOOR
    answer = await two.call("GET", "/office/messages/providers", "ops")
    seen = {one["provider"]: one for one in answer.json()["items"]}
    assert seen["tencent"]["why"] == "RequestLimitExceeded"
    assert not seen["tencent"]["well"]
    assert seen["aliyun"]["well"]
    assert seen["tencent"]["failed"] >= reached > 0
    two.clock.jump(fell + timedelta(minutes=11))
    before = taken(two)
    later = await two.registered(40)
    two.world.tencent.refused.clear()
    await two.deliver(*(due(one) for one in later))
    await until_sent(two, timedelta(minutes=2))
    some = taken(two)["tencent"] - before["tencent"]
    assert 0 < some < 20, "not all at once"
    assert two.world.tencent.refused == {}
    two.clock.jump(two.clock.now() + REST + timedelta(minutes=15))
    assert await shares(two) == {"aliyun": 50.0, "tencent": 50.0}


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


@LONG
async def test_if_both_are_away_everything_waits_and_goes_when_one_is_back(two: System) -> None:
    people = await told(two, 30)
    two.world.sms.throttle(1800)
    two.world.tencent.throttle(3600)
    for _ in range(40):
        next_at = await two.sms_job.run()
        if next_at is None:
            break
        two.clock.jump(max(next_at, two.clock.now()))
    assert {row["state"] for row in await sms(two)} <= {"accepted", "delivered"}
    assert all(len(two.sms_to(one)) == 2 for one in people)
    assert sum(two.world.sms.refused.values()) + sum(two.world.tencent.refused.values()) < 300


@LONG
async def test_a_fall_that_one_process_saw_counts_for_the_other(two: System) -> None:
    await told(two, 40)
    two.world.tencent.throttle(3600)
    await two.sms_job.run()
    two.start()  # another process of the service
    assert (await shares(two))["tencent"] <= FLOOR
    before = sum(two.world.tencent.refused.values())
    later = await two.registered(20)
    await two.deliver(*(due(one) for one in later))
    await two.sms_job.run()
    assert sum(two.world.tencent.refused.values()) == before, "it is paused"


# An answer that is unclear


@pytest.mark.parametrize("how", [Outage.LOSE, pytest.param(Outage.SWALLOW, marks=LONG)])
@pytest.mark.parametrize("dead", ["sms", pytest.param("tencent", marks=LONG)])
async def test_a_message_whose_answer_was_lost_goes_to_nobody_else_before_that_carrier_was_asked(
    two: System, dead: str, how: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for adapter in ("aliyun", "tencent"):
        monkeypatch.setattr(f"services.notification.adapters.{adapter}.PATIENCE", 0.3)
    two.start()
    broken = getattr(two.world, dead)
    people = await told(two, 10)
    broken.receipts_url = None
    broken.weather.bring(400, how)  # also asking has no answer, several times
    await two.sms_job.run()
    assert broken.weather.reached >= 5
    mine = {"sms": "aliyun", "tencent": "tencent"}[dead]
    unclear = [row for row in await sms(two) if row["provider"] == mine]
    assert {(row["state"], row["ambiguous"]) for row in unclear} == {("created", 1)}
    assert all(row["ask_since"] is not None for row in unclear)
    await two.hear_receipts()
    await until_sent(two, timedelta(hours=1))
    assert broken.asked >= len(unclear), "it was asked"
    assert all(len(two.sms_to(one)) == 2 for one in people), "no second copy"
    rows = {row["message_id"]: row for row in await sms(two)}
    for row in unclear:
        after = rows[row["message_id"]]
        assert (after["state"], after["provider"], after["ambiguous"]) == ("delivered", mine, 0)


@pytest.mark.parametrize("dead", [pytest.param("sms", marks=LONG), "tencent"])
async def test_a_message_that_the_carrier_says_it_never_had_is_sent_after_all_once(
    two: System, dead: str
) -> None:
    broken = getattr(two.world, dead)
    people = await told(two, 10)
    broken.weather.bring(20, Outage.REFUSE)  # 503: nobody can know from that whether it was taken
    await until_sent(two, timedelta(hours=1))
    assert broken.weather.reached >= 5
    assert broken.asked >= 5
    assert {row["state"] for row in await sms(two)} <= {"accepted", "delivered"}
    assert all(len(two.sms_to(one)) == 2 for one in people)


@LONG
async def test_a_carrier_that_gives_no_reference_back_cannot_be_asked_and_nothing_is_sent_twice(
    two: System,
) -> None:
    two.world.tencent.gives_context = False
    people = await told(two, 10)
    two.world.tencent.receipts_url = None
    two.world.tencent.weather.bring(5, Outage.LOSE)
    await two.sms_job.run()
    await two.hear_receipts()
    await until_sent(two, timedelta(hours=4))
    rows = [row for row in await sms(two) if row["provider"] == "tencent"]
    assert rows
    assert {row["state"] for row in rows} == {"created"}
    assert {row["carrier_code"] for row in rows} == {"receipts without our reference"}
    assert all(len(two.sms_to(one)) == 2 for one in people)


async def test_killed_between_accepted_and_recorded_the_next_process_asks_whoever_had_it(
    two: System, arm: None
) -> None:
    people = await told(two, 12)
    kill_at("sms-before-record")
    with pytest.raises(BaseException):  # noqa: B017, PT011
        await two.sms_job.run()
    kill_at("", 0)
    assert sum(taken(two).values()) == 12
    two.world.sms.receipts_url = two.world.tencent.receipts_url = None
    await two.hear_receipts()
    two.start()
    two.clock.jump(two.clock.now() + LEASE)
    await until_sent(two, timedelta(hours=1))
    assert two.world.sms.asked == 6
    assert two.world.tencent.asked == 6
    rows = await sms(two)
    assert {(row["state"], row["ambiguous"]) for row in rows} == {("delivered", 0)}
    assert all(len(two.sms_to(one)) == 2 for one in people)


async def test_what_one_took_and_has_no_receipt_of_may_go_out_again_after_a_restore_and_is_counted(
    two: System, databases: TestDatabases
) -> None:
    """Aliyun lists what it took; Tencent only what it has a receipt of."""
    people = await two.registered(8)
    await two.hear_receipts()
    two.at(TEN)
    backups = Backups(two, databases)
    try:
        backup = await backups.take()
        records = await two.deliver(*(due(one) for one in people))
        two.world.sms.manners.never = two.world.tencent.manners.never = True
        await two.sms_job.run()
        first = {row["registration_id"]: row["provider"] for row in await sms(two)}
        await backups.restore(backup, *records)
        await until_sent(two, timedelta(hours=1))
        rows = {row["registration_id"]: row for row in await sms(two)}
        assert set(first.values()) == {"aliyun", "tencent"}
        for one, provider in first.items():
            again = provider == "tencent"
            assert (len(two.sms_to(one)), rows[one]["ambiguous"]) == (2 + again, int(again)), provider
    finally:
        await backups.drop()


# Receipts


async def test_a_receipt_that_is_faster_than_our_own_note_of_its_number_is_kept_for_it(two: System) -> None:
    (one,) = await two.registered()
    two.at(TEN)
    message_id = (await two.rows("select message_id from messages where channel = 'sms'"))[0]["message_id"]
    await two.write("update messages set state = 'accepted', provider = 'tencent', provider_ref = null")
    early = [
        {
            "user_receive_time": "2024-02-01 10:00:00",
            "nationcode": "86",
            "mobile": "13900000000",
            "report_status": "SUCCESS",
            "errmsg": "DELIVRD",
            "description": "",
            "sid": "2650:7",
        }
    ]
    answer = await push(two, early)
    assert answer == {"result": 0, "errmsg": "OK"}
    assert await two.rows("select provider_ref, delivered from early_receipts")
    await two.write("update messages set provider_ref = '2650:7' where message_id = $1", message_id)
    await push(two, [{**early[0], "sid": "2650:8"}])  # whatever comes next
    assert (await two.states(one, "pre-registered"))["sms"] == "delivered"
    left = await two.rows("select provider_ref from early_receipts")
    assert [row["provider_ref"] for row in left] == ["2650:8"]
    two.clock.jump(two.clock.now() + timedelta(hours=73))
    await two.forget_job.run()
    assert await two.rows("select * from early_receipts") == []


async def push(system: System, receipts: list[dict[str, str]]) -> dict[str, Any]:
    answer = await system.http.post(f"/carriers/tencent/receipts/{system.secret}", json=receipts)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    "how", ["pushed", "both", pytest.param("pulled", marks=LONG), pytest.param("twice", marks=LONG)]
)
async def test_receipts_count_once_whichever_way_they_come(two: System, how: str) -> None:
    await told(two, 20)
    if how == "pulled":
        two.world.tencent.receipts_url = None
    two.world.tencent.manners.times = 2 if how == "twice" else 1
    await two.send()
    await two.hear_receipts()
    if how != "pushed":
        await two.pull_job.run()
    rows = [row for row in await sms(two) if row["provider"] == "tencent"]
    assert len(rows) == 10
    assert {row["state"] for row in rows} == {"delivered"}
    events = [event for event in await two.told() if event.occasion == "due" and event.channel == "sms"]
    assert len(events) == len({event.registration_id for event in events}) == 20


async def test_an_address_of_receipts_that_is_not_ours_is_not_there(two: System) -> None:
    for path in (
        f"/carriers/huawei/receipts/{two.secret}",
        "/carriers/tencent/receipts/wrong-secret-of-length",
    ):
        assert (await two.http.post(path, json=[])).status_code == 404


async def test_without_a_second_account_there_is_no_second_carrier(system: System) -> None:
    answer = await system.call("GET", "/office/messages/providers", "office")
    assert [(one["provider"], one["share"]) for one in answer.json()["items"]] == [("aliyun", 100.0)]
    response = await system.http.post(f"/carriers/tencent/receipts/{system.secret}", json=[])
    assert response.status_code == 404
    assert (await system.call("GET", "/office/messages/providers", "candidate")).status_code == 403


# Limits of a number, and of a day


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
        await service_database("notification"), tmp_path, carrier_keys, sms_parts_a_day=20
    ) as system:
        people = await system.registered(8)  # two parts each
        assert {row["state"] for row in await sms(system, "pre-registered")} == {"delivered"}
        (spent,) = await system.rows("select parts from sms_days")
        await system.deliver(*(expired(one) for one in people[:2]), *(due(one) for one in people[2:]))
        with capture_logs() as logs:
            await system.sms_job.run()
        assert spent["parts"] == 16
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
