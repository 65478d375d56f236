"""Links that are half open, slow, or cut at the worst moment: rows 4, 14, 15 and 32 of the fault matrix."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.faults.harness import Battle, fight
from tests.faults.links import broker_link, database_link
from tests.support.proxy import DOWN, UP, Latency, LimitTo, Timeout

pytestmark = pytest.mark.faults

SILENCE = 12.0  # real seconds; longer than a consumer's session


async def test_a_broker_behind_a_half_open_or_slow_link_costs_time_only(tmp_path: Path) -> None:
    """Rows 14, 4 and 15: connections stay open and nothing comes through, and the relay dies meanwhile; then answers take
    one to five seconds while the payment window closes."""

    async def breaks(battle: Battle) -> None:
        system = battle.system
        await battle.until(0.02)
        up, down = Timeout(), Timeout()
        async with battle.heedless() as further:
            with link.proxy.poisoned(UP, up), link.proxy.poisoned(DOWN, down):
                await further(8)

                async def waiting() -> bool:
                    ready = await battle.ready(system.services["registration"])
                    return int(ready["outbox_unpublished"]) > 3

                await battle.eventually(waiting, "people served while their events wait")
                battle.reached["people were served on a half-open link"] += up.done and down.done
                await system.kill("registration")
                battle.reached["the relay died before any acknowledgement"] += 1
                await asyncio.sleep(SILENCE)
        await system.restart("registration")
        payment = system.services["payment"]
        await battle.until(0.9)
        async with battle.heedless():
            up_late, down_late = Latency(0.2), Latency(1.0, jitter=4.0)
            with link.proxy.poisoned(UP, up_late), link.proxy.poisoned(DOWN, down_late):

                async def closed() -> bool:
                    return await battle.metric("kaowu_payment_close_seconds_count", payment) > 0

                await battle.eventually(closed, "the payment window closed", within=180)
                battle.reached["the window closed on a slow link"] += down_late.done

    async with broker_link() as link:
        fought = await fight(tmp_path, breaks, people=30, given=link.given, extra=link.extra)
    fought.holds(
        {
            4: "the relay died before any acknowledgement",
            14: "people were served on a half-open link",
            15: "the window closed on a slow link",
        }
    )


async def test_a_link_cut_during_a_commit_leaves_one_effect_whether_or_not_it_arrived(tmp_path: Path) -> None:
    """Row 32, for requests (registration), batches of events (confirmation), and both with a gateway's notices and jobs
    (payment): of each kind some commits arrive and only their answer is lost, and some never arrive."""
    # What a transaction must have said to be one of those: its events' topic, or the handler that takes events in.
    said = {
        "registration": b"exam.registration",
        "confirmation": b"open_cases",
        "payment": b"exam.payment",
    }

    async def breaks(battle: Battle) -> None:
        await battle.until(0.01)
        async with AsyncExitStack() as stack:
            cuts = []
            for service, after in said.items():
                proxy = await stack.enter_async_context(database_link(battle.system, service))
                # In this order: as long as the first one cuts, the second sees no commit.
                for arrives in (False, True):
                    words = "answered by nobody" if arrives else "that never arrived"
                    cut = LimitTo(b"COMMIT;", after=after, resets=b"BEGIN;", passes=arrives, times=3)
                    cuts.append((f"{service}: a commit {words}", cut))
                    proxy.add(UP, cut)
            await battle.until(1.0)
            for name, cut in cuts:
                battle.reached[name] += cut.done
            battle.reached["asked again by people"] += battle.driver._acts._doors.counts.repeated
            twice = await battle.metric("kaowu_events_duplicate", battle.system.services["confirmation"])
            battle.reached["a committed batch was taken in again"] += int(twice)

    fought = await fight(tmp_path, breaks, people=30)
    fought.holds({32: "registration: a commit answered by nobody"})
    fought.as_the_rules_say()
    assert {name: fought.reached[name] for name in fought.reached if ": a commit" in name} == {
        f"{service}: a commit {words}": 3
        for service in said
        for words in ("answered by nobody", "that never arrived")
    }
    assert fought.reached["asked again by people"] >= 6
    assert fought.reached["a committed batch was taken in again"] >= 3
