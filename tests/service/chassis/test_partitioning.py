"""The migration that partitions outbox and inbox: under load, over old rows, cut short, and with version n-1 beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from alembic import command
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from deploy.local.databases import DatabaseLogin
from services.chassis import migrations
from services.chassis.db import SESSION_SETTINGS
from tests.support.postgres import TestDatabases

OLD_ROWS = 100_000
SERVICE = "payment"
PARTITIONED = "0002"
COLUMNS = (
    "event_id, topic, key, type, sequence, occurred_at, payload, correlation_id, causation_id, traceparent"
)
# What version n-1 says to the database, word for word as it stood in the commit before. Frozen: never follow the code.
N_1_ADD = f"insert into outbox ({COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
N_1_ADD_ALL = f"""
insert into outbox ({COLUMNS})
select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::timestamptz[],
                     $7::text[], $8::text[], $9::text[], $10::text[])
"""
N_1_SET = (
    f"insert into outbox ({COLUMNS}) "
    "select uuidv7(), 't', 'k' || n, 'y', 1, now(), json_build_object('n', n)::text, uuidv7()::text, null, null "
    "from generate_series(1, 5) n"
)
N_1_CLAIM = """
insert into inbox (handler, event_id, received_at)
select $1, e, $3 from unnest($2::uuid[]) e
on conflict do nothing returning event_id
"""
N_1_PLANNER = "set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off; set jit = off"
N_1_RELAY = "id, event_id, topic, key, type, sequence, occurred_at, payload, correlation_id, causation_id, traceparent"
N_1_NEXT_RANGE = """
with horizon as materialized (select pg_snapshot_xmin(pg_current_snapshot()) as upper)
select horizon.upper::text as upper,
       (select min(id) from (select o.id from outbox o
                             where o.xid >= $1::text::xid8 and o.xid < horizon.upper offset 0) r) as first_id,
       exists (select 1 from outbox o where o.xid >= horizon.upper) as beyond
from horizon
"""
N_1_PAGE = f"""
select {N_1_RELAY} from outbox
where id > $3 and xid >= $1::text::xid8 and xid < $2::text::xid8 order by id limit 1000
"""
N_1_EARLIER = (
    f"select {N_1_RELAY} from outbox where xid >= $1::text::xid8 and key = any($2::text[]) order by id"
)
N_1_MOVE = "update relay_cursor set lower = $1::text::xid8, upper = $2::text::xid8, last_id = $3 where id = 1"
N_1_STATE = """
with c as (select * from relay_cursor where id = 1)
select coalesce((select max(id) from outbox), 0) as added,
       count(o.id) as unpublished,
       (select count(*) from parked where status = 'parked') as parked,
       coalesce(extract(epoch from clock_timestamp() - min(uuid_extract_timestamp(o.event_id))), 0)::float8 as age
