"""The database server of the local system: who may enter what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from deploy.local.postgres import EmbeddedPostgres
from tests.support.postgres import TestDatabases


async def test_a_service_cannot_enter_the_database_of_another(databases: TestDatabases) -> None:
    server = databases.server
    for role in ("first", "second"):
        await server.make_role(role)
        await server.make_database(role, owner=role)
    own = await asyncpg.connect(server.login("first", "first").dsn)
    await own.execute("create table kept (id int)")
    await own.close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(server.login("first", "second").dsn)


async def test_a_wrong_password_is_refused(databases: TestDatabases) -> None:
    await databases.server.make_role("first")
    login = replace(databases.server.administrator, password="guessed")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(login.dsn)


async def test_a_service_role_has_no_power_over_the_server(databases: TestDatabases) -> None:
    login = await databases.blank()
    connection = await asyncpg.connect(login.dsn)
    try:
        for statement in ("create database more", "create role more", "create extension plpython3u"):
            with pytest.raises(asyncpg.PostgresError):
                await connection.execute(statement)
    finally:
        await connection.close()
        await databases.drop(login)


async def test_committed_rows_outlive_a_crash_and_a_change_of_port(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    server = EmbeddedPostgres(tmp_path / "postgres")
    await server.start()
    await server.make_role("payment")
    login = await server.make_database("payment", owner="payment")
    connection = await asyncpg.connect(login.dsn)
    await connection.execute("create table kept (id int); insert into kept values (7)")
    await server.kill()
    again = EmbeddedPostgres(tmp_path / "postgres")
    await again.start()
    try:
        connection = await asyncpg.connect(again.login("payment", "payment").dsn)
        assert await connection.fetchval("select id from kept") == 7
        await connection.close()
    finally:
        await again.stop()
    assert not again.process.alive
