"""The same rows as ours, as a service writes them that takes one message at a time: each in a transaction of its own.

Its events lie in memory as a broker would hand them over, and it reads them as ours does: headers, payload, what is to be told.
What ours does beside that it is spared: it asks no broker, looks for nothing that is parked, and closes no calls. Its texts'
versions are there already, and whom it tells is written once, with the SMS.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import asyncpg
import orjson
from uuid_utils.compat import uuid7

from contracts import payment
from contracts.catalogue import parse
from contracts.cycle import Cycle
from contracts.envelope import Envelope
from deploy.bench.counter import CYCLE_FILE
from deploy.bench.program import Door, Task, run
from deploy.bench.telling import forfeited, person
from services.chassis.db import driver_url
from services.notification.domain import told
from services.notification.domain.calling import CallPatience

MORE_THAN_ANY = 2_500  # a second
CLAIM = "insert into inbox (handler, event_id, received_at) values ($1, $2, $3) on conflict do nothing returning event_id"
KNOW = """
insert into recipients (registration_id, cycle_id, standing, contact_try_at) values ($1, $2, 'expired', $3)
on conflict (registration_id) do update set standing = excluded.standing
returning contact_known = contact_wanted as reachable
"""
REACHABLE = "select contact_known = contact_wanted from recipients where registration_id = $1 for share"
KEEP = """
insert into messages (message_id, registration_id, occasion, variant, instance, channel, state, facts, deadline_at,
    created_at, state_at, not_before, due_at, template_version, correlation_id, caused_by, priority, call_at)
values ($1, $2, $3, $4, $5, $6, 'created', $7, $8, $9, $9, $9, case when $10 then $9::timestamptz end, 1, $11, $12, 0, $13)
on conflict (registration_id, occasion, instance, channel) do nothing
"""


def events(first: int, count: int) -> Iterator[tuple[list[tuple[str, bytes]], bytes]]:
    """Headers and payload of each."""
    example = forfeited(first)
    payload, own = example.model_dump_json(), str(example.registration_id)
    for number in range(first, first + count):
        key, event_id = str(person(number)), uuid7()
        envelope = Envelope(
            event_id=event_id, type=example.type, source=example.source, subject=key, time=datetime.now(UTC),
            dataschema=example.dataschema(), sequence=2, correlation_id=str(event_id),
        )  # fmt: skip
        yield envelope.headers(), payload.replace(own, key).encode()


async def work(task: Task, door: Door) -> None:
    connection = await asyncpg.connect(driver_url(task["database"]))
    cycle, patience = Cycle.read(CYCLE_FILE), CallPatience()
    waiting = list(events(task["first"], task["seconds"] * MORE_THAN_ANY))
    await door.ready()
    kept, people, began = 0, 0, time.perf_counter()
    for headers, payload in waiting:
        if time.perf_counter() - began >= task["seconds"]:
            break
        at = datetime.now(UTC)
        envelope = Envelope.from_headers(headers)
        event = parse(envelope, payload)
        assert isinstance(event, payment.Expired)
        one, said = event.registration_id, told.expired(event, cycle)
        facts, instance = orjson.dumps(said.facts).decode(), f"payment-{envelope.sequence}"
        for channel in ("sms", "email"):
            async with connection.transaction():
                if await connection.fetchval(CLAIM, f"tell-{channel}", envelope.event_id, at) is None:
                    continue
                if channel == "sms":
                    reachable = await connection.fetchval(KNOW, one, event.cycle_id, at)
                    call_at = patience.call_at(said.occasion, said.deadline, at)
                else:
                    reachable, call_at = await connection.fetchval(REACHABLE, one), None
                await connection.execute(
                    KEEP, uuid7(), one, said.occasion, said.variant, instance, channel, facts, said.deadline, at, reachable,
                    envelope.correlation_id, envelope.event_id, call_at,
                )  # fmt: skip
                kept += 1
        people += 1
    door.result(messages=kept, people=people, seconds=time.perf_counter() - began)
    await connection.close()


if __name__ == "__main__":
    run(work)
