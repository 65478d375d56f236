"""A database that a test gives back: the next one cannot tell it from a new one, or does not get it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from deploy.local.databases import DatabaseLogin
from tests.support.postgres import TestDatabases

_SAID = """
insert into outbox (event_id, topic, key, type, sequence, occurred_at, payload, correlation_id)
values (uuidv7(), 't', 'k', 'y', 1, now(), '', 'c') returning id
"""


_MUCH = """
insert into answers (order_no, kind, state, at, digest, raw, signature)
select n, 'query', 'open', now(), '', sha256(n::text::bytea), '{}' from generate_series(1, 40000) n
"""


async def _next_after(
    databases: TestDatabases, use: Callable[[Any], Awaitable[object]]
) -> tuple[DatabaseLogin, ...]:
    first = await databases.migrated("payment")
    connection = await asyncpg.connect(first.dsn)
    await use(connection)
    await connection.close()
    await databases.drop(first)
    return first, await databases.migrated("payment")


async def test_the_next_test_gets_it_as_it_was_made(databases: TestDatabases) -> None:
    ids = []

    async def use(connection: Any) -> None:
        ids.append(await connection.fetchval(_SAID))
        await connection.execute("update relay_cursor set lower = '7', last_id = 7")
        await connection.execute("analyze")

    first, second = await _next_after(databases, use)
    assert second == first
    connection = await asyncpg.connect(second.dsn)
    assert await connection.fetchval("select count(*) from outbox") == 0
    assert await connection.fetchval("select last_id from relay_cursor") == 0
    assert await connection.fetchval("select version_num from alembic_version")
    assert await connection.fetchval("select reltuples from pg_class where relname = 'orders'") == -1
    assert await connection.fetchval("select count(*) from pg_stats where schemaname = 'public'") == 0
    ids.append(await connection.fetchval(_SAID))
    await connection.close()
    assert ids[0] == ids[1]
    await databases.drop(second)


@pytest.mark.parametrize(
    "change",
    [
        "drop trigger keep_ledger on ledger",
        "alter table ledger disable trigger user",
        "create table other (n int)",
        "alter table orders add column other int",
        "drop index ix_orders_ask_at",
        "alter table orders drop constraint ck_orders_amount",
        "create or replace function keep_facts() returns trigger language plpgsql as 'begin return null; end'",
        _MUCH,
    ],
)
async def test_what_is_no_longer_as_it_was_made_is_dropped(databases: TestDatabases, change: str) -> None:
    first, second = await _next_after(databases, lambda connection: connection.execute(change))
    assert second != first
    assert not await databases.server.has_database(first.database)
    await databases.drop(second)


async def test_where_somebody_is_still_connected_nobody_else_comes(databases: TestDatabases) -> None:
    first = await databases.migrated("payment")
    left = await asyncpg.connect(first.dsn)
    await databases.drop(first)
    second = await databases.migrated("payment")
    assert second != first
    left.terminate()
    await databases.drop(second)


async def test_a_test_may_drop_its_own(databases: TestDatabases) -> None:
    login = await databases.migrated("payment")
    await databases.server.drop_database(login.database)
    await databases.drop(login)
    assert not await databases.server.has_database(login.database)
