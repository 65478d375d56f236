"""Two carriers of SMS: each has its share, and an answer that is unclear is asked about where it was lost."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from deploy.simulators.outage import Outage
from deploy.simulators.sms_carrier import DEAD_PREFIX
from services.notification.domain.life import LEASE
from tests.service.notification.at_carriers import TEN, sms, taken, told, until_sent
from tests.service.notification.killing import kill_at
from tests.service.notification.system import System, due
from tests.service.notification.test_asking import Backups
from tests.support.postgres import TestDatabases

LONG = pytest.mark.faults(long=True)  # `make test-faults` plays these


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


async def test_what_one_took_just_before_a_loss_is_asked_about_once_its_receipts_are_in(
    two: System, databases: TestDatabases
) -> None:
    people = await two.registered(8)
    await two.hear_receipts()
    two.at(TEN)
    backups = Backups(two, databases)
    try:
        backup = await backups.take()
        records = await two.deliver(*(due(one) for one in people))
        for carrier in (two.world.sms, two.world.tencent):
            carrier.receipts_url, carrier.manners.delay = None, timedelta(minutes=5)
        await two.sms_job.run()
        assert taken(two) == {"aliyun": 4, "tencent": 4}
        await backups.restore(backup, *records, waited=False)
        await two.sms_job.run()
        await two.hear_receipts()
        await until_sent(two, timedelta(hours=1))
        assert {(row["state"], row["ambiguous"]) for row in await sms(two)} == {("delivered", 0)}
        assert all(len(two.sms_to(one)) == 2 for one in people), "no second copy"
    finally:
        await backups.drop()
