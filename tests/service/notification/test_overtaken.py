"""What the desk, the reviewers or the candidate have undone since is not told, not told again, and nobody calls about it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from contracts import confirmation, payment, registration
from contracts.event import Event
from contracts.reasons import ReasonCode, WindowReason, WithdrawalReason
from deploy.simulators.sms_carrier import DEAD_PREFIX
from tests.service.notification.system import CYCLE, System, closing_soon, due, moment
from tests.service.notification.test_another_number import another_number
from tests.service.notification.test_telling import amended

DEAD = f"{DEAD_PREFIX}0001"
LONG = pytest.mark.faults(long=True)  # `make test-faults` plays these


def rejected(one: UUID) -> Event:
    return confirmation.Rejected(
        cycle_id=CYCLE, registration_id=one, level="site", reason_codes=(ReasonCode.EDUCATION,)
    )


def returned(one: UUID) -> Event:
    return confirmation.Returned(
        cycle_id=CYCLE,
        registration_id=one,
        level="site",
        reason_codes=(ReasonCode.DOCUMENTS,),
        fix_until=moment("2023-12-20 18:00"),
    )


def confirmed(one: UUID) -> Event:
    return confirmation.Confirmed(
        cycle_id=CYCLE, registration_id=one, site_id="shizhong", form_version=1, desk="shizhong"
    )


def withdrawn(one: UUID) -> Event:
    return registration.Withdrawn(cycle_id=CYCLE, registration_id=one, reason_code=WithdrawalReason.PERSONAL)


async def by_sms(system: System, one: UUID) -> list[tuple[str, str]]:
    rows: list[dict[str, Any]] = await system.rows(
        "select occasion, state from messages where registration_id = $1 and channel = 'sms' order by caused_by",
        one,
    )
    return [(row["occasion"], row["state"]) for row in rows]


async def to_call(system: System) -> list[tuple[str, str | None]]:
    await system.calls_job.run()
    return [
        (row["occasion"], row["outcome"]) for row in await system.rows("select occasion, outcome from calls")
    ]


async def test_a_rejection_that_was_taken_back_by_the_morning_is_not_told(system: System) -> None:
    (one,) = await system.registered()
    system.at("2023-12-15 22:30")
    await system.deliver(rejected(one))
    await system.settle()
    await system.deliver(returned(one))
    system.at("2023-12-16 08:00")
    await system.settle()
    assert await by_sms(system, one) == [
        ("pre-registered", "delivered"),
        ("rejected", "superseded"),
        ("returned", "delivered"),
    ]


async def test_whoever_is_sent_to_the_desk_by_night_hears_in_the_morning_of_the_last_form_only(
    system: System,
) -> None:
    system.at("2023-12-05 22:30")
    (one, other) = await system.registered_unsent(2)
    await system.deliver(amended(one), amended(one, "jiajiang", 3), withdrawn(other))
    await system.fetch()
    system.at("2023-12-06 08:00")
    await system.settle()
    assert await by_sms(system, one) == [
        ("pre-registered", "superseded"),
        ("amended", "superseded"),
        ("amended", "delivered"),
    ]
    assert await by_sms(system, other) == [("pre-registered", "superseded"), ("withdrawn", "delivered")]


async def test_at_a_new_number_nobody_is_told_what_has_been_undone_since(system: System) -> None:
    """A rejection taken back, a return that was put right at the desk, a reminder of a close that has moved."""
    judged, mended, reminded = await system.registered(3, phone=DEAD, email=None)
    system.at("2023-12-15 10:00")
    await system.deliver(rejected(judged), returned(mended))
    await system.settle()
    await system.deliver(returned(judged), confirmed(mended))
    await system.settle()
    await another_number(system, judged, phone="13900000701")
    await another_number(system, mended, phone="13900000702")
    assert (await by_sms(system, judged))[1:] == [
        ("rejected", "undelivered"),
        ("returned", "undelivered"),
        ("returned", "delivered"),
    ]
    assert (await by_sms(system, mended))[1:] == [("returned", "undelivered"), ("confirmed", "undelivered")]
    system.at("2024-02-08 10:00")
    later = moment("2024-02-11 00:00")
    moved = payment.WindowMoved(
        cycle_id=CYCLE,
        registration_id=reminded,
        closes_at=later,
        reason_code=WindowReason.OUTAGE,
        counts=payment.MovedCounts(awaiting=1, reinstated=0),
    )
    await system.deliver(due(reminded), closing_soon(reminded))
    await system.settle()
    await system.deliver(moved)
    await system.settle()
    await another_number(system, reminded, phone="13900000703")
    told = [row for row in await by_sms(system, reminded) if row[1] == "delivered"]
    assert sorted(told) == [("due", "delivered"), ("payment-window-moved", "delivered")]


async def test_nobody_calls_about_a_rejection_that_was_taken_back(system: System) -> None:
    (one, other) = await system.registered(2, phone=DEAD, email=None)
    system.at("2023-12-15 10:00")
    await system.deliver(rejected(one), rejected(other))
    await system.settle()
    assert await to_call(system) == [("rejected", None)] * 2
    await system.deliver(returned(one))
    await system.settle()
    assert sorted(await to_call(system), key=str) == [
        ("rejected", "settled"),
        ("rejected", None),
        ("returned", None),
    ]


@LONG
async def test_nobody_calls_about_a_return_that_was_put_right_before_its_time_to_call_came(
    system: System,
) -> None:
    (one,) = await system.registered(email=None)
    (other,) = await system.registered(email=None)
    system.at("2023-12-11 10:00")
    system.world.sms.receipts_url = None
    await system.deliver(returned(one), returned(other))
    await system.send()
    await system.deliver(confirmed(one))
    system.at("2023-12-13 10:00")
    assert await to_call(system) == [("returned", None)]
    (call,) = await system.rows("select registration_id from calls")
    assert call["registration_id"] == other
