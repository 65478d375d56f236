"""What gathers work waits, unless somebody waits for it."""

from __future__ import annotations

import asyncio

from services.chassis.pacing import Pace


async def test_the_first_turn_waits_for_nothing_and_the_next_one_for_its_time() -> None:
    pace = Pace(60)
    await asyncio.wait_for(pace.keep(), 1)
    pace.begin()
    waiting = asyncio.create_task(pace.keep())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    pace.hurry()
    await asyncio.wait_for(waiting, 1)
    again = asyncio.create_task(pace.keep())
    await asyncio.sleep(0.02)
    assert not again.done(), "who was hurried once is not hurried for ever"
    again.cancel()


async def test_without_a_pace_nobody_waits() -> None:
    pace = Pace(0)
    pace.begin()
    await asyncio.wait_for(pace.keep(), 1)
