"""Ways to switch one protection off, beside those of tests/support/switched_off.py: a context manager each, in force in this
process while it is entered."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import datetime
from typing import Any
from unittest.mock import patch
from uuid import UUID

import asyncpg

from services.chassis import idempotency, inbox, outbox, parked, relay
from services.chassis.cause import Cause
from services.chassis.consuming import Consumers, Record, Unfit
from services.chassis.db import Database, UnitOfWork, driver_url
from services.chassis.relay import Cursor, Page, Relay, Sent
from services.confirmation import api
from services.confirmation.repository import cases
from tests.support.switched_off import replaced


@contextlib.contextmanager
def inbox_apart() -> Iterator[None]:
    """What was taken in is remembered in a transaction of its own, before there is an effect."""
    statement = inbox._CLAIM

    async def claim(uow: UnitOfWork, handler: str, event_ids: Sequence[UUID]) -> set[UUID]:
        connection = await asyncpg.connect(driver_url(uow.url))  # type: ignore[attr-defined]  # see `_knowing_where`
        try:
            rows = await connection.fetch(statement, handler, sorted(set(event_ids)), uow.at)
        finally:
            await connection.close()
        return {row[0] for row in rows}

    with patch.object(inbox, "claim", claim), _knowing_where():
        yield


@contextlib.contextmanager
def _knowing_where() -> Iterator[None]:
    """A unit of work says which database it is of, so that something can be done there outside it."""
    begin = Database.unit_of_work

    @asynccontextmanager
    async def unit_of_work(
        self: Database, at: datetime | None = None, cause: Cause | None = None
    ) -> AsyncIterator[UnitOfWork]:
        async with begin(self, at, cause) as uow:
            uow.url = self.url  # type: ignore[attr-defined]  # for whoever works outside of it
            yield uow

    with patch.object(Database, "unit_of_work", unit_of_work):
        yield


@contextlib.contextmanager
def events_apart() -> Iterator[None]:
    """What happened is said in a transaction of its own, after that in which it became true."""
    begin = Database.unit_of_work

    @asynccontextmanager
    async def unit_of_work(
        self: Database, at: datetime | None = None, cause: Cause | None = None
    ) -> AsyncIterator[UnitOfWork]:
        said: list[tuple[object, ...]] = []
        async with begin(self, at, cause) as uow:
            uow.said = said  # type: ignore[attr-defined]  # for `add_all` below
            yield uow
        if said:
            async with begin(self, at, cause) as after:
                await after.sql(outbox._INSERT_MANY, *[list(column) for column in zip(*said, strict=True)])
                after.events_added += len(said)

    async def add(uow: Any, event: Any, *, sequence: int, cause: Any = None) -> None:
        uow.said.append(outbox._row(uow, event, sequence, cause))

    async def add_all(uow: Any, events: Sequence[tuple[Any, int, Any]]) -> None:
        uow.said += [outbox._row(uow, *one) for one in events]

    with (
        patch.object(Database, "unit_of_work", unit_of_work),
        patch.object(outbox, "add", add),
        patch.object(outbox, "add_all", add_all),
    ):
        yield


@contextlib.contextmanager
def raw_text() -> Iterator[None]:
    """Keys and header names are kept as they come, whatever is in them."""
    with patch.object(parked, "as_text", lambda found: found.decode("utf-8", "replace")):
        yield


@contextlib.contextmanager
def newer_majors_skipped() -> Iterator[None]:
    """A new form of a fact that is handled here is passed over like one that nobody knows."""
    verdict = Consumers.sort_out

    def sort_out(self: Consumers, record: Record) -> Any:
        found = verdict(self, record)
        return None if isinstance(found, Unfit) and found.reason == "unknown-major" else found

    with patch.object(Consumers, "sort_out", sort_out):
        yield


@contextlib.contextmanager
def keys_apart() -> Iterator[None]:
    """A key of idempotence is remembered in a transaction of its own, before there is an answer to it."""
    remember = idempotency.idempotent

    async def idempotent(uow: UnitOfWork, **given: Any) -> Any:
        if given["key"] is not None:
            connection = await asyncpg.connect(driver_url(uow.url))  # type: ignore[attr-defined]  # see `_knowing_where`
            try:
                await connection.execute(
                    "insert into idempotency_keys (caller, key, request_hash, created_at) values ($1, $2, $3, $4)",
                    given["actor"].subject, given["key"], b"", uow.at,
                )  # fmt: skip
            finally:
                await connection.close()
        return await remember(uow, **{**given, "key": None})

    with patch.object(api, "idempotent", idempotent), _knowing_where():
        yield


@contextlib.contextmanager
def no_size() -> Iterator[None]:
    """Whatever its size, an event is written."""
    with patch.object(outbox, "MAX_PAYLOAD_BYTES", 1 << 30):
        yield


@contextlib.contextmanager
def log_emptied() -> Iterator[None]:
    """What is published is no longer kept."""
    settle = Relay._settle

    async def settling(self: Relay, connection: Any, sent: Sent) -> None:
        await settle(self, connection, sent)
        await connection.execute(
            "delete from outbox where id = any($1)", [row["id"] for row in sent.page.rows]
        )

    with patch.object(Relay, "_settle", settling):
        yield


@contextlib.contextmanager
def no_leader_lock() -> Iterator[None]:
    """Every relay leads."""
    connect = Relay._connection

    class Granted:
        """A connection whose advisory locks are always to be had."""

        def __init__(self, connection: Any) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        async def fetchval(self, statement: str, *args: object) -> Any:
            return True if "advisory" in statement else await self._connection.fetchval(statement, *args)

    @asynccontextmanager
    async def connection(self: Relay) -> AsyncIterator[Any]:
        async with connect(self) as found:
            yield Granted(found)

    with patch.object(Relay, "_connection", connection):
        yield


@contextlib.contextmanager
def cursor_first() -> Iterator[None]:
    """The relay moves its cursor behind a page as soon as it has read it."""
    read = Relay._read

    async def reading(self: Relay, connection: Any, cursor: Cursor) -> Page:
        page = await read(self, connection, cursor)
        await connection.execute(relay._MOVE, page.after.lower, page.after.upper, page.after.last_id)
        return page

    with patch.object(Relay, "_read", reading):
        yield


@contextlib.contextmanager
def offsets_first() -> Iterator[None]:
    """Offsets are committed when the records have come, before the database commits what they led to."""
    subscribe, take_in = Consumers.subscribe, Consumers.on_batch

    def subscribing(self: Consumers, broker: Any, **more: Any) -> None:
        self.broker = broker  # type: ignore[attr-defined]  # for `on_batch` below
        subscribe(self, broker, **more)

    async def on_batch(self: Consumers, records: Sequence[Record]) -> None:
        (subscriber,) = self.broker.subscribers  # type: ignore[attr-defined]  # put there above
        await subscriber.consumer.commit()
        await take_in(self, records)

    with patch.object(Consumers, "subscribe", subscribing), patch.object(Consumers, "on_batch", on_batch):
        yield


def no_version_predicate() -> AbstractContextManager[Any]:
    """A case is written whatever became of it since it was read."""
    return replaced(cases, "_SAVE_MANY", " and c.version = n.read_version", "")


def no_row_locks() -> AbstractContextManager[Any]:
    """Cases are read without being locked."""
    return replaced(cases, "_LOCK_MANY", " for update", "")
