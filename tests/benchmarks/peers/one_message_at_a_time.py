"""The same rows as ours, as a service writes them that takes one message at a time: each in a transaction of its own.

It is given its events in memory and asks nobody for them; its texts' versions, moments and references are there already.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
from uuid_utils.compat import uuid7

from deploy.bench.program import Door, Task, run
from deploy.bench.telling import forfeited, person
from services.chassis.db import driver_url

CLAIM = "insert into inbox (handler, event_id, received_at) values ($1, $2, $3) on conflict do nothing returning event_id"
KNOW = """
insert into recipients (registration_id, cycle_id, standing, contact_try_at) values ($1, $2, 'expired', $3)
on conflict (registration_id) do update set standing = excluded.standing
returning contact_known = contact_wanted as reachable
"""
KEEP = """
insert into messages (message_id, registration_id, occasion, variant, instance, channel, state, facts, deadline_at,
    created_at, state_at, not_before, due_at, template_version, correlation_id, caused_by, priority)
values ($1, $2, 'expired', '', $3, $4, 'created', $5, null, $6, $6, $6, case when $7 then $6::timestamptz end, 1, $8, $9, 0)
on conflict (registration_id, occasion, instance, channel) do nothing
"""


async def work(task: Task, door: Door) -> None:
    connection = await asyncpg.connect(driver_url(task["database"]))
    cycle, facts = forfeited(0).cycle_id, task["facts"]
    await door.ready()
    kept, began = 0, time.perf_counter()
    number = task["first"]
    while time.perf_counter() - began < task["seconds"]:
        one, event_id, at = person(number), uuid7(), datetime.now(UTC)
        for channel in ("sms", "email"):
            async with connection.transaction():
                if await connection.fetchval(CLAIM, f"tell-{channel}", event_id, at) is None:
                    continue
                reachable = await connection.fetchval(KNOW, one, cycle, at)
                await connection.execute(
                    KEEP, uuid4(), one, "payment-2", channel, facts, at, reachable, str(event_id), event_id
                )
                kept += 1
        number += 1
    door.result(messages=kept, people=number - task["first"], seconds=time.perf_counter() - began)
    await connection.close()


if __name__ == "__main__":
    run(work)
