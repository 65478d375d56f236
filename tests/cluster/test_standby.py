"""Row 27: the primary dies under a crowd, or is cut off and lives, and its standby takes over behind the same address.

Synchronous: whatever was acknowledged is there, and a primary that is cut off acknowledges nothing. Asynchronous, the same
death loses what the standby had not got, and nothing can make up for it: what the services said of it is on the topics,
what they knew of it is gone. So that case is played too, and must be noticed. It is the proof that the first one could
fail. What an operator does: docs/runbooks/failover.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.local.databases import DatabaseLogin
from deploy.local.environment import SERVICES
from deploy.local.processes import StartFailed
from services.chassis import db
from services.chassis.clock import SystemClock
from services.chassis.db import Database, OutcomeUnknown
from tests.cluster.brokers import Brokers
from tests.cluster.standby import Pair
from tests.faults.harness import Battle, KeyedDoors, fight

pytestmark = pytest.mark.cluster

RELAYED = "kaowu_events_relayed"
WRITES_REFUSED = "in a read-only transaction"
FORGOTTEN = "its database does not know it"


class Seen(Exception):
    """What the run was for has happened; the rest of the cycle is not lived."""


async def all_serve_again(battle: Battle) -> None:
    """Until every service says that it is ready, and another ten steps are done.

    Nobody comes in before, so that time stands still: a carrier pushes its receipts in vain four times in sixteen
    virtual minutes, which a crowd that finds one service away lives through in a moment.
    """

    async def ready() -> bool:
        return all([(await battle.ready(one))["ready"] for one in battle.system.services.values()])

    await battle.eventually(ready, "every service ready again", within=120)
    KeyedDoors.open.set()
    done = battle.driver.timing.steps
    await battle.eventually(lambda: battle.driver.timing.steps > done + 10, "ten more steps", within=120)
    battle.reached["services went on with the new primary"] += 1


async def test_the_primary_dies_and_what_was_acknowledged_is_on_its_standby(
    pair: Pair, brokers: Brokers, tmp_path: Path
) -> None:
    async def breaks(battle: Battle) -> None:
        battle.streams.faulted = True
        await battle.until(0.2)
        assert await pair.follows()
        assert await pair.standby.in_recovery()
        await pair.primary.kill()
        battle.reached["the primary died"] += 1
        # As in a real failover, clients find the standby before it may take a write.
        pair.address_moves()

        async def refused() -> bool:
            return WRITES_REFUSED in await pair.standby.log()

        await battle.eventually(refused, "a service that meets a standby which only reads")
        battle.reached["services met a standby that only reads"] += 1
        async with battle.doors_closed():
            await pair.promote()
            assert not await pair.standby.in_recovery()
            battle.reached["the standby was promoted"] += 1
            await all_serve_again(battle)

    fought = await fight(tmp_path, breaks, people=20, given=pair.given | brokers.given)
    fought.holds({27: "the standby was promoted"})
    fought.as_the_rules_say()
    assert fought.reached["services met a standby that only reads"]
    assert fought.reached["services went on with the new primary"]


async def test_a_primary_that_is_cut_off_and_lives_acknowledges_nothing_and_no_service_goes_back_to_it(
    pair: Pair, brokers: Brokers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it commits alone it shows to nobody: people and events come again, to the standby that took over."""

    async def breaks(battle: Battle) -> None:
        battle.streams.faulted = True
        await battle.until(0.2)
        assert await pair.follows()
        await pair.primary.cut()

        async def a_service_waits() -> bool:
            return bool(set(SERVICES) & set(await pair.primary.waiting()))

        await battle.eventually(a_service_waits, "commits that wait for a standby out of reach")
        async with battle.doors_closed():
            await pair.promote()
            battle.reached["the standby was promoted"] += 1
            battle.reached["sessions ended by the address that moved"] += pair.address_moves()
            battle.reached["commits whose client has gone and which still wait"] += len(
                await pair.primary.waiting()
            )
            # Both live and take sessions. Whatever the one that was cut off shows, the other one has.
            assert not await pair.primary.in_recovery()
            assert not await pair.standby.in_recovery()
            seen = await pair.primary.events()
            assert seen <= await pair.standby.events()
            battle.reached["events that it showed"] += len(seen)
            await all_serve_again(battle)
        name = await self_said(battle)
        former = replace(DatabaseLogin.of(battle.system.surroundings.databases[name]), port=pair.primary.port)
        await refuses_to_commit(former)
        battle.reached["it acknowledged no write"] += 1
        # And a service that is led back to it does not begin to work.
        with pytest.raises(StartFailed, match=FORGOTTEN):
            await battle.system.add_replica(name, {f"{name.upper()}_DATABASE_URL": former.url})
        await battle.system.remove_replica(f"{name}-2")
        battle.reached["a service refused the former primary"] += 1

    async def self_said(battle: Battle) -> str:
        """A service that has published something since: that is what it can know the former primary by."""
        published = {name: await battle.metric(RELAYED, one) for name, one in battle.system.services.items()}
        said: list[str] = []

        async def somebody() -> bool:
            for name, one in battle.system.services.items():
                if await battle.metric(RELAYED, one) > published[name]:
                    said.append(name)
            return bool(said)

        await battle.eventually(somebody, "something that was said since")
        return said[0]

    async def refuses_to_commit(login: DatabaseLogin) -> None:
        monkeypatch.setattr(db, "COMMIT_WITHIN", 2.0)
        database = Database(login.url, clock=SystemClock())
        try:
            with pytest.raises(OutcomeUnknown):
                async with database.unit_of_work() as uow:
                    await uow.sql("update relay_cursor set last_id = last_id")
        finally:
            await database.dispose()

    fought = await fight(tmp_path, breaks, people=20, given=pair.given | brokers.given)
    fought.holds({27: "the standby was promoted", 32: "sessions ended by the address that moved"})
    fought.as_the_rules_say()
    for what in (
        "commits whose client has gone and which still wait",
        "events that it showed",
        "services went on with the new primary",
        "it acknowledged no write",
        "a service refused the former primary",
    ):
        assert fought.reached[what], what


async def test_a_standby_that_lagged_has_lost_what_was_said_and_the_service_stops_and_says_so(
    pair: Pair, brokers: Brokers, tmp_path: Path
) -> None:
    """The asynchronous case. What to do then is docs/runbooks/restore.md, which the tests of a restore play."""

    async def breaks(battle: Battle) -> None:
        battle.streams.faulted = True
        await battle.until(0.2)
        await pair.lets_go()
        # Cut and not frozen: what is on its way to a frozen one waits for it in its own machine.
        await pair.standby.cut()
        published = await battle.metric(RELAYED)
        await battle.grows(RELAYED, published, "something was said that the standby had not got")
        await pair.primary.kill()
        await pair.promote()
        pair.address_moves()

        def noticed() -> bool:
            logs = battle.system.logs.glob("*.log")
            return any(FORGOTTEN in log.read_text(encoding="utf-8", errors="replace") for log in logs)

        await battle.eventually(noticed, "a service that says what its database has forgotten", within=120)
        raise Seen

    with pytest.raises(ExceptionGroup) as stopped:
        await fight(tmp_path, breaks, people=20, given=pair.given | brokers.given)
    assert stopped.group_contains(Seen)