from c left join outbox o on o.xid >= c.lower and not (c.upper is not null and o.xid < c.upper and o.id <= c.last_id)
"""


@pytest.fixture
async def old_shape(databases: TestDatabases) -> AsyncIterator[DatabaseLogin]:
    """A database as version n-1 made it."""
    await databases.server.make_role(SERVICE)
    login = await databases.server.make_database(f"old_shape_{uuid4().hex[:8]}", owner=SERVICE)
    await migrations.upgrade(login.url, SERVICE, "0001")
    yield login
    await databases.drop(login)


@asynccontextmanager
async def connected(login: DatabaseLogin) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(login.dsn, server_settings=SESSION_SETTINGS)
    try:
        yield connection
    finally:
        await connection.close()


def an_event(key: str, sequence: int = 1, event_id: UUID | None = None) -> tuple[object, ...]:
    return (event_id or uuid7(), "t", key, "y", sequence, moment(), "{}", "c", None, None)


def moment() -> datetime:
    return datetime.now(UTC)


async def shape(connection: Any, table: str) -> dict[str, str]:
    rows = await connection.fetch(
        "select c.relname, pg_get_expr(c.relpartbound, c.oid) as bound from pg_inherits i "
        "join pg_class c on c.oid = i.inhrelid where i.inhparent = $1::text::regclass",
        table,
    )
    return {row["relname"]: row["bound"] for row in rows}


class Load:
    """Writers of version n-1 that notice every failure and how long the slowest of them waited."""

    def __init__(self, login: DatabaseLogin) -> None:
        self._login = login
        self._stop = asyncio.Event()
        self.written: list[str] = []
        self.claimed = 0
        self.slowest = 0.0

    async def write(self, writer: int) -> None:
        async with connected(self._login) as connection:
            number = 0
            while not self._stop.is_set():
                number += 1
                key, began = f"writer-{writer}-{number}", time.monotonic()
                async with connection.transaction():
                    event_id = uuid7()
                    new = await connection.fetch(N_1_CLAIM, "handler", [event_id], moment())
                    again = await connection.fetch(N_1_CLAIM, "handler", [event_id], moment())
                    assert (len(new), len(again)) == (1, 0)
                    await connection.execute(N_1_ADD, *an_event(key))
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.written.append(key)
                self.claimed += 1
                await asyncio.sleep(0.002)

    async def publish(self) -> None:
        """The relay of version n-1, but for the broker: it takes every row once, in the order of ids of a range."""
        async with connected(self._login) as connection:
            await connection.execute(N_1_PLANNER)
            lower, self.published = "0", 0
            while True:
                ending = self._stop.is_set()
                found = await connection.fetchrow(N_1_NEXT_RANGE, lower)
                last = (found["first_id"] or 1) - 1
                while rows := await connection.fetch(N_1_PAGE, lower, found["upper"], last):
                    last = rows[-1]["id"]
                    self.published += len(rows)
                await connection.execute(N_1_MOVE, found["upper"], None, 0)
                lower = found["upper"]
                if ending and found["first_id"] is None:
                    return
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def running(self, writers: int) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for writer in range(writers):
                group.create_task(self.write(writer))
            group.create_task(self.publish())
            try:
                yield
            finally:
                self._stop.set()


async def test_a_hundred_thousand_rows_are_partitioned_under_load_and_nobody_fails(
    old_shape: DatabaseLogin,
) -> None:
    """faults.md row 57: whoever holds the table is waited for, one second at a time, and writers go on between."""
    async with connected(old_shape) as connection:
        await connection.execute(
            f"insert into outbox ({COLUMNS}) select uuidv7(), 't', 'old-' || n, 'y', 1, now(), '{{}}', 'c', null, null "
            f"from generate_series(1, {OLD_ROWS}) n"
        )
        await connection.execute(
            f"insert into inbox select 'handler', uuidv7(), now() from generate_series(1, {OLD_ROWS}) n"
        )
    load = Load(old_shape)

    async def holding_the_table() -> None:
        async with connected(old_shape) as holder, holder.transaction():
            await holder.execute(N_1_ADD, *an_event("holder"))
            await asyncio.sleep(2.3)

    with capture_logs() as logs:
        async with load.running(writers=4):
            await asyncio.sleep(0.3)
            holder = asyncio.create_task(holding_the_table())
            await asyncio.sleep(0.1)
            await migrations.upgrade(old_shape.url, SERVICE)
            migrated_after = len(load.written)
            await holder
            await asyncio.sleep(0.3)
    waits = [line for line in logs if line["event"] == "migration-waits-for-a-lock"]
    assert waits, "no lock was waited for: the fault was not reached"
    assert len(load.written) > migrated_after, "nobody wrote on the new shape"
    assert load.slowest < 2.5, "a writer waited for longer than two lock timeouts"
    async with connected(old_shape) as connection:
        keys = {
            row["key"] for row in await connection.fetch("select key from outbox where key like 'writer-%'")
        }
        assert keys == set(load.written)
        total = OLD_ROWS + len(keys) + 1
        assert await connection.fetchval("select count(distinct id) from outbox") == total
        assert await connection.fetchval("select count(*) from inbox") == OLD_ROWS + load.claimed
        assert load.published == total
        assert set(await shape(connection, "outbox")) > {"outbox_first", "outbox_default"}
        assert await connection.fetchval("select count(*) from outbox_default") == 0
    await migrations.drift(old_shape.url, SERVICE)


async def test_every_statement_of_version_n_1_works_on_the_new_shape(old_shape: DatabaseLogin) -> None:
    await migrations.upgrade(old_shape.url, SERVICE)
    async with connected(old_shape) as connection:
        await connection.execute(N_1_PLANNER)
        async with connection.transaction():
            await connection.execute(N_1_ADD, *an_event("one"))
            many = [an_event("two"), an_event("two", 2), an_event("three")]
            await connection.execute(N_1_ADD_ALL, *[list(column) for column in zip(*many, strict=True)])
            assert await connection.execute(N_1_SET) == "INSERT 0 5"
        ids = [uuid7() for _ in range(3)]
        claimed = await connection.fetch(N_1_CLAIM, "handler", ids, moment())
        assert {row["event_id"] for row in claimed} == set(ids)
        assert await connection.fetch(N_1_CLAIM, "handler", ids, moment()) == []
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(N_1_ADD, *an_event("two", 2))
        found = await connection.fetchrow(N_1_NEXT_RANGE, "0")
        assert (found["first_id"], found["beyond"]) == (1, False)
        page = await connection.fetch(N_1_PAGE, "0", found["upper"], 0)
        assert [row["key"] for row in page] == ["one", "two", "two", "three", "k1", "k2", "k3", "k4", "k5"]
        assert [row["key"] for row in await connection.fetch(N_1_EARLIER, "0", ["two"])] == ["two", "two"]
        assert (await connection.fetchrow(N_1_STATE))["unpublished"] == len(page)
        await connection.execute(N_1_MOVE, found["upper"], None, 0)
        state = await connection.fetchrow(N_1_STATE)
        assert (state["unpublished"], state["added"], state["age"]) == (0, page[-1]["id"], 0)


async def test_ids_go_on_where_they_were(old_shape: DatabaseLogin) -> None:
    """The relay reads in the order of ids: one that is drawn after the migration is greater than all before it."""
    async with connected(old_shape) as connection:
        for number in range(3):
            await connection.execute(N_1_ADD, *an_event(f"before-{number}"))
        await migrations.upgrade(old_shape.url, SERVICE)
        await connection.execute(N_1_ADD, *an_event("after"))
        rows = await connection.fetch("select id, key from outbox order by id")
        assert [row["key"] for row in rows] == ["before-0", "before-1", "before-2", "after"]
        with pytest.raises(asyncpg.GeneratedAlwaysError):
            await connection.execute(
                f"insert into outbox (id, {COLUMNS}) values (1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                *an_event("given"),
            )


async def test_ids_that_are_no_uuid7_go_to_the_default_partition(old_shape: DatabaseLogin) -> None:
    stray = UUID("f0000000-0000-4000-8000-000000000001")
    async with connected(old_shape) as connection:
        await connection.execute(N_1_ADD, *an_event("stray", event_id=stray))
        await connection.execute(N_1_ADD, *an_event("plain"))
        await connection.fetch(N_1_CLAIM, "handler", [stray, uuid7()], moment())
        before = await connection.fetch("select *, xid::text as x from outbox order by id")
        await migrations.upgrade(old_shape.url, SERVICE)
        assert await connection.fetch("select *, xid::text as x from outbox order by id") == before
        for table in ("outbox", "inbox"):
            assert await connection.fetchval(f"select event_id from {table}_default") == stray
            assert await connection.fetchval(f"select count(*) from {table}_first") == 1
        assert await connection.fetch(N_1_CLAIM, "handler", [stray], moment()) == []


async def test_no_old_row_is_read_while_writers_are_kept_out(old_shape: DatabaseLogin) -> None:
    """The old table's promise was proved before: attaching it takes no look at its rows."""
    said: list[str] = []
    async with connected(old_shape) as connection:
        await connection.execute(N_1_ADD, *an_event("old"))
        connection.add_log_listener(lambda _connection, message: said.append(message.message))
        await connection.execute("set client_min_messages = debug1")
        for step in migrations.PARTITIONS_V2:
            await connection.execute(step)
        await connection.execute("reset client_min_messages")
    for table in ("outbox", "inbox"):
        implied = f'partition constraint for table "{table}_first" is implied by existing constraints'
        assert implied in said
    assert not [line for line in said if line.startswith("building index") and "_first" in line]


