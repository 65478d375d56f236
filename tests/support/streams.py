"""A small service on the chassis, for tests of the plumbing: one aggregate with a version, one log of effects."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from contracts import confirmation
from contracts.catalogue import parse
from contracts.envelope import Envelope
from deploy.local.databases import DatabaseLogin
from services.chassis import outbox
from services.chassis.clock import SystemClock
from services.chassis.consuming import Consumers, make_broker
from services.chassis.db import Database, UnitOfWork
from services.chassis.migrations import PARTITIONS_V2, PLUMBING_V1
from services.chassis.relay import Relay
from tests.support.kafka import Record

TOPIC = confirmation.Confirmed.topic
CYCLE = "2024-health-leshan"
OWN_TABLES = (
    "create table cases (id uuid primary key, version bigint not null default 0)",
    "create table effects (n bigint generated always as identity primary key, key text, type text, sequence bigint)",
)


async def make_tables(login: DatabaseLogin) -> None:
    """The plumbing's tables and this small service's own."""
    engine = create_async_engine(login.url)
    async with engine.begin() as connection:
        for statement in (*PLUMBING_V1, *PARTITIONS_V2, *OWN_TABLES):
            await connection.execute(text(statement.replace(":", "\\:")))
    await engine.dispose()


def confirmed(registration_id: UUID) -> confirmation.Confirmed:
    return confirmation.Confirmed(
        cycle_id=CYCLE, registration_id=registration_id, site_id="shizhong", form_version=1, desk="shizhong"
    )


async def say(uow: UnitOfWork, registration_id: UUID) -> int:
    """Lock and update the aggregate, then say so: the order that every service keeps."""
    row = await uow.sql(
        "insert into cases (id, version) values ($1, 1) "
        "on conflict (id) do update set version = cases.version + 1 returning version",
        registration_id,
    )
    await outbox.add(uow, confirmed(registration_id), sequence=row[0].version)
    return int(row[0].version)


async def note(uow: UnitOfWork, events: Sequence[confirmation.Confirmed]) -> None:
    """A handler whose effect would show if it came twice or out of order."""
    await uow.sql(
        "insert into effects (key, type, sequence) select * from unnest($1::text[], $2::text[], $3::bigint[])",
        [e.key for e in events],
        [e.type for e in events],
        [e.envelope.sequence for e in events],
    )


def database(login: DatabaseLogin) -> Database:
    return Database(login.url, clock=SystemClock())


@contextlib.asynccontextmanager
async def relaying(login: DatabaseLogin, bootstrap: str) -> AsyncIterator[Relay]:
    """A relay that runs until the block ends."""
    relay = Relay(login.url, bootstrap, service="test")
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        relay.stop()
        await asyncio.wait_for(task, 10)


@contextlib.asynccontextmanager
async def consuming(consumers: Consumers, bootstrap: str, group: str) -> AsyncIterator[None]:
    """One member of a group that takes events in until the block ends."""
    consumers._service = group  # the broker knows the group by this name, and begins anew for another
    broker = make_broker(bootstrap, service=group)
    consumers.subscribe(broker)
    await broker.start()
    try:
        yield
    finally:
        await broker.stop()


def sequences(records: Sequence[Record]) -> dict[str, list[int]]:
    """First occurrences per key, in the order they stand in the topic."""
    seen: set[UUID] = set()
    found: dict[str, list[int]] = {}
    for record in records:
        envelope = Envelope.from_headers(record.headers)
        assert record.key is not None
        assert parse(envelope, record.value or b"").key == record.key.decode()
        if envelope.event_id not in seen:
            seen.add(envelope.event_id)
            found.setdefault(record.key.decode(), []).append(envelope.sequence)
    return found


NOON = datetime(2023, 12, 14, 4, tzinfo=UTC)
