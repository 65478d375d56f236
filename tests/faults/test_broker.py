"""Kafka that is away, comes and goes, or pauses, and members of a group that do: rows 12, 13 and 16 of the fault matrix.

Ten minutes without a broker are scaled to twenty seconds: a virtual clock does not shorten what is real, and all that ten
minutes add is a longer outbox (the benchmark drains a million rows of one).
"""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.faults.harness import Battle, fight

pytestmark = pytest.mark.faults

OUTAGE = 20.0  # real seconds
PAUSE = 8.0
DYNAMIC = {"CONFIRMATION_GROUP_INSTANCE_ID": ""}


async def test_without_a_broker_people_are_served_and_nothing_is_lost(tmp_path: Path) -> None:
    """Rows 12 and 13: away for long, then restarted again and again under load, and once paused in between."""

    async def breaks(battle: Battle) -> None:
        system = battle.system
        await battle.until(0.02)
        async with battle.heedless() as further:
            served = await battle.metric("kaowu_http_requests", label="201")
            await system.stop_broker()
            away = time.monotonic()
            try:
                await further(8)

                async def waiting() -> bool:
                    ready = await battle.ready(system.services["registration"])
                    return int(ready["outbox_unpublished"]) > 3

                await battle.eventually(waiting, "events waiting in the outbox")
                battle.reached["events waited in the outbox"] += 1
                assert await battle.metric("kaowu_http_requests", label="201") > served + 3
                battle.reached["requests were served without a broker"] += 1
                await asyncio.sleep(max(0.0, OUTAGE - (time.monotonic() - away)))
            finally:
                await system.start_broker()
        for round_ in range(3):
            await battle.until(0.2 + 0.2 * round_)
            await system.stop_broker()
            await system.start_broker()
            battle.reached["the broker was restarted under load"] += 1
        await battle.until(0.8)
        kafka = system.processes()["kafka"]
        kafka.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(PAUSE)
        finally:
            kafka.signal(signal.SIGCONT)
        battle.reached["the broker went on where it had stopped"] += kafka.alive

    fought = await fight(tmp_path, breaks, people=30)
    fought.holds({12: "events waited in the outbox", 13: "the broker was restarted under load"})
    assert fought.reached["requests were served without a broker"]
    assert fought.reached["the broker was restarted under load"] == 3
    assert fought.reached["the broker went on where it had stopped"]


async def test_members_that_come_and_go_lose_and_double_nothing(tmp_path: Path) -> None:
    """Row 16: every two seconds a member of a group comes or goes."""

    async def breaks(battle: Battle) -> None:
        system = battle.system
        await system.restart("confirmation", DYNAMIC)
        await battle.until(0.05)
        for _ in range(3):
            first = await system.add_replica("confirmation", DYNAMIC)
            second = await system.add_replica("confirmation", DYNAMIC)
            if await battle.members("confirmation") == 3:
                battle.reached["three members shared the partitions"] += 1
            await system.remove_replica(first)
            await system.replicas[second].process.kill()
            system.replicas.pop(second)
            battle.reached["rebalances"] += 4

    (await fight(tmp_path, breaks, people=20)).holds({16: "three members shared the partitions"})
