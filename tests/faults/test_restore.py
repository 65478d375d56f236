"""Row 33: databases put back to a backup, and everything since then made up for, while a crowd goes on.

The services are killed under load, so that what was under way is lost as well; gateway, carriers and topics go on knowing what
the databases have forgotten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from deploy.backup.backing_up import BackedUp, back_up
from deploy.backup.restoring import Restored, restore
from deploy.local.environment import SERVICES
from deploy.replay.standing import standing
from deploy.replay.verify import verify
from services.chassis.db import driver_url
from services.chassis.wire import Wires
from tests.faults.harness import Battle, fight

pytestmark = pytest.mark.faults


async def take_backup(battle: Battle, directory: Path) -> BackedUp:
    """Of the system as it runs, with everybody acting."""
    async with standing(battle.system.data) as place:
        assert place.running
        return await back_up(place, directory)


async def lose_and_restore(battle: Battle, backup: BackedUp, services: Sequence[str]) -> Restored:
    """Kill these services as they are, put their databases back to the backup, and start them again."""
    system = battle.system
    async with battle.doors_closed():
        battle.streams.faulted = True
        for service in services:
            await system.kill(service)
        async with standing(system.data) as place:
            restored = await restore(place, backup.file, only=services)
        for service in services:
            await system.restart(service)
        # Its log counts anew: whoever waits for a number of it would wait for ever.
        await battle.streams.rest()
        battle.streams.faulted = False
    return restored


async def book(battle: Battle, which: str) -> list[dict[str, Any]]:
    """Every entry of a carrier's or the gateway's own book."""
    assert battle.system.outside is not None
    async with Wires(connections=1, patience=10.0, limit=1 << 26) as wires:
        url = f"{battle.system.outside.control_url}/sim/{which}/book?limit=1000000"
        found = orjson.loads((await wires.request("GET", url, {})).body)
    (entries,) = [value for value in found.values() if isinstance(value, list)]
    return list(entries)


async def count(battle: Battle, service: str, statement: str) -> int:
    connection = await asyncpg.connect(driver_url(battle.system.surroundings.databases[service]))
    try:
        return int(await connection.fetchval(statement))
    finally:
        await connection.close()


async def nothing_is_sent_twice(battle: Battle) -> None:
    """What carriers were given, by our references: each SMS once; a mail's copies at most as many as were counted."""
    sms = Counter(entry["out_id"] for entry in await book(battle, "sms"))
    assert [reference for reference, copies in sms.items() if copies > 1] == []
    mails = Counter(entry["message_id"] for entry in await book(battle, "mail"))
    counted = await count(
        battle, "notification", "select coalesce(sum(ambiguous), 0) from messages where channel = 'email'"
    )
    assert sum(copies - 1 for copies in mails.values()) <= counted
    battle.reached["messages were counted at the carriers"] += len(sms) + len(mails)


async def events_give_the_same(battle: Battle) -> None:
    """`kaowu replay verify`."""
    async with standing(battle.system.data) as place:
        verified = await verify(place)
    assert [str(difference) for difference in verified.differences] == []
    battle.reached["events that were replayed"] += verified.events


async def at_rest(battle: Battle) -> None:
    await nothing_is_sent_twice(battle)
    await events_give_the_same(battle)


async def test_after_a_backup_of_an_hour_ago_no_payment_is_lost_and_nothing_sent_is_sent_again(
    tmp_path: Path,
) -> None:
    async def breaks(battle: Battle) -> None:
        system = battle.system
        await battle.until(0.72)
        backup = await take_backup(battle, tmp_path)
        orders, messages = len(await book(battle, "wechat")), len(await book(battle, "sms"))
        await battle.until(0.86)
        assert system.clock.now() - backup.manifest.at >= timedelta(hours=1)
        battle.reached["orders since the backup"] += len(await book(battle, "wechat")) - orders
        battle.reached["messages since the backup"] += len(await book(battle, "sms")) - messages
        restored = await lose_and_restore(battle, backup, SERVICES)
        for service, one in restored.services.items():
            battle.reached[f"{service} caught up with its own events"] += one.folded
            battle.reached["events heard again"] += one.heard
        payment = system.services["payment"]

        async def complete() -> bool:
            open_ones = "select count(*) from recoveries where finished_at is null"
            return await count(battle, "payment", open_ones) == 0

        await battle.eventually(complete, "the gateway asked about everybody")
        for what in ("found", "booked"):
            battle.reached[f"payments {what}"] += int(
                await battle.metric("kaowu_payment_recovered", payment, label=what)
            )

    fought = await fight(tmp_path, breaks, people=60, at_rest=at_rest)
    fought.holds({33: "orders since the backup"})
    for what in (
        "messages since the backup",
        "payment caught up with its own events",
        "notification caught up with its own events",
        "events heard again",
        "payments booked",
        "messages were counted at the carriers",
        "events that were replayed",
    ):
        assert fought.reached[what], f"{what}: {dict(fought.reached)}"


async def test_one_services_database_put_back_alone_finds_its_way_while_the_others_go_on(
    tmp_path: Path,
) -> None:
    async def breaks(battle: Battle) -> None:
        await battle.until(0.15)
        backup = await take_backup(battle, tmp_path)
        await battle.until(0.4)
        restored = await lose_and_restore(battle, backup, ("confirmation", "notification"))
        battle.reached["confirmation caught up with its own events"] += restored.services[
            "confirmation"
        ].folded
        battle.reached["events heard again"] += sum(one.heard for one in restored.services.values())

    fought = await fight(tmp_path, breaks, people=40, seed=9, at_rest=at_rest)
    fought.holds({33: "confirmation caught up with its own events"})
    assert fought.reached["events heard again"]
