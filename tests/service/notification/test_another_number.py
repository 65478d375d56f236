"""Whoever gives another number or address is told there what still matters and nothing told them before."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from contracts.registration import ContactChanged
from deploy.simulators.sms_carrier import DEAD_PREFIX
from tests.service.notification.system import CYCLE, System, closing_soon, due, expired, paid

DEAD = f"{DEAD_PREFIX}0001"
LONG = pytest.mark.faults(long=True)  # `make test-faults` plays these


async def unreachable(system: System) -> UUID:
    (one,) = await system.registered(phone=DEAD, email=None)
    return one


async def another_number(system: System, one: UUID, **contact: str) -> None:
    system.registry.people[str(one)].update(contact or {"phone": "13900000777"})
    await system.deliver(ContactChanged(cycle_id=CYCLE, registration_id=one))
    await system.settle()


async def of(system: System, one: UUID, occasion: str) -> list[tuple[str, str, str]]:
    rows: list[dict[str, Any]] = await system.rows(
        "select instance, channel, state from messages where registration_id = $1 and occasion = $2 "
        "order by instance, channel desc",
        one,
        occasion,
    )
    return [(row["instance"].partition("-")[0], row["channel"], row["state"]) for row in rows]


async def test_a_forfeiture_that_reached_nobody_is_told_at_the_new_number_once(system: System) -> None:
    one = await unreachable(system)
    system.at("2024-02-09 09:00")
    await system.deliver(expired(one))
    await system.settle()
    await system.calls_job.run()
    assert len(await system.rows("select 1 from calls where closed_at is null")) == 1
    await another_number(system, one)
    assert await of(system, one, "expired") == [
        ("payment", "sms", "undelivered"),
        ("payment", "email", "undelivered"),
        ("registration", "sms", "delivered"),
        ("registration", "email", "undelivered"),
    ]
    assert len(system.sms_to(one)) == 1, "to the new number"
    (call,) = await system.rows("select outcome from calls")
    assert call["outcome"] == "told"
    await another_number(system, one, phone="13900000888")
    assert len(system.sms_to(one)) == 0, "it was told"


async def test_a_reminder_sent_again_says_how_much_time_is_left_by_then(system: System) -> None:
    one = await unreachable(system)
    system.at("2024-02-08 09:00")
    await system.deliver(closing_soon(one, hours=24))
    await system.settle()
    system.at("2024-02-08 19:30")
    await another_number(system, one)
    (row,) = await system.rows(
        "select body from messages where occasion = 'closing-soon' and channel = 'sms' and state = 'delivered'"
    )
    assert "距截止约4小时" in row["body"]


@LONG
async def test_what_is_over_or_was_told_or_is_paid_is_not_told_again(system: System) -> None:
    one = await unreachable(system)
    (told,) = await system.registered(phone=DEAD)
    (payer,) = await system.registered(phone=DEAD, email=None)
    system.at("2024-02-08 10:00")
    await system.deliver(closing_soon(one), due(told), due(payer))
    await system.settle()
    await system.deliver(paid(payer))
    system.at("2024-02-09 00:00")
    await another_number(system, one)
    await another_number(system, told)
    await another_number(system, payer)
    assert await of(system, one, "closing-soon") == [
        ("payment", "sms", "undelivered"),
        ("payment", "email", "undelivered"),
    ]
    assert await of(system, told, "due") == [
        ("payment", "sms", "undelivered"),
        ("payment", "email", "delivered"),
    ]
    assert len(await of(system, payer, "due")) == 2


@LONG
async def test_with_several_reminders_that_reached_nobody_only_the_last_goes_again(system: System) -> None:
    one = await unreachable(system)
    system.at("2024-02-08 09:00")
    await system.deliver(closing_soon(one, hours=24))
    await system.settle()
    system.at("2024-02-08 13:00")
    await system.deliver(closing_soon(one, hours=12))
    await system.settle()
    await another_number(system, one)
    assert len([state for _, _, state in await of(system, one, "closing-soon") if state == "delivered"]) == 1
