"""What a test does and sees of a service that sends through carriers of SMS."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from tests.service.notification.system import System, due

TEN = "2024-02-01 10:00"


async def told(system: System, many: int, at: str = TEN, **contact: str | None) -> list[UUID]:
    """So many people who are to be told that they must pay; nothing was sent yet."""
    people = await system.registered(many, **contact)
    await system.hear_receipts()
    system.at(at)
    await system.deliver(*(due(one) for one in people))
    return people


async def go_on(system: System, by: timedelta) -> None:
    """Time passes, and what carriers have to say meanwhile is heard: nothing of it comes in later."""
    system.clock.jump(system.clock.now() + by)
    await system.hear_receipts()


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


def knocks(system: System) -> int:
    """How often the second carrier was asked for something and had to say no."""
    return sum(system.world.tencent.refused.values())


async def seen(system: System) -> dict[str, dict[str, Any]]:
    """Each carrier as the office sees it."""
    answer = await system.call("GET", "/office/messages/providers", "office")
    return {one["provider"]: one for one in answer.json()["items"]}


async def shares(system: System) -> dict[str, float]:
    return {name: one["share"] for name, one in (await seen(system)).items()}
