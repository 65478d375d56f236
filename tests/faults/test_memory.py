"""A process without memory: row 11 of the fault matrix."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.harness import Battle, NotReached, fight
from tests.faults.operating import Operator

pytestmark = pytest.mark.faults

HUNGRY = ("tests.faults.hungry", "run")


async def test_an_event_that_needs_too_much_memory_is_parked_and_taken_in_when_there_is_more(
    tmp_path: Path,
) -> None:
    """One event, each time it comes: it waits with its reason, others flow, and replayed it is as if it had never waited."""

    async def breaks(battle: Battle) -> None:
        system, payment = battle.system, battle.system.services["payment"]
        operator = Operator(system)
        await battle.until(0.05)
        await system.restart("payment", {"KAOWU_HUNGER": "one"}, module=HUNGRY)
        await battle.grows("kaowu_events_parked", 0, "an event was parked for want of memory", payment)
        waiting = await operator.parked("payment")
        assert waiting[0]["reason"] == "failed: MemoryError"
        async with battle.heedless() as further:
            # The one person's fee does not come: nobody else waits for that.
            handled = await battle.metric("kaowu_events_handled", payment)
            await battle.grows("kaowu_events_handled", handled + 5, "others flowed beside it", payment)
            await further(0)
        assert payment.process.alive
        await system.restart("payment")
        done = await operator.replay("payment")
        assert done.code == 0, done
        battle.reached["it was taken in"] += 1

    fought = await fight(tmp_path, breaks, people=40)
    fought.holds({11: "an event was parked for want of memory"})
    assert fought.reached["others flowed beside it"]
    assert fought.reached["it was taken in"]


async def test_a_process_that_has_run_out_of_memory_ends_and_its_successor_loses_nothing(
    tmp_path: Path,
) -> None:
    """Memory leaks away until nothing fits: the events are not to blame, so the process ends and they come again."""

    async def breaks(battle: Battle) -> None:
        system, process = battle.system, battle.system.services["payment"].process
        operator = Operator(system)
        await battle.until(0.05)
        await system.restart("payment", {"KAOWU_HUNGER": "leak"}, module=HUNGRY)
        await battle.eventually(lambda: not process.alive, "the process out of memory ending", within=180)
        if "MemoryError" not in process.tail(200):
            raise NotReached(f"it ended for another reason: {process.tail(5)}")
        assert process.exit_code, "whoever supervises it must see that it failed"
        battle.reached["a process out of memory ended"] += 1
        await system.restart("payment")
        blamed = len(await operator.parked("payment"))
        assert blamed <= 1, f"{blamed} events were blamed for what the process lacked"
        done = await operator.replay("payment")
        assert done.code == 0, done

    fought = await fight(tmp_path, breaks, people=40)
    fought.holds({11: "a process out of memory ended"})
    fought.as_the_rules_say()
