"""The simulated carrier of SMS with bad moments: some calls are told to come later, some are taken and never answered."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from deploy.bench.program import Door, Task, run
from deploy.simulators.http import Reply, Request
from deploy.simulators.world import Plan, Simulators
from services.chassis.clock import SystemClock

_SEED = 8
_HANG = 60.0  # beyond anybody's patience
_LATER = Reply.of({"Code": "Throttling.User", "Message": "flow control", "RequestId": "0"}, 429)


async def work(task: Task, door: Door) -> None:
    """Says at any time what it took: `count`."""
    plan = Plan(
        keys=Path(task["keys"]),
        data=Path(task["data"]),
        receipt_delay=timedelta(days=1),  # whoever wants receipts pushes them
    )
    world = Simulators(plan, SystemClock())
    chance = random.Random(_SEED)
    handle = world.sms.handle
    later = unanswered = 0

    async def moody(request: Request) -> Reply:
        nonlocal later, unanswered
        if request.headers.get("x-acs-action") != "SendSms":
            return await handle(request)
        drawn = chance.random()
        if drawn < task["later"]:
            later += 1
            return _LATER
        reply = await handle(request)
        if drawn < task["later"] + task["unanswered"]:
            unanswered += 1
            await asyncio.sleep(_HANG)
        return reply

    world.sms.handle = moody  # type: ignore[method-assign]
    different: set[str] = set()
    seen = 0

    def count() -> dict[str, Any]:
        nonlocal seen
        book = world.sms.messages
        different.update(message.out_id for message in book[seen:])
        seen = len(book)
        return {
            "taken": seen, "different": len(different), "later": later, "unanswered": unanswered,
            "asked": world.sms.asked, "at": time.monotonic(),
        }  # fmt: skip

    async with world:
        accounts = {name: str(path) for name, path in world.accounts.items()}
        await door.ready(accounts=accounts, journal=str(plan.data / "sms.jsonl"))
        while await door.told() == "count":
            door.result(**count())


if __name__ == "__main__":
    run(work)
