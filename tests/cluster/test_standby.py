"""Row 27: the primary dies under a crowd and its standby takes over, behind the same address.

Synchronous: whatever was acknowledged is there. Asynchronous, the same death loses what the standby had not got, and
nothing can make up for it: what the services said of it is on the topics, what they knew of it is gone. So that case is
played too, and must be noticed. It is the proof that the first one could fail.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.brokers import Brokers
from tests.cluster.standby import Pair
from tests.faults.harness import Battle, fight

pytestmark = pytest.mark.cluster

RELAYED = "kaowu_events_relayed"
WRITES_REFUSED = "in a read-only transaction"
FORGOTTEN = "its database does not know it"


class Seen(Exception):
    """What the run was for has happened; the rest of the cycle is not lived."""


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
        await pair.address_moves()

        async def refused() -> bool:
            return WRITES_REFUSED in await pair.standby.log()

        await battle.eventually(refused, "a service that meets a standby which only reads")
        battle.reached["services met a standby that only reads"] += 1
        await pair.promote()
        assert not await pair.standby.in_recovery()
        battle.reached["the standby was promoted"] += 1
        done = battle.driver.timing.steps
        await battle.eventually(lambda: battle.driver.timing.steps > done + 10, "ten more steps", within=120)
        battle.reached["services reached it again through one address"] += 1

    fought = await fight(tmp_path, breaks, people=40, given=pair.given | brokers.given)
    fought.holds({27: "the standby was promoted"})
    fought.as_the_rules_say()
    assert fought.reached["services met a standby that only reads"]
    assert fought.reached["services reached it again through one address"]


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
        await pair.address_moves()

        def noticed() -> bool:
            logs = battle.system.logs.glob("*.log")
            return any(FORGOTTEN in log.read_text(encoding="utf-8", errors="replace") for log in logs)

        await battle.eventually(noticed, "a service that says what its database has forgotten", within=120)
        raise Seen

    with pytest.raises(ExceptionGroup) as stopped:
        await fight(tmp_path, breaks, people=30, given=pair.given | brokers.given)
    assert stopped.group_contains(Seen)