@pytest.mark.parametrize("done", range(1, len(migrations.PARTITIONS_V2)))
async def test_a_migration_that_was_cut_short_goes_on_where_it_stopped(
    old_shape: DatabaseLogin, done: int
) -> None:
    async with connected(old_shape) as connection:
        await connection.execute(N_1_ADD, *an_event("before"))
        for step in migrations.PARTITIONS_V2[:done]:
            await connection.execute(step)
        await connection.execute(N_1_ADD, *an_event("between"))
        await connection.fetch(N_1_CLAIM, "handler", [uuid7()], moment())
    await migrations.upgrade(old_shape.url, SERVICE)
    await migrations.drift(old_shape.url, SERVICE)
    async with connected(old_shape) as connection:
        assert await connection.fetchval("select count(*) from outbox_first") == 2
        assert await connection.fetchval("select count(*) from inbox_first") == 1


async def test_the_version_before_can_be_gone_back_to_and_upgraded_again(old_shape: DatabaseLogin) -> None:
    await migrations.upgrade(old_shape.url, SERVICE, PARTITIONED)
    engine = create_async_engine(old_shape.url)
    async with engine.connect() as connection:
        await connection.run_sync(lambda c: command.downgrade(migrations._config(SERVICE, c), "0001"))
        await connection.commit()
    await engine.dispose()
    async with connected(old_shape) as plain:
        assert await plain.fetchval("select version_num from alembic_version") == "0001"
        await plain.execute(N_1_ADD, *an_event("back"))
        was = await shape(plain, "outbox")
        await migrations.upgrade(old_shape.url, SERVICE, PARTITIONED)
        assert await shape(plain, "outbox") == was
        assert await plain.fetchval("select count(*) from outbox") == 1


