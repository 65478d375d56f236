"""Two of every service, three brokers, a database with a standby: each process is restarted in turn under a crowd."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.environment import SERVICES
from tests.cluster.brokers import Brokers
from tests.cluster.standby import Pair
from tests.faults.harness import Battle, fight

pytestmark = pytest.mark.cluster


async def watch_all(battle: Battle) -> None:
    """Whether a job runs each process knows of itself alone: without the second ones a cycle would seem to be at rest."""
    every = battle.system.services | battle.system.replicas
    async with battle.streams._looking:
        battle.streams._services = {name: one.internal_url for name, one in every.items()}


async def test_every_service_is_restarted_in_turn_and_its_other_process_goes_on(
    pair: Pair, brokers: Brokers, tmp_path: Path
) -> None:
    async def breaks(battle: Battle) -> None:
        battle.streams.faulted = True
        system = battle.system
        second = {name: await system.add_replica(name) for name in SERVICES}
        await watch_all(battle)
        for name in SERVICES:
            assert await battle.members(name) == 2, f"two members of {name} share its topics"

        for number, name in enumerate(SERVICES):
            await battle.until(0.1 + 0.2 * number)
            first = system.services[name]
            assert (await battle.ready(first))["leader"]
            before = first.process.pid
            await first.process.stop()

            async def leads(other: str = second[name]) -> bool:
                return bool((await battle.ready(system.replicas[other]))["leader"])

            await battle.eventually(leads, f"the other process of {name} leading")
            battle.reached[f"the other process of {name} led"] += 1
            await system.restart(name)
            assert system.services[name].process.pid != before
            leaving = system.replicas.pop(second[name])
            await watch_all(battle)
            await leaving.process.stop()

            async def leads_again(name: str = name) -> bool:
                return bool((await battle.ready(system.services[name]))["leader"])

            await battle.eventually(leads_again, f"the first process of {name} leading again")
            second[name] = await system.add_replica(name)
            await watch_all(battle)

            async def both(name: str = name) -> bool:
                return await battle.members(name) == 2

            await battle.eventually(both, f"two members of {name} again")
            battle.reached[f"both processes of {name} were restarted"] += 1

    fought = await fight(tmp_path, breaks, people=20, given=pair.given | brokers.given)
    fought.holds({})
    fought.as_the_rules_say()
    for name in SERVICES:
        assert fought.reached[f"the other process of {name} led"]
        assert fought.reached[f"both processes of {name} were restarted"]
