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

_PEOPLE = 500  # of a block: their first versions, their second ones, …
_AHEAD = 8  # blocks that are not acknowledged yet


async def work(task: Task, door: Door) -> None:
    """`events`, `versions` of each registration in order, block by block."""
    await door.ready()
    example = pre_registered(uuid7())
    payload, own = example.model_dump_json(), str(example.registration_id)
    unsent: deque[asyncio.Future[Any]] = deque()
    said = 0
    async with producer(task["bootstrap"]) as kafka:
        while said < task["events"]:
            people = [str(uuid7()) for _ in range(min(_PEOPLE, -(-task["events"] // task["versions"])))]
            moment = datetime.now(UTC)
            page: list[Any] = []
            for version in range(1, task["versions"] + 1):
                for key in people:
                    event_id = uuid7()
                    page.append(
                        (
                            0, event_id, task["topic"], key, example.type, version, moment, payload.replace(own, key),
                            str(event_id), None, None,
                        )
                    )  # fmt: skip
            page = page[: task["events"] - said]
            said += len(page)
            unsent.append(asyncio.gather(*await hand_over(kafka, page)))
            if len(unsent) > _AHEAD:
                await unsent.popleft()
        await asyncio.gather(*unsent)
    door.result(events=said)


if __name__ == "__main__":
    run(work)