async def test_a_database_one_step_ahead_is_good_enough_and_two_steps_are_not(
    old_shape: DatabaseLogin,
) -> None:
    """A version n-1 that is started again while n is rolled out must not refuse the database that n migrated."""
    with pytest.raises(migrations.NotMigrated, match="0001, this version needs 0"):
        await migrations.require_current(old_shape.url, SERVICE)
    await migrations.upgrade(old_shape.url, SERVICE)
    await migrations.require_current(old_shape.url, SERVICE)
    async with connected(old_shape) as connection:
        head = int(await connection.fetchval("select version_num from alembic_version"))
    for ahead, good in ((1, True), (2, False)):
        async with connected(old_shape) as connection:
            await connection.execute(f"update alembic_version set version_num = '{head + ahead:04}'")
        if good:
            await migrations.require_current(old_shape.url, SERVICE)
        else:
            with pytest.raises(migrations.NotMigrated):
                await migrations.require_current(old_shape.url, SERVICE)


def test_a_lock_that_is_never_to_be_had_ends_the_migration_with_advice() -> None:
    class Refused(Exception):
        sqlstate = "55P03"

    tries: list[float] = []

    def never() -> None:
        raise DBAPIError("alter table", None, Refused())

    with pytest.raises(migrations.LockNotToBeHad, match="run the migration again"):
        migrations.patiently(never, pause=tries.append)
    assert len(tries) == migrations._ATTEMPTS
    assert all(0.5 <= pause <= 1.5 for pause in tries)
