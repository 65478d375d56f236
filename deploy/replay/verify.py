"""Rebuilds every service beside its live database and compares the two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal
from uuid import UUID

import asyncpg

from deploy.rehearsal.invariants.reading import subscriptions_of
from deploy.replay.comparing import Compared, Difference, compare
from deploy.replay.engine import CannotReplay, Replayed, of_others, replay
from deploy.replay.history import History, Said, read_log, read_topics
from deploy.replay.order import order
from deploy.replay.reactions import Recorded
from deploy.replay.scratch import scratch
from deploy.replay.standing import CannotLook, Standing
from services.chassis.db import Database, driver_url

Source = Literal["topics", "outbox"]
NAMED: Final = 50  # differences of one table that are named; the rest is counted
_LOOKS: Final = 10  # at topics of a running system, whose relays may be a moment behind


def source_of(word: str | None) -> Source | None:
    """What was typed. `outboxes` will do as well. Raises CannotLook for anything else."""
    sources: dict[str | None, Source | None] = {
        None: None,
        "topics": "topics",
        "outbox": "outbox",
        "outboxes": "outbox",
    }
    if word not in sources:
        raise CannotLook(f"--from {word} is nothing to rebuild from: topics or outbox")
    return sources[word]


@dataclass
class OfService:
    """What a verification found in one service."""

    service: str
    replayed: Replayed
    tables: Mapping[str, Compared]
    waiting: int


@dataclass
class Verified:
    """What a verification found."""

    source: Source
    because: str
    events: int
    services: list[OfService] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)


@dataclass(frozen=True)
class Live:
    """One service's database in one snapshot."""

    connection: Any
    inbox: Mapping[UUID, datetime]
    parked: frozenset[UUID]
    said: frozenset[UUID]


async def verify(
    place: Standing,
    *,
    source: Source | None = None,
    say: Callable[[str], None] = lambda _: None,
    begin: Callable[[str, int], Callable[[int], None]] = lambda *_: lambda _: None,
) -> Verified:
    """Compare everything. `source` None: the topics if they hold everything that was said, else the logs."""
    async with AsyncExitStack() as stack:
        live = {
            service: await stack.enter_async_context(_snapshot(url))
            for service, url in place.databases.items()
        }
        history, because = await _history(place, live, source)
        chosen: Source = "topics" if history.source == "topics" else "outbox"
        say(f"rebuilding from {'the topics' if chosen == 'topics' else 'the logs'}: {because}")
        if history.unreadable:
            say(f"{history.unreadable} records on the topics are no events of ours and were passed over")
        verified = Verified(chosen, because, len(history))
        handlers = subscriptions_of(place.databases)
        for service in place.databases:
            verified.services.append(
                await _one(
                    place, service, history, live[service], handlers[service], verified.differences, begin
                )
            )
        return verified


@asynccontextmanager
async def _snapshot(url: str) -> AsyncIterator[Live]:
    connection = await asyncpg.connect(driver_url(url), timeout=10, server_settings={"timezone": "UTC"})
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            inbox = {
                row[0]: row[1] for row in await connection.fetch("select event_id, received_at from inbox")
            }
            parked = await connection.fetch("select event_id from parked where status <> 'replayed'")
            said = await connection.fetch("select event_id from outbox")
            yield Live(
                connection, inbox, frozenset(row[0] for row in parked), frozenset(row[0] for row in said)
            )
    finally:
        await connection.close()


async def _history(place: Standing, live: Mapping[str, Live], source: Source | None) -> tuple[History, str]:
    if source == "outbox":
        return await _logs(place), "--from outbox"
    looks = _LOOKS if place.running else 1
    while True:
        history = await read_topics(place.bootstrap)
        missing = {service: len(one.said - history.ids(service)) for service, one in live.items()}
        if not any(missing.values()):
            return history, "--from topics" if source else "the broker holds everything that was said"
        looks -= 1
        if not looks:
            break
        await asyncio.sleep(0.5)
    lacking = ", ".join(f"{count} of {service}" for service, count in missing.items() if count)
    if source == "topics":
        return history, f"--from topics, though they lack events: {lacking}"
    return await _logs(place), f"the topics lack events: {lacking}"


async def _logs(place: Standing) -> History:
    history = History("outbox")
    for service, url in place.databases.items():
        connection = await asyncpg.connect(driver_url(url), timeout=10)
        try:
            history.said[service] = await read_log(connection)
        finally:
            await connection.close()
    return history


async def _one(
    place: Standing,
    service: str,
    history: History,
    live: Live,
    handlers: Mapping[str, str],
    differences: list[Difference],
    begin: Callable[[str, int], Callable[[int], None]],
) -> OfService:
    # Of a running system more may have been said since its snapshot was taken.
    own = [one for one in history.said[service] if not place.running or one.event_id in live.said]
    others = of_others(history.said, service, frozenset(handlers))
    heard = [one for event_id, one in others.items() if event_id in live.inbox]
    waiting = [
        one for event_id, one in others.items() if event_id not in live.inbox and event_id not in live.parked
    ]
    if not place.running:
        differences.extend(_not_taken_in(service, one) for one in waiting)
    steps = order(own, heard, live.inbox)
    tick = begin(service, len(steps))
    async with scratch(place, service) as url:
        database = Database(url, clock=Recorded(datetime(2000, 1, 1, tzinfo=UTC)), pool_size=2)
        try:
            done = await replay(database, service, place.cycle, steps, tick=tick)
        except CannotReplay as error:
            differences.append(Difference(service, "(replay)", "stopped", "", str(error), ""))
            return OfService(service, Replayed(), {}, len(waiting))
        finally:
            await database.dispose()
        differences.extend(
            Difference(
                service, "outbox", f"{one.key} {one.sequence}", ", ".join(one.fields) or "type",
                one.said_then, f"its cause gives {one.says_now} with other values now",
            )
            for one in done.contradictions
        )  # fmt: skip
        rebuilt = await asyncpg.connect(driver_url(url), timeout=10, server_settings={"timezone": "UTC"})
        try:
            async with rebuilt.transaction(readonly=True):
                tables = await compare(service, live.connection, rebuilt, differences, limit=NAMED)
        finally:
            await rebuilt.close()
    return OfService(service, done, tables, len(waiting))


def _not_taken_in(service: str, one: Said) -> Difference:
    return Difference(
        service,
        "inbox",
        str(one.event_id),
        "",
        f"{one.type} was said, and is neither taken in nor parked",
        "",
    )
