"""Receipts of two carriers: pushed, pulled or both, early, twice, and only at an address that is ours."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.service.notification.at_carriers import TEN, sms, told
from tests.service.notification.system import System

LONG = pytest.mark.faults(long=True)  # `make test-faults` plays these


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
