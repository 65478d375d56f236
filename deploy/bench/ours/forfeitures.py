"""What payment says after its close, onto its topic: one forfeiture of each of so many people, as our relay packs them."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import UTC, datetime
from typing import Any

from uuid_utils.compat import uuid7

from deploy.bench.program import Door, Task, run
from deploy.bench.telling import forfeited, person
from services.chassis.packing import hand_over
from services.chassis.relay import producer

_PAGE = 2000
_AHEAD = 4  # pages that are not acknowledged yet
_VERSION = 2  # first they owed


async def work(task: Task, door: Door) -> None:
    await door.ready()
    example = forfeited(0)
    payload, own = example.model_dump_json(), str(example.registration_id)
    unsent: deque[asyncio.Future[Any]] = deque()
    async with producer(task["bootstrap"]) as kafka:
        for first in range(0, task["people"], _PAGE):
            moment, page = datetime.now(UTC), list[Any]()
            for number in range(first, min(first + _PAGE, task["people"])):
                key, event_id = str(person(number)), uuid7()
                page.append(
                    (
                        0, event_id, example.topic, key, example.type, _VERSION, moment, payload.replace(own, key),
                        str(event_id), None, None,
                    )
                )  # fmt: skip
            unsent.append(asyncio.gather(*await hand_over(kafka, page)))
            if len(unsent) > _AHEAD:
                await unsent.popleft()
        await asyncio.gather(*unsent)
    door.result(events=task["people"])


if __name__ == "__main__":
    run(work)
