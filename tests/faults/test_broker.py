"""Kafka that is away, comes and goes, or answers late: rows 12 to 16 of the fault matrix.

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

STOP, GO_ON = signal.SIGSTOP, signal.SIGCONT
OUTAGE = 20.0  # real seconds
DYNAMIC = {"CONFIRMATION_GROUP_INSTANCE_ID": ""}


async def test_without_a_broker_people_are_served_and_nothing_is_lost(tmp_path: Path) -> None:
    """Rows 12 and 13: away for long, then restarted again and again under load."""

    async def breaks(battle: Battle) -> None:
        system = battle.system
        await battle.until(0.05)
        served = await battle.metric("kaowu_http_requests", system.services["registration"])
        await system.stop_broker()
        battle.streams.faulted = True
        away = time.monotonic()
        try:

            async def waiting() -> bool:
                ready = await battle.ready(system.services["registration"])
                return int(ready.get("outbox_unpublished", 0)) > 0

            await battle.eventually(waiting, "an event waiting in the outbox")
            battle.reached["events waited in the outbox"] += 1
            await battle.grows("kaowu_http_requests", served, "requests were served without a broker")
            await asyncio.sleep(max(0.0, OUTAGE - (time.monotonic() - away)))
        finally:
            await system.start_broker()
        battle.reached["the broker was away"] += 1
        for round_ in range(3):
            await battle.until(0.2 + 0.2 * round_)
            await system.stop_broker()
            await system.start_broker()
            battle.reached["the broker was restarted under load"] += 1

    fought = await fight(tmp_path, breaks, people=40)
    fought.holds({12: "events waited in the outbox", 13: "the broker was restarted under load"})
    assert fought.reached["requests were served without a broker"]
    assert fought.reached["the broker was restarted under load"] == 3


async def test_a_broker_that_does_not_answer_or_answers_late_costs_time_only(tmp_path: Path) -> None:
    """Rows 14 and 15: connections that stay open while nobody answers, and answers that take a second or two,
    also while the payment window closes. The broker's process is stopped and let go on."""

    async def breaks(battle: Battle) -> None:
        kafka = battle.system.processes()["kafka"]
        await battle.until(0.1)
        kafka.signal(STOP)
        try:
            before = time.monotonic()
            await asyncio.sleep(8)
            assert kafka.alive
            battle.reached["half-open"] += time.monotonic() - before > 7
        finally:
            kafka.signal(GO_ON)
        await battle.until(0.9)
        payment = battle.system.services["payment"]

        async def closing() -> bool:
            return await battle.metric("kaowu_payment_close_seconds_count", payment) > 0

        for _ in range(40):
            kafka.signal(STOP)
            await asyncio.sleep(1.2)
            kafka.signal(GO_ON)
            battle.reached["late answers"] += 1
            await asyncio.sleep(0.4)
            if await closing():
                battle.reached["the window closed before a slow broker"] += 1
                break

    (await fight(tmp_path, breaks, people=30)).holds(
        {14: "half-open", 15: "the window closed before a slow broker"}
    )


async def test_members_that_come_and_go_lose_and_double_nothing(tmp_path: Path) -> None:
    """Row 16: every two seconds a member of a group comes or goes."""

    async def breaks(battle: Battle) -> None:
        system = battle.system
        await system.restart("confirmation", DYNAMIC)
        await battle.until(0.05)
        for _ in range(5):
            first = await system.add_replica("confirmation", DYNAMIC)
            second = await system.add_replica("confirmation", DYNAMIC)
            if await battle.members("confirmation") == 3:
                battle.reached["three members shared the partitions"] += 1
            await system.remove_replica(first)
            await system.replicas[second].process.kill()
            system.replicas.pop(second)
            battle.reached["rebalances"] += 4

    (await fight(tmp_path, breaks, people=40)).holds({16: "three members shared the partitions"})
