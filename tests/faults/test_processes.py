"""Processes that die or freeze while a crowd goes on: rows 1 to 6, 9, 10 and 25 of the fault matrix."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.faults.harness import Battle, fight

pytestmark = pytest.mark.faults

# Members that come and go take part at once, and are missed after ten seconds.
DYNAMIC = {"CONFIRMATION_GROUP_INSTANCE_ID": ""}


async def test_a_service_may_die_at_any_point_between_a_request_and_its_effect(tmp_path: Path) -> None:
    async def breaks(battle: Battle) -> None:
        await battle.until(0.02)
        await battle.dies("registration", "before-commit")
        await battle.dies("registration", "after-commit", 3)
        before = await battle.metric("kaowu_events_duplicate")
        await battle.dies("registration", "relay-after-ack")
        await battle.grows("kaowu_events_duplicate", before, "an event published twice was dropped")
        await battle.dies("registration", "relay-before-publish")
        await battle.dies("confirmation", "consumer-in-transaction")
        await battle.dies("confirmation", "consumer-before-offset-commit")
        again = battle.system.services["confirmation"]
        await battle.grows("kaowu_events_duplicate", 0, "an event delivered again was dropped", again)
        await battle.until(0.8)
        await battle.dies("payment", "before-commit", 2)
        await battle.dies("payment", "after-commit", 2)
        await battle.dies("notification", "sms-accepted")

    fought = await fight(tmp_path, breaks, people=50)
    fought.holds(
        {
            1: "registration died at before-commit",
            2: "registration died at after-commit",
            3: "an event published twice was dropped",
            4: "registration died at relay-before-publish",
            5: "an event delivered again was dropped",
            6: "confirmation died at consumer-in-transaction",
            8: "notification died at sms-accepted",
            9: "payment died at before-commit",
        }
    )


async def test_a_frozen_consumer_is_replaced_and_does_no_harm_when_it_wakes(tmp_path: Path) -> None:
    """Row 10. The session time-out is ten seconds; the member stays frozen until the broker has given its partitions away."""

    async def breaks(battle: Battle) -> None:
        system = battle.system
        await system.restart("confirmation", DYNAMIC)
        other = system.replicas[await system.add_replica("confirmation", DYNAMIC)]
        await battle.until(0.1)
        assert await battle.members("confirmation") == 2
        system.suspend("confirmation")
        try:

            async def missed() -> bool:
                return await battle.members("confirmation") == 1

            await battle.eventually(missed, "the broker missing the frozen member")
            battle.reached["the broker missed the frozen member"] += 1
            before = await battle.metric("kaowu_events_handled", other)
        finally:
            system.resume("confirmation")

        async def back() -> bool:
            return await battle.members("confirmation") == 2

        await battle.eventually(back, "the member that woke joining again")
        battle.reached["it joined again"] += 1
        await battle.grows("kaowu_events_handled", before, "the other member worked", other)

    (await fight(tmp_path, breaks, people=30)).holds({10: "it joined again"})


async def test_one_relay_leads_however_many_there_are_and_a_frozen_leader_delays_but_never_doubles(
    tmp_path: Path,
) -> None:
    """Row 25. A frozen leader keeps its lock: nobody publishes beside it. A dead one is followed."""

    async def breaks(battle: Battle) -> None:
        system = battle.system
        names = ["registration", *[await system.add_replica("registration") for _ in range(2)]]
        members = {name: (system.replicas.get(name) or system.services[name]) for name in names}

        async def leaders() -> list[str]:
            alive = {name: one for name, one in members.items() if one.process.alive and name != frozen}
            return [name for name, one in alive.items() if (await battle.ready(one))["leader"]]

        frozen = ""
        await battle.until(0.05)
        assert await leaders() == ["registration"], "one relay leads, and the first to come"
        frozen = "registration"
        system.suspend(frozen)
        try:
            for _ in range(16):
                await asyncio.sleep(0.5)
                assert await leaders() == [], "two relays would have led"
            battle.reached["nobody led beside a frozen leader"] += 1
        finally:
            system.resume(frozen)
            frozen = ""
        await battle.until(0.2)
        members["registration"].process.signal(signal.SIGKILL)

        async def followed() -> bool:
            return len(await leaders()) == 1

        await battle.eventually(followed, "another relay leading")
        battle.reached["another relay followed"] += 1
        await system.restart("registration")

    (await fight(tmp_path, breaks, people=30)).holds(
        {25: "nobody led beside a frozen leader", 3: "another relay followed"}
    )
