"""Whom neither SMS nor email told in time: on the desk's list, once, with a reason, and off it when there is nothing to tell."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from contracts import payment
from contracts.reasons import ReinstatementCause
from deploy.simulators.sms_carrier import DEAD_PREFIX, SILENT_PREFIX
from services.notification.domain.calling import CallOutcome
from tests.service.notification.system import (
    CLOSE,
    CYCLE,
    System,
    closing_soon,
    expired,
    moment,
    paid,
    pre_registered,
    receipts,
)

SILENT = f"{SILENT_PREFIX}0001"
DEAD = f"{DEAD_PREFIX}0001"
REMINDED = "2024-02-08 09:00"
LOOK = "2024-02-08 16:00"  # eight hours before the close
TICK = timedelta(microseconds=1)
LONG = pytest.mark.faults(long=True)  # `make test-faults` plays these


async def reminded(system: System, many: int = 1, **contact: str | None) -> list[UUID]:
    """People who were sent the reminder of the last day, as far as it went."""
    people = await system.registered(many, **contact)
    system.at(REMINDED)
    await system.deliver(*(closing_soon(one) for one in people))
    await system.settle()
    return people


async def looked(system: System, at: str = LOOK, less: timedelta = timedelta(0)) -> list[dict[str, Any]]:
    """The list after the look at this moment."""
    system.clock.jump(moment(at) - less)
    await system.calls_job.run()
    return await on_the_list(system)


async def on_the_list(system: System) -> list[dict[str, Any]]:
    answer = await system.call("GET", "/office/messages/calls", "office")
    assert answer.status_code == 200
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def outcomes(system: System, one: UUID) -> list[str | None]:
    rows = await system.rows(
        "select outcome from calls where registration_id = $1 order by created_at, call_id", one
    )
    return [row["outcome"] for row in rows]


async def test_a_last_reminder_that_nothing_confirms_is_a_call_eight_hours_before_the_close_and_not_sooner(
    system: System,
) -> None:
    (one,) = await reminded(system, phone=SILENT, email=None)
    assert await system.states(one, "closing-soon") == {"sms": "accepted", "email": "undelivered"}
    assert await looked(system, less=TICK) == []
    (call,) = await looked(system)
    assert (call["registration_id"], call["site_id"], call["occasion"]) == (
        str(one),
        "shizhong",
        "closing-soon",
    )
    assert (call["reason_code"], call["reason"]) == ("unconfirmed", "短信无回执，邮件未送达")
    assert call["call_by"] == "2024-02-08T16:00:00Z"
    assert "考试费" in call["text"]
    assert (call["phone"], call["attempts"]) == ("199****0001", 0)
    assert await looked(system) == [call], "once"


async def test_whom_both_channels_failed_is_called_without_waiting(system: System) -> None:
    (one,) = await reminded(system, phone=DEAD, email=None)
    assert await system.states(one, "closing-soon") == {"sms": "undelivered", "email": "undelivered"}
    await system.calls_job.run()
    (call,) = await on_the_list(system)
    assert (call["reason_code"], call["reason"]) == ("number-not-in-use", "空号或停机")


@LONG
async def test_whom_a_mail_told_need_not_be_called(system: System) -> None:
    (one,) = await reminded(system, phone=DEAD)
    assert await looked(system) == []
    assert await system.states(one, "closing-soon") == {"sms": "undelivered", "email": "delivered"}


@LONG
async def test_a_receipt_that_comes_late_takes_them_off_the_list(system: System) -> None:
    (one,) = await reminded(system, phone=SILENT, email=None)
    assert len(await looked(system)) == 1
    await system.push(receipts(system.sms_to(one)[-1:]))
    assert await on_the_list(system) == []
    assert await outcomes(system, one) == [CallOutcome.TOLD]


@LONG
async def test_whoever_has_paid_meanwhile_is_not_called(system: System) -> None:
    before, after = await reminded(system, 2, phone=SILENT, email=None)
    await system.deliver(paid(before))
    (call,) = await looked(system)
    assert call["registration_id"] == str(after)
    await system.deliver(paid(after))
    assert await on_the_list(system) == []
    assert (await outcomes(system, before), await outcomes(system, after)) == ([], [CallOutcome.SETTLED])


@LONG
async def test_once_the_close_has_come_nobody_is_called_about_paying_before_it(system: System) -> None:
    (one,) = await reminded(system, phone=SILENT, email=None)
    assert len(await looked(system, CLOSE, less=TICK)) == 1
    assert await looked(system, CLOSE) == []
    assert await outcomes(system, one) == [CallOutcome.OVER]


@LONG
async def test_a_forfeiture_of_which_nobody_heard_is_a_call_until_it_is_lifted(system: System) -> None:
    (one,) = await system.registered(phone=DEAD, email=None)
    system.at("2024-02-09 09:00")
    await system.deliver(expired(one))
    await system.settle()
    await system.calls_job.run()
    (call,) = await on_the_list(system)
    assert (call["occasion"], call["call_by"]) == ("expired", None)
    lifted = payment.Reinstated(
        cycle_id=CYCLE,
        registration_id=one,
        cause=ReinstatementCause.WINDOW_EXTENDED,
        closes_at=moment("2024-02-12 00:00"),
    )
    await system.deliver(lifted)
    assert await on_the_list(system) == []
    assert await outcomes(system, one) == [CallOutcome.SETTLED]


@LONG
async def test_two_reminders_of_one_close_are_one_call(system: System) -> None:
    (one,) = await reminded(system, phone=DEAD, email=None)
    await system.calls_job.run()
    system.at("2024-02-08 12:00")
    await system.deliver(closing_soon(one, hours=12))
    await system.settle()
    assert len(await looked(system)) == 1
    assert await outcomes(system, one) == [None]


async def test_a_desk_sees_its_own_people_and_their_numbers_only_when_it_opens_them(system: System) -> None:
    (one,) = await reminded(system, phone=SILENT, email=None)
    other = uuid7()
    system.registry.add(other, phone=f"{SILENT_PREFIX}0002", email=None)
    await system.deliver(pre_registered(other, site="emeishan"), closing_soon(other))
    await system.settle()
    assert len(await looked(system)) == 2
    answer = await system.call("GET", "/desks/shizhong/calls", "desk:shizhong")
    (call,) = answer.json()["items"]
    assert call["registration_id"] == str(one)
    assert SILENT not in answer.text
    path = f"/desks/shizhong/calls/{call['call_id']}"
    early = await system.call("POST", f"{path}/close", "desk:shizhong", {"outcome": "reached"})
    assert (early.status_code, early.json()["code"]) == (409, "not-allowed"), "nobody called"
    for _ in range(2):
        opened = await system.call("POST", f"{path}/open", "desk:shizhong")
        assert opened.json()["phone"] == SILENT
    trail = await system.rows("select actor_kind, actor, action, subject, at, detail from audit")
    assert len(trail) == 2, "each look"
    assert {(row["actor_kind"], row["actor"], row["action"], row["subject"], row["at"]) for row in trail} == {
        ("desk", "account-of-desk:shizhong", "open-call", str(one), moment(LOOK))
    }
    assert trail[0]["detail"]["call_id"] == call["call_id"]
    assert SILENT not in str(trail)
    done = await system.call("POST", f"{path}/close", "desk:shizhong", {"outcome": "reached"})
    assert done.json() == {"call_id": call["call_id"], "outcome": "reached", "on_the_list": False}
    again = await system.call("POST", f"{path}/open", "desk:shizhong")
    assert (again.status_code, again.json()["code"]) == (409, "not-allowed")
    (left,) = await on_the_list(system)
    assert left["registration_id"] == str(other)
    (last,) = await system.rows("select action, detail from audit order by id desc limit 1")
    assert (last["action"], last["detail"]["outcome"]) == ("close-call", "reached")


async def test_who_is_not_reached_stays_behind_the_others_and_a_wrong_number_ends_it(system: System) -> None:
    first, second = await reminded(system, 2, phone=SILENT, email=None)
    calls = {item["registration_id"]: item for item in await looked(system)}
    path = f"/desks/shizhong/calls/{calls[str(first)]['call_id']}"
    await system.call("POST", f"{path}/open", "desk:shizhong")
    answer = await system.call("POST", f"{path}/close", "desk:shizhong", {"outcome": "not-reached"})
    assert answer.json()["on_the_list"]
    listed = (await system.call("GET", "/desks/shizhong/calls?limit=1", "desk:shizhong")).json()
    assert listed["items"][0]["registration_id"] == str(second)
    rest = await system.call("GET", f"/desks/shizhong/calls?limit=1&after={listed['next']}", "desk:shizhong")
    (item,) = rest.json()["items"]
    assert (item["registration_id"], item["attempts"], item["outcome"]) == (str(first), 1, "not-reached")
    await system.call("POST", f"{path}/close", "desk:shizhong", {"outcome": "wrong-number"})
    assert [item["registration_id"] for item in await on_the_list(system)] == [str(second)]
    closed = (await system.call("GET", "/office/messages/calls?closed=true", "office")).json()
    assert [(item["outcome"], item["attempts"]) for item in closed["items"]] == [("wrong-number", 2)]
    assert sum(one["calls"] for one in closed["counts"]) == 2


@LONG
@pytest.mark.parametrize("role", [None, "office", "ops", "desk:emeishan", "candidate:x", "service"])
async def test_a_desks_list_is_the_desks(system: System, role: str | None) -> None:
    status = 403 if role else 401
    assert (await system.call("GET", "/desks/shizhong/calls", role)).status_code == status
    (one,) = await reminded(system, phone=DEAD, email=None)
    await system.calls_job.run()
    (call,) = await on_the_list(system)
    for act, body in (("open", None), ("close", {"outcome": "reached"})):
        answer = await system.call("POST", f"/desks/shizhong/calls/{call['call_id']}/{act}", role, body)
        assert answer.status_code == status
    assert not await system.rows("select 1 from audit")
    assert await outcomes(system, one) == [None]


@LONG
async def test_another_desk_cannot_open_a_call_by_its_number(system: System) -> None:
    await reminded(system, phone=DEAD, email=None)
    await system.calls_job.run()
    (call,) = await on_the_list(system)
    answer = await system.call("POST", f"/desks/emeishan/calls/{call['call_id']}/open", "desk:emeishan")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    opened = await system.call("POST", f"/office/messages/calls/{call['call_id']}/open", "office")
    assert opened.json()["phone"] == DEAD


@LONG
@pytest.mark.parametrize("role", [None, "ops", "desk:shizhong", "candidate:x"])
async def test_the_list_of_all_is_the_offices(system: System, role: str | None) -> None:
    assert (await system.call("GET", "/office/messages/calls", role)).status_code == (403 if role else 401)
