"""Many real events onto a topic, as our relay packs them, without an outbox behind them."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import UTC, datetime
from typing import Any

from uuid_utils.compat import uuid7

from deploy.bench.cases import pre_registered
from deploy.bench.program import Door, Task, run
from services.chassis.packing import hand_over
from services.chassis.relay import producer

_PAGE = 2000


async def work(task: Task, door: Door) -> None:
    """`events` of `people` registrations, round and round: each registration's versions in order."""
    await door.ready()
    people = [uuid7() for _ in range(task["people"] or 0)]
    example = pre_registered(uuid7())
    payload, moment = example.model_dump_json(), datetime.now(UTC)
    own = str(example.registration_id)
    unsent: deque[asyncio.Future[Any]] = deque()
    async with producer(task["bootstrap"]) as kafka:
        for first in range(0, task["events"], _PAGE):
            page: list[Any] = []
            for number in range(first, min(first + _PAGE, task["events"])):
                event_id = uuid7()
                key = str(people[number % len(people)] if people else event_id)
                version = number // len(people) + 1 if people else 1
                page.append(
                    (
                        0, event_id, example.topic, key, example.type, version, moment, payload.replace(own, key),
                        str(event_id), None, None,
                    )
                )  # fmt: skip
            unsent.append(asyncio.gather(*await hand_over(kafka, page)))
            if len(unsent) > 2:
                await unsent.popleft()
        await asyncio.gather(*unsent)
        door.result(events=task["events"])


if __name__ == "__main__":
    run(work)
