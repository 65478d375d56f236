"""The database of one service: its engine, its unit of work (the only commit), and the base of its tables."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import MetaData, Row, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.orm import registry
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from services.chassis.cause import Cause, current_cause
from services.chassis.clock import Clock
from services.chassis.crash import crash_point

_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

# Bounds on how long one statement or one forgotten transaction may hold others up. An open writer also holds
# the relay's horizon, so nothing of this service would be published while it idles.
SESSION_SETTINGS = {
    "timezone": "UTC",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
    "jit": "off",
}


def make_base() -> type[SQLModel]:
    """A base class of tables with a registry and metadata of its own, so that services never share a table.

    Use: `Base = make_base()` in a service's tables.py, then `class Case(Base, table=True)`.
    """
    own = registry(metadata=MetaData(naming_convention=_NAMING))

    class Base(SQLModel, registry=own):
        """What every table of one service derives from."""

    return Base


class UnitOfWork:
    """One transaction: everything in it becomes true together, or nothing does.

    `at` is the moment it is decided by; `cause` is what led here. Only `Database.unit_of_work` commits it.
    """

    def __init__(self, session: AsyncSession, at: datetime, cause: Cause) -> None:
        self.session = session
        self.at = at
        self.cause = cause
        self.events_added = 0
        self._callbacks: list[Callable[[], None]] = []

    async def sql(self, statement: str, *args: object) -> Sequence[Row[Any]]:
        """Run one statement in the driver's own form (`$1`, lists are arrays) and return its rows, if any."""
        connection: AsyncConnection = await self.session.connection()
        result = await connection.exec_driver_sql(statement, args)
        return result.fetchall() if result.returns_rows else ()

    async def changed(self, statement: str, *args: object) -> int:
        """Run one statement in the driver's own form and return how many rows it changed."""
        connection: AsyncConnection = await self.session.connection()
        return (await connection.exec_driver_sql(statement, args)).rowcount

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call this once the transaction is durable; never when it is rolled back."""
        self._callbacks.append(callback)

    def committed(self) -> None:
        """For the database only."""
        for callback in self._callbacks:
            callback()


class Database:
    """A service's connections. `on_events` is called after each commit that added events."""

    def __init__(self, url: str, *, clock: Clock, pool_size: int = 8, application: str = "kaowu") -> None:
        self.clock = clock
        self.url = url
        self.on_events: Callable[[], None] = lambda: None
        self.engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=pool_size,
            # A full pool answers soon (503 upstream); a caller that waits for ever only hides the fault.
            pool_timeout=5,
            pool_pre_ping=False,
            isolation_level="READ COMMITTED",
            connect_args={
                "server_settings": {**SESSION_SETTINGS, "application_name": application},
                "timeout": 5,
                "command_timeout": 120,
            },
        )
        event.listen(self.engine.sync_engine, "handle_error", _forget_statement)

    @asynccontextmanager
    async def unit_of_work(
        self, at: datetime | None = None, cause: Cause | None = None
    ) -> AsyncIterator[UnitOfWork]:
        """A transaction that is committed when the block ends, and rolled back when it raises."""
        async with AsyncSession(self.engine, expire_on_commit=False) as session:
            uow = UnitOfWork(session, at or self.clock.now(), cause or current_cause())
            yield uow
            crash_point("before-commit")
            await session.commit()
            crash_point("after-commit")
        if uow.events_added:
            self.on_events()
        uow.committed()

    @asynccontextmanager
    async def reading(self, at: datetime | None = None) -> AsyncIterator[UnitOfWork]:
        """A transaction that only reads: it is never committed, and cannot write."""
        async with AsyncSession(self.engine, expire_on_commit=False) as session:
            uow = UnitOfWork(session, at or self.clock.now(), current_cause())
            yield uow
            if uow.events_added:
                raise RuntimeError("a reading unit of work added events; use unit_of_work")

    async def dispose(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


def driver_url(url: str) -> str:
    """The same address in the form the bare driver takes, for connections outside the pool."""
    return url.replace("postgresql+asyncpg://", "postgresql://", 1)


def _forget_statement(context: Any) -> None:
    """Bound values can be personal data: they must not ride along in an error's text."""
    original = context.sqlalchemy_exception
    if original is not None:
        original.hide_parameters = True


logging.getLogger("sqlalchemy").setLevel(logging.WARNING)
