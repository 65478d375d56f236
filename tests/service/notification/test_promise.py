"""Whether those reminded on the last day have it confirmed six hours before the close: counted live, at its edges."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from uuid_utils.compat import uuid7

from contracts import payment
from contracts.reasons import WindowReason
from deploy.simulators.sms_carrier import DEAD_PREFIX, SILENT_PREFIX
from tests.service.notification.system import (
    CYCLE,
    System,
    closing_soon,
    due,
    moment,
    paid,
    receipts,
)

REMINDED = "2024-02-08 09:00"
PROMISED = "2024-02-08 18:00"  # six hours before the close
TICK = timedelta(microseconds=1)
SILENT = f"{SILENT_PREFIX}0001"
DEAD = f"{DEAD_PREFIX}0001"
LONG = pytest.mark.faults(long=True)  # `make test-faults` plays these


async def reminded(system: System, many: int = 1, hours: int = 24, **contact: str | None) -> list[UUID]:
    people = await system.registered(many, **contact)
    system.at(REMINDED)
    await system.deliver(*(closing_soon(one, hours) for one in people))
    await system.settle()
    return people


async def with_silent_phone(system: System, number: int) -> UUID:
    (one,) = await system.registered(phone=f"{SILENT_PREFIX}{number:04d}", email=None)
    return one


async def promise(system: System, at: str | None = None, later: timedelta = timedelta(0)) -> dict[str, Any]:
    """How it stands at this moment."""
    if at is not None:
        system.clock.jump(moment(at) + later)
    answer = await system.call("GET", "/office/messages/promise", "office")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def standing(system: System, at: str | None = None, later: timedelta = timedelta(0)) -> dict[str, Any]:
    """What is counted of the one close, without its zeros."""
    (close,) = (await promise(system, at, later))["closes"]
    counted = ("confirmed", "by_sms", "by_email_only", "late", "failed", "waiting", "moved")
    return {name: close[name] for name in counted if close[name]} | {"kept": close["kept"]}


def gauge(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"kaowu_promise_{name}", labels)


async def test_before_anybody_is_reminded_on_the_last_day_nothing_is_promised(system: System) -> None:
    (one,) = await reminded(system, hours=72)
    await system.deliver(closing_soon(one, hours=6))
    await system.settle()
    found = await promise(system)
    assert found["closes"] == []
    assert not found["burning"]
    assert {burn["long"] for burn in found["burn"]} == {0.0}
    await system.promise_job.run()
    assert (gauge("share"), gauge("reminders", state="failed")) == (1, 0)


async def test_everybody_confirmed_keeps_it(system: System) -> None:
    (other,) = await system.registered(phone=DEAD)
    (one,) = await reminded(system)
    await system.deliver(closing_soon(other))
    await system.settle()
    assert await standing(system) == {"confirmed": 2, "by_sms": 1, "by_email_only": 1, "kept": True}
    assert (await system.states(one, "closing-soon"))["sms"] == "delivered"
    assert (await system.states(other, "closing-soon"))["sms"] == "undelivered"


async def test_a_receipt_at_exactly_six_hours_before_is_in_time_and_a_microsecond_later_is_not(
    system: System,
) -> None:
    people = [await with_silent_phone(system, n) for n in range(3)]
    system.at(REMINDED)
    await system.deliver(*(closing_soon(one) for one in people))
    await system.settle()
    for one, later in zip(people, (-TICK, timedelta(0), TICK), strict=True):
        system.clock.jump(moment(PROMISED) + later)
        await system.push(receipts(system.sms_to(one)[-1:]))
    found = {"confirmed": 2, "by_sms": 2, "late": 1, "kept": False}
    assert await standing(system) == found
    assert await standing(system, "2024-02-09 12:00") == found, "and that stays so"


async def test_without_a_word_it_is_broken_after_that_moment_and_not_at_it(system: System) -> None:
    await reminded(system, phone=SILENT, email=None)
    assert await standing(system, PROMISED) == {"waiting": 1, "kept": None}
    assert await standing(system, PROMISED, TICK) == {"failed": 1, "kept": False}


async def test_whom_no_channel_can_reach_breaks_it_at_once_and_that_burns(system: System) -> None:
    await reminded(system, phone=DEAD, email=None)
    assert await standing(system) == {"failed": 1, "kept": False}
    found = await promise(system)
    fast, slow = found["burn"]
    assert (fast["long"], fast["short"], slow["short"]) == pytest.approx((100, 100, 100))
    assert found["burning"]
    await system.promise_job.run()
    assert (gauge("share"), gauge("reminders", state="failed")) == (0, 1)
    assert gauge("burn_rate", pace="fast", window="short") == pytest.approx(100)
    assert (gauge("burning", pace="fast"), gauge("goal")) == (1, 0.99)


@LONG
async def test_a_failure_leaves_each_window_when_it_is_as_old_as_that(system: System) -> None:
    (one,) = await reminded(system, phone=DEAD, email=None)
    row = (await system.messages(one, "closing-soon"))["sms"]

    async def rates(after: timedelta) -> list[bool]:
        system.clock.jump(row["state_at"] + after)
        fast, slow = (await promise(system))["burn"]
        return [bool(rate) for rate in (fast["short"], slow["short"], fast["long"], slow["long"])]

    minute = timedelta(minutes=1)
    assert await rates(5 * minute - TICK) == [True, True, True, True]
    assert await rates(5 * minute) == [False, True, True, True]
    assert await rates(30 * minute) == [False, False, True, True]
    assert await rates(60 * minute - TICK) == [False, False, True, True]
    assert await rates(60 * minute) == [False, False, False, True]


async def test_a_reminder_that_nothing_confirms_for_a_quarter_of_an_hour_burns_until_something_does(
    system: System,
) -> None:
    (one,) = await reminded(system, phone=SILENT, email=None)
    went_at = (await system.messages(one, "closing-soon"))["sms"]["not_before"]
    quarter = timedelta(minutes=15)
    system.clock.jump(went_at + quarter - TICK)
    assert [burn["long"] for burn in (await promise(system))["burn"]] == [0, 0]
    system.clock.jump(went_at + quarter)
    assert (await promise(system))["burning"]
    await system.push(receipts(system.sms_to(one)[-1:]))
    found = await promise(system)
    assert [burn["long"] for burn in found["burn"]] == [0, 0]
    assert found["closes"][0]["confirmed"] == 1


async def test_when_the_window_moves_the_old_close_owes_nothing_and_the_new_one_is_counted(
    system: System,
) -> None:
    told, missed, other = [await with_silent_phone(system, n) for n in range(3)]
    await system.deliver(*(due(one) for one in (told, missed, other)))
    system.at(REMINDED)
    await system.deliver(*(closing_soon(one) for one in (told, missed, other)))
    await system.settle()
    await system.push(receipts(system.sms_to(told)[-1:]))
    later = moment("2024-02-11 00:00")
    system.at("2024-02-08 12:00")
    await system.deliver(
        *(
            payment.WindowMoved(
                cycle_id=CYCLE,
                registration_id=one,
                closes_at=later,
                reason_code=WindowReason.OUTAGE,
                counts=payment.MovedCounts(awaiting=2, reinstated=0),
            )
            for one in (told, missed)
        )
    )
    assert await standing(system, PROMISED, TICK) == {"failed": 1, "moved": 2, "kept": False}
    system.at("2024-02-10 09:00")
    reminder = closing_soon(told).model_copy(update={"closes_at": later})
    await system.deliver(reminder)
    await system.settle()
    old, new = (await promise(system))["closes"]
    assert (old["people"], old["moved"], new["people"], new["waiting"]) == (1, 2, 1, 1)
    assert new["promised_for"] == "2024-02-10T10:00:00Z"


@LONG
async def test_who_has_paid_before_it_went_was_promised_nothing(system: System) -> None:
    (one,) = await system.registered()
    system.at(REMINDED)
    await system.deliver(closing_soon(one), paid(one))
    await system.settle()
    assert set((await system.states(one, "closing-soon")).values()) == {"superseded"}
    assert (await promise(system))["closes"] == []


@LONG
async def test_two_reminders_of_the_last_day_are_one_person(system: System) -> None:
    (one,) = await reminded(system, phone=DEAD, email=None)
    await system.deliver(closing_soon(one, hours=12))
    await system.settle()
    assert await standing(system) == {"failed": 1, "kept": False}


@LONG
async def test_no_figure_names_anybody(system: System) -> None:
    one = uuid7()
    system.registry.add(one, phone=DEAD, email=None)
    text = (await system.call("GET", "/office/messages/promise", "office")).text
    assert str(one) not in text
    labels = {
        name
        for metric in REGISTRY.collect()
        if metric.name.startswith("kaowu_promise")
        for sample in metric.samples
        for name in sample.labels
    }
    assert labels == {"state", "pace", "window"}
