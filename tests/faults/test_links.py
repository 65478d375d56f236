"""Links that are half open, slow, or cut at the worst moment: rows 4, 14, 15 and 32 of the fault matrix."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.harness import Battle, fight
from tests.faults.links import broker_link
from tests.support.proxy import DOWN, UP, Latency, Timeout

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
