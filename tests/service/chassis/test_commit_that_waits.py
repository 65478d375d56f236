"""A commit that waits for a synchronous standby is not taken back: nobody sees what the standby has not got.

PostgreSQL keeps a transaction invisible while its commit waits. Whoever cancels that wait makes it visible, and it is
lost when the standby takes over: the driver cancels on a time limit and when its task is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from deploy.local.databases import DatabaseLogin
from deploy.local.postgres import EmbeddedPostgres
from services.chassis import db
from services.chassis.clock import SystemClock
from services.chassis.db import Database, OutcomeUnknown

WAITING = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"
KEPT = "select id from kept order by id"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """Its standby is away, for every commit from now on."""
    tmp_path.chmod(0o711)
    server = EmbeddedPostgres(tmp_path / "postgres")
    await server.start()
    try:
        await server.make_role("payment")
        await server.make_database("payment", owner="payment")
        async with server.connection("payment") as connection:
            await connection.execute("create table kept (id int); grant all on kept to payment")
            await connection.execute("alter system set synchronous_standby_names = 'away'")
            await connection.execute("select pg_reload_conf()")
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def database(server: EmbeddedPostgres) -> AsyncIterator[Database]:
    database = Database(_login(server).url, clock=SystemClock())
    yield database
    await database.dispose()


def _login(server: EmbeddedPostgres) -> DatabaseLogin:
    return server.login("payment", "payment")


async def _keep(database: Database, number: int) -> None:
    async with database.unit_of_work() as uow:
        await uow.sql("insert into kept values ($1)", number)


async def _waits(server: EmbeddedPostgres) -> None:
    async with server.connection() as connection, asyncio.timeout(30):
        while not await connection.fetchval(WAITING):
            await asyncio.sleep(0.02)


async def _others_see(server: EmbeddedPostgres) -> list[int]:
    connection = await asyncpg.connect(_login(server).dsn)
    try:
        return [row["id"] for row in await connection.fetch(KEPT)]
    finally:
        await connection.close()


async def _standby_comes_back(server: EmbeddedPostgres) -> None:
    async with server.connection() as connection, asyncio.timeout(30):
        await connection.execute("alter system reset synchronous_standby_names")
        await connection.execute("select pg_reload_conf()")
        while await connection.fetchval(WAITING):
            await asyncio.sleep(0.02)


async def test_a_task_that_is_cancelled_while_its_commit_waits_shows_it_to_nobody(
    server: EmbeddedPostgres, database: Database
) -> None:
    keeping = asyncio.create_task(_keep(database, 1))
    await _waits(server)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    await asyncio.sleep(0.3)
    assert await _others_see(server) == []
    await _standby_comes_back(server)
    assert await _others_see(server) == [1]


async def test_a_commit_that_waits_too_long_is_left_to_the_server_and_nobody_knows_its_outcome(
    server: EmbeddedPostgres, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "COMMIT_WITHIN", 0.3)
    with pytest.raises(OutcomeUnknown):
        await _keep(database, 1)
    assert await _others_see(server) == []
    await _standby_comes_back(server)
    assert await _others_see(server) == [1]
    await _keep(database, 2)
    assert await _others_see(server) == [1, 2]
