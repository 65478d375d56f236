"""Databases for tests: one embedded server a session, one migrated template a service, one copy a test.

To copy and to drop a database takes a tenth of a second: one that a test has left as it was made is emptied and given to the
next.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, Final

import asyncpg

from deploy.local.databases import DatabaseLogin
from deploy.local.postgres import EmbeddedPostgres
from services.chassis import migrations

# Everything but rows: tables with their columns, keys, triggers, functions and rights, and settings of the database.
_SHAPE: Final = """
select md5(concat_ws('|',
    (select string_agg(concat_ws(',', oid, relname, relkind, reloptions, relacl, relrowsecurity), ';' order by oid)
     from pg_class where relnamespace = 'public'::regnamespace),
    (select string_agg(concat_ws(',', attrelid, attname, atttypid, attnotnull, attisdropped), ';' order by attrelid, attnum)
     from pg_attribute a join pg_class c on c.oid = a.attrelid
     where relnamespace = 'public'::regnamespace and relkind <> 'i' and attnum > 0),
    (select string_agg(concat_ws(',', oid, convalidated, pg_get_constraintdef(oid)), ';' order by oid)
     from pg_constraint where connamespace = 'public'::regnamespace),
    (select string_agg(concat_ws(',', oid, tgenabled), ';' order by oid) from pg_trigger),
    (select string_agg(concat_ws(',', indexrelid, indisvalid), ';' order by indexrelid)
     from pg_index i join pg_class c on c.oid = i.indexrelid where relnamespace = 'public'::regnamespace),
    (select string_agg(concat_ws(',', oid, md5(prosrc), proacl), ';' order by oid)
     from pg_proc where pronamespace = 'public'::regnamespace),
    (select string_agg(setconfig::text, ';') from pg_db_role_setting
     where setdatabase = (select oid from pg_database where datname = current_database())),
    (select count(*) from pg_namespace), (select count(*) from pg_extension)))
"""
# Triggers that refuse to delete what is only ever added to are not asked. What the planner was told of a table with other
# rows, or with none, goes as well: it would take a hundred thousand for one.
_EMPTY: Final = """
do $$
declare name text;
begin
    set local session_replication_role = replica;
    delete from pg_statistic s using pg_class c where c.oid = s.starelid and relnamespace = 'public'::regnamespace;
    perform pg_clear_relation_stats('public', relname) from pg_class c
        where relkind in ('r', 'p', 'i') and relnamespace = 'public'::regnamespace and reltuples >= 0;
    for name in select c.oid::regclass::text from pg_class c
        where relkind = 'r' and relnamespace = 'public'::regnamespace and pg_relation_size(c.oid) > 0
    loop
        execute 'delete from ' || name;
    end loop;
    perform setval(s.seqrelid, s.seqstart, false) from pg_sequence s join pg_class c on c.oid = s.seqrelid
        where relnamespace = 'public'::regnamespace and pg_sequence_last_value(s.seqrelid) is not null;
end $$
"""
_OTHERS: Final = (
    "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
)
_GROWN: Final = 2 * 1024 * 1024  # bytes: what so many rows leave behind also stays in plans
_LOOKS: Final = 20  # at connections that are just being closed, 10 ms apart


class _Template:
    """A migrated database, and what a copy of it has to look like to be used once more."""

    def __init__(self, database: str, shape: str, size: int, filled: dict[str, str]) -> None:
        self.database = database
        self.shape = shape
        self.size = size
        self.filled = filled  # the few tables that migrations put rows into, as JSON
        self.free: list[DatabaseLogin] = []

    @classmethod
    async def of(cls, connection: Any, database: str) -> _Template:
        tables = await connection.fetch(
            "select c.oid::regclass::text as name from pg_class c "
            "where relkind = 'r' and relnamespace = 'public'::regnamespace"
        )
        rows = {
            table["name"]: await connection.fetchval(
                f"select jsonb_agg(to_jsonb(t))::text from {table['name']} t"
            )
            for table in tables
        }
        return cls(
            database,
            await connection.fetchval(_SHAPE),
            await connection.fetchval("select pg_database_size(current_database())"),
            {name: found for name, found in rows.items() if found is not None},
        )

    async def restore(self, connection: Any) -> bool:
        """Empty a copy. False: something of it is no longer as it was made, or somebody is still in it."""
        for _ in range(_LOOKS):
            if not await connection.fetchval(_OTHERS):
                break
            await asyncio.sleep(0.01)
        else:
            return False
        if await connection.fetchval(_SHAPE) != self.shape:
            return False
        if await connection.fetchval("select pg_database_size(current_database())") > self.size + _GROWN:
            return False
        await connection.execute(_EMPTY)
        for table, rows in self.filled.items():
            await connection.execute(
                f"insert into {table} select * from jsonb_populate_recordset(null::{table}, $1::text::jsonb)",
                rows,
            )
        return True


class TestDatabases:
    """Hands out databases that only one test sees."""

    __test__ = False

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        self._templates: dict[str, asyncio.Task[_Template]] = {}
        self._given: dict[str, _Template] = {}
        self._migrating = asyncio.Lock()  # alembic keeps its state in module globals
        self._numbers = itertools.count(1)

    async def blank(self, name: str = "blank") -> DatabaseLogin:
        """An empty database with a role of its own, for tests of the plumbing."""
        role = f"{name}_role"
        await self.server.make_role(role)
        return await self.server.make_database(f"{name}_{next(self._numbers)}", owner=role)

    async def migrated(self, service: str) -> DatabaseLogin:
        """A copy of the service's migrated database, made by its own migrations, owned by its own role."""
        if service not in self._templates:
            self._templates[service] = asyncio.create_task(self._make_template(service))
        template = await self._templates[service]
        if template.free:
            return template.free.pop()
        login = await self.server.make_database(
            f"{service}_{next(self._numbers)}", owner=service, template=template.database
        )
        self._given[login.database] = template
        return login

    async def drop(self, login: DatabaseLogin) -> None:
        """Nobody needs it any more. Emptied for the next one, or gone."""
        template = self._given.get(login.database)
        if template is not None and await self._restored(template, login):
            template.free.append(login)
        else:
            await self.server.drop_database(login.database)

    async def _restored(self, template: _Template, login: DatabaseLogin) -> bool:
        try:
            async with self.server.connection(login.database) as connection:
                return await template.restore(connection)
        except asyncpg.InvalidCatalogNameError:
            return False  # the test has dropped it

    async def _make_template(self, service: str) -> _Template:
        await self.server.make_role(service)
        login = await self.server.make_database(f"{service}_template", owner=service)
        async with self._migrating:
            await migrations.upgrade(login.url, service)
        async with self.server.connection(login.database) as connection:
            return await _Template.of(connection, login.database)
