"""The database of one service: its engine, its unit of work (the only commit), and the base of its tables."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import asyncpg
from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import SQLModel

from services.chassis.cause import Cause, current_cause
from services.chassis.clock import Clock
from services.chassis.crash import crash_point
from services.chassis.known_types import Connection

_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

# Bounds on how long one statement or one forgotten transaction may hold others up. An open writer also holds
# the relay's horizon, so nothing of this service would be published while it idles.
# A gateway that calls waits five seconds for its answer: whoever waits for a connection and then for a lock must have
# said no by then.
_CONNECT_WITHIN = 5.0  # seconds, to a server
_CONNECTION_WITHIN = 2.0  # seconds, for a free one of the pool
_CLOSE_WITHIN = 5.0
COMMIT_WITHIN = 60.0  # shorter than the driver's own limit for a statement, which would take the commit back
SESSION_SETTINGS = {
    "timezone": "UTC",
    "lock_timeout": "2500ms",
    "idle_in_transaction_session_timeout": "60s",
    "jit": "off",
}


# How a connection ends under a statement: broken, given up, or closed by a server that goes down.
LOST: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InternalClientError,  # a server that goes down has said so, and its end has not come yet
)


def make_base() -> type[SQLModel]:
    """A base class of tables with a registry and metadata of its own, so that services never share a table.

    Use: `Base = make_base()` in a service's tables.py, then `class Case(Base, table=True)`.
    """
    own = registry(metadata=MetaData(naming_convention=_NAMING))

    class Base(SQLModel, registry=own):
        """What every table of one service derives from."""

    return Base


class Row(asyncpg.Record):  # type: ignore[misc]  # asyncpg is published without types
    """One row of an answer; its columns are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class UnitOfWork:
    """One transaction: everything in it becomes true together, or nothing does.

    `at` is the moment it is decided by; `cause` is what led here. Only `Database.unit_of_work` commits it.
    """

    def __init__(self, connection: Any, at: datetime, cause: Cause) -> None:
        self._connection = connection
        self.at = at
        self.cause = cause
        self.events_added = 0
        self._callbacks: list[Callable[[], None]] = []

    async def sql(self, statement: str, *args: object) -> Sequence[Row]:
        """Run one statement in the driver's own form (`$1`, lists are arrays) and return its rows, if any."""
        try:
            rows: list[Row] = await self._connection.fetch(statement, *args)
        except asyncpg.DataError as error:
            raise _without_values(error) from None
        return rows

    async def changed(self, statement: str, *args: object) -> int:
        """Run one statement in the driver's own form and return how many rows it changed."""
        try:
            done: str = await self._connection.execute(statement, *args)
        except asyncpg.DataError as error:
            raise _without_values(error) from None
        return int(done.rpartition(" ")[2])

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call this once the transaction is durable; never when it is rolled back."""
        self._callbacks.append(callback)

    def committed(self) -> None:
        """For the database only."""
        for callback in self._callbacks:
            callback()


def _without_values(error: Exception) -> Exception:
    """A value that does not fit is quoted by the driver, and may be personal data: only what was wrong is kept."""
    return WrongArgument(getattr(error, "sqlstate", None) or "an argument does not fit its type")


class WrongArgument(ValueError):
    """A statement was given a value that its column cannot hold. A programming error; never carries the value."""


class OutcomeUnknown(ConnectionError):
    """The connection was lost while a commit was under way: all of it may have become true, or nothing.

    To do the same thing again is safe where it is done once: by the inbox, by a key, by the state it starts from.
    """


class Database:
    """A service's connections. `on_events` is called after each commit that added events."""

    def __init__(self, url: str, *, clock: Clock, pool_size: int = 8, application: str = "kaowu") -> None:
        self.clock = clock
        self.url = url
        self.on_events: Callable[[], None] = lambda: None
        self.pool_size = pool_size
        self._application = application
        self._pool: Any = None
        self._opening = asyncio.Lock()

    async def _connections(self) -> Any:
        if self._pool is None:
            async with self._opening:
                if self._pool is None:
                    self._pool = await asyncpg.create_pool(
                        driver_url(self.url),
                        min_size=1,
                        max_size=self.pool_size,
                        max_inactive_connection_lifetime=0,
                        statement_cache_size=256,
                        timeout=_CONNECT_WITHIN,
                        command_timeout=120,
                        server_settings={**SESSION_SETTINGS, "application_name": self._application},
                        record_class=Row,
                        connection_class=Connection,
                        # A unit of work leaves nothing behind but its transaction, which has ended: no round trip to reset.
                        reset=_nothing_to_reset,
                        init=_read_json,
                    )
        return self._pool

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        pool = await self._connections()
        # A full pool answers soon (503 upstream); a caller that waits for ever only hides the fault.
        async with asyncio.timeout(_CONNECTION_WITHIN):
            connection = await pool.acquire()
        try:
            yield connection
        finally:
            await pool.release(connection)

    @asynccontextmanager
    async def unit_of_work(
        self, at: datetime | None = None, cause: Cause | None = None
    ) -> AsyncIterator[UnitOfWork]:
        """A transaction that is committed when the block ends, and rolled back when it raises.

        Raises OutcomeUnknown when nobody can say which of the two it was.
        """
        committing = False
        async with self._connection() as connection:
            uow = UnitOfWork(connection, at or self.clock.now(), cause or current_cause())
            try:
                transaction = connection.transaction()
                await transaction.start()
                try:
                    yield uow
                    crash_point("before-commit")
                except BaseException:
                    await transaction.rollback()
                    raise
                committing = True
                await _commit(connection, transaction)
            except LOST as error:
                if committing:
                    raise OutcomeUnknown(type(error).__name__) from error
                raise
            crash_point("after-commit")
        if uow.events_added:
            self.on_events()
        uow.committed()

    @asynccontextmanager
    async def reading(self, at: datetime | None = None) -> AsyncIterator[UnitOfWork]:
        """A transaction that only reads: the database refuses a write in it."""
        async with self._connection() as connection, connection.transaction(readonly=True):
            yield UnitOfWork(connection, at or self.clock.now(), current_cause())

    async def glance(self, statement: str, *args: object) -> Sequence[Row]:
        """One statement that only reads: a snapshot of its own needs no transaction, and asks the server once."""
        async with self._connection() as connection:
            rows: list[Row] = await connection.fetch(statement, *args)
        return rows

    async def dispose(self) -> None:
        """Close every connection."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), _CLOSE_WITHIN)
            except TimeoutError:
                pool.terminate()


async def _commit(connection: Any, transaction: Any) -> None:
    """Never taken back. The server keeps a transaction from every other eye until its synchronous standby has it; a
    driver that gives up waiting, or whose task is cancelled, asks the server to give up too, and then everybody sees
    what is lost when the standby takes over. So the connection is given up instead, and the server goes on waiting.
    """
    committing = asyncio.ensure_future(transaction.commit())
    try:
        await asyncio.wait((committing,), timeout=COMMIT_WITHIN)
    finally:
        if not committing.done():
            connection.terminate()
            await asyncio.gather(committing, return_exceptions=True)
    await committing


async def _read_json(connection: Any) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=json.loads)


async def _nothing_to_reset(_connection: object) -> None: ...


def driver_url(url: str) -> str:
    """The same address in the form the bare driver takes, for connections outside the pool."""
    return url.replace("postgresql+asyncpg://", "postgresql://", 1)
