"""What every service's migrations/env.py calls, and the frozen first shape of the chassis' own tables.

A service's chain is applied by a command before it starts (`python -m services.<name> migrate`), never at start.
Changes come as expand, then contract: version n-1 must go on working, and a lock is waited for one second at a time.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import structlog
from alembic import command, context
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

log = structlog.get_logger(__name__)

_SERVICES = Path(__file__).resolve().parent.parent
_LOCK_TIMEOUT: Final = "1s"
_ATTEMPTS: Final = 20  # to get a lock; between two of them everybody who queued behind us goes first
_TRY_AGAIN_STATES: Final = ("55P03", "40P01")  # the lock was not to be had, or two waited for each other
_MIGRATING_LOCK: Final = 7_205_759_403_792_795  # one migration of a database at a time

PLUMBING_V1: Final = (
    """
    create table outbox (
        id bigint generated always as identity,
        xid xid8 not null default pg_current_xact_id(),
        event_id uuid not null,
        topic text not null,
        key text not null,
        type text not null,
        sequence bigint not null,
        occurred_at timestamptz not null,
        payload text not null,
        correlation_id text not null,
        causation_id text,
        traceparent text,
        constraint pk_outbox primary key (id),
        constraint uq_outbox_key_sequence unique (key, sequence),
        constraint ck_outbox_payload_fits_the_broker check (octet_length(payload) <= 900000),
        constraint ck_outbox_sequence_starts_at_one check (sequence > 0)
    )
    """,
    "create index ix_outbox_xid_id on outbox (xid, id)",
    """
    create table relay_cursor (
        id smallint not null,
        lower xid8 not null,
        upper xid8,
        last_id bigint not null,
        constraint pk_relay_cursor primary key (id),
        constraint ck_relay_cursor_one_row check (id = 1)
    )
    """,
    "insert into relay_cursor (id, lower, upper, last_id) values (1, '0', null, 0)",
    """
    create table inbox (
        handler text not null,
        event_id uuid not null,
        received_at timestamptz not null,
        constraint pk_inbox primary key (handler, event_id)
    )
    """,
    """
    create table parked (
        id bigint generated always as identity,
        topic text not null,
        partition integer not null,
        "offset" bigint not null,
        key text,
        type text,
        event_id uuid,
        handler text not null,
        headers jsonb not null,
        payload bytea not null,
        reason text not null,
        parked_at timestamptz not null,
        status text not null default 'parked',
        resolved_at timestamptz,
        note text,
        constraint pk_parked primary key (id),
        constraint uq_parked_topic_partition_offset unique (topic, partition, "offset"),
        constraint ck_parked_status check (status in ('parked', 'replayed', 'discarded')),
        constraint ck_parked_resolved_when_left check ((status = 'parked') = (resolved_at is null))
    )
    """,
    "create index ix_parked_open on parked (topic, key) where status = 'parked'",
    """
    create table idempotency_keys (
        caller text not null,
        key text not null,
        request_hash bytea not null,
        answer jsonb,
        created_at timestamptz not null,
        constraint pk_idempotency_keys primary key (caller, key)
    )
    """,
    """
    create table audit (
        id bigint generated always as identity,
        at timestamptz not null,
        actor_kind text not null,
        actor text not null,
        action text not null,
        subject text,
        outcome text not null,
        detail jsonb not null default '{}',
        constraint pk_audit primary key (id)
    )
    """,
)


# Outbox and inbox become partitioned by time: by the range of event ids, which carry the time they were made at. See
# docs/decisions/0007. No row is copied and no index built: what is there becomes the first partition, and only the last
# step, a handful of changes to the catalogue, locks writers out. Each step is one transaction and finds out by itself
# whether it is done.
#
# A period begins with July. The first one ends a month ahead at the least, so that no writer's id can be past it.
_PERIODS: Final = """
    today constant timestamptz := now() + interval '30 days';
    july constant timestamptz := make_timestamptz(
        extract(year from today at time zone 'UTC')::int, 7, 1, 0, 0, 0, 'UTC');
    ends constant timestamptz := case when today < july then july else
        make_timestamptz(extract(year from july at time zone 'UTC')::int + 1, 7, 1, 0, 0, 0, 'UTC') end;
    after constant timestamptz := make_timestamptz(
        extract(year from ends at time zone 'UTC')::int + 1, 7, 1, 0, 0, 0, 'UTC');
    first_id constant uuid := lpad(to_hex((extract(epoch from ends) * 1000)::bigint), 12, '0') || repeat('0', 20);
    next_id constant uuid := lpad(to_hex((extract(epoch from after) * 1000)::bigint), 12, '0') || repeat('0', 20);
    done constant boolean := exists (select from pg_class where oid = '{table}'::regclass and relkind = 'p');
"""
# Writers from now on keep the promise, before those of the past are looked at.
_PROMISE: Final = """
do $$ declare {periods} begin
    if done then return; end if;
    alter table {table} drop constraint if exists ck_{table}_first_period;
    execute format('alter table {table} add constraint ck_{table}_first_period check (event_id < %L) not valid', first_id);
end $$
"""
# Reads the whole table and keeps nobody out. An id that is no UUIDv7 may lie beyond: the next step moves it.
_PROVE: Final = """
do $$ declare {periods} begin
    if done then return; end if;
    alter table {table} validate constraint ck_{table}_first_period;
exception when check_violation then null;
end $$
"""
_PARENT_OF_OUTBOX: Final = """
    start := nextval(pg_get_serial_sequence('outbox_first', 'id'));
    alter table outbox_first alter column id drop identity;
    alter index pk_outbox rename to pk_outbox_first;
    alter index uq_outbox_key_sequence rename to uq_outbox_first_key_sequence;
    alter index ix_outbox_xid_id rename to ix_outbox_first_xid_id;
    execute format($parent$
        create table outbox (
            id bigint generated always as identity (start with %s),
            xid xid8 not null default pg_current_xact_id(),
            event_id uuid not null,
            topic text not null,
            key text not null,
            type text not null,
            sequence bigint not null,
            occurred_at timestamptz not null,
            payload text not null,
            correlation_id text not null,
            causation_id text,
            traceparent text,
            constraint ck_outbox_payload_fits_the_broker check (octet_length(payload) <= 900000),
            constraint ck_outbox_sequence_starts_at_one check (sequence > 0)
        ) partition by range (event_id)
    $parent$, start);
    create index ix_outbox_xid_id on outbox (xid, id);
"""
_PARENT_OF_INBOX: Final = """
    alter index pk_inbox rename to pk_inbox_first;
    create table inbox (
        handler text not null,
        event_id uuid not null,
        received_at timestamptz not null,
        constraint pk_inbox primary key (handler, event_id)
    ) partition by range (event_id);
"""
# What a partition has beside the parent's indexes (of the outbox: each id and each version of a key once) comes from
# the default one, which every later partition is made like.
_CONVERT: Final = """
do $$ declare {periods}
    start bigint;
    following constant text := '{table}_' || to_char(ends at time zone 'UTC', 'YYYY_MM');
begin
    if done then return; end if;
    lock table {table} in access exclusive mode;
    alter table {table} rename to {table}_first;
    {parent}
    create table {table}_default (like {table}_first including defaults including constraints including indexes);
    alter table {table}_default drop constraint ck_{table}_first_period;
    if exists (select from pg_constraint where conname = 'ck_{table}_first_period' and not convalidated) then
        with strays as (delete from {table}_first where event_id >= first_id returning *)
        insert into {table}_default select * from strays;
    end if;
    alter table {table} attach partition {table}_default default;
    execute format('alter table {table} attach partition {table}_first for values from (minvalue) to (%L)', first_id);
    execute format('create table %I (like {table}_default including defaults including constraints including indexes)',
                   following);
    execute format('alter table {table} attach partition %I for values from (%L) to (%L)', following, first_id, next_id);
    alter table {table}_first drop constraint ck_{table}_first_period;
end $$
"""


def _step(statement: str, table: str, parent: str = "") -> str:
    return statement.format(table=table, parent=parent, periods=_PERIODS.format(table=table))


PARTITIONS_V2: Final = tuple(
    _step(statement, table, parent)
    for table, parent in (("inbox", _PARENT_OF_INBOX), ("outbox", _PARENT_OF_OUTBOX))
    for statement in (_PROMISE, _PROVE, _CONVERT)
)


class Operations(Protocol):
    """The part of alembic's `op` that is used here."""

    def execute(self, sqltext: str) -> None: ...

    def get_bind(self) -> Connection: ...

    def get_context(self) -> InTransactions: ...


class InTransactions(Protocol):
    """The part of alembic's migration context that is used here."""

    def autocommit_block(self) -> AbstractContextManager[None]: ...


class NotMigrated(Exception):
    """The database is not at this version's head; says what to run."""


class LockNotToBeHad(Exception):
    """A step of a migration was given up: somebody holds a lock for minutes. Says on what to look."""


def create_plumbing_v1(op: Operations) -> None:
    """Create the chassis' tables: call it in a service's revision 0001."""
    for statement in PLUMBING_V1:
        op.execute(statement)


def partition_events(op: Operations) -> None:
    """Partition outbox and inbox by time, under load: call it in a service's revision of its own."""
    with op.get_context().autocommit_block():
        for statement in PARTITIONS_V2:
            patiently(partial(op.get_bind().exec_driver_sql, statement))


def patiently(step: Callable[[], object], *, pause: Callable[[float], None] = time.sleep) -> int:
    """Run one transaction that needs a lock. Nobody is kept waiting behind it for longer than the lock timeout at a time.

    Returns how often the lock was not to be had. Raises LockNotToBeHad after the last attempt.
    """
    for waited in range(_ATTEMPTS):
        try:
            step()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _TRY_AGAIN_STATES:
                raise
            log.warning("migration-waits-for-a-lock", attempt=waited + 1, of=_ATTEMPTS)
            pause(0.5 + secrets.randbelow(1000) / 1000)
        else:
            return waited
    raise LockNotToBeHad(
        f"a lock was not to be had in {_ATTEMPTS} attempts: look in pg_stat_activity for a transaction that stays open, "
        "end it, and run the migration again: it goes on where it stopped"
    )


def run(metadata: MetaData) -> None:
    """The whole of a service's env.py: `run(Base.metadata)`."""
    connection: Connection | None = context.config.attributes.get("connection")
    if connection is None:
        raise RuntimeError(
            "run `python -m services.<name> migrate`; alembic's own command has no connection here"
        )
    partitions = set(connection.scalars(text("select relname from pg_class where relispartition")))
    connection.rollback()
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=True,
        # Partitions come and go with time; the tables they belong to are what is compared.
        include_name=lambda name, kind, _parents: kind != "table" or name not in partitions,
    )
    with context.begin_transaction():
        context.run_migrations()


def _config(service: str, connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SERVICES / service / "migrations"))
    config.attributes["connection"] = connection
    return config


async def upgrade(database_url: str, service: str, revision: str = "head") -> None:
    """Bring this service's database to the newest version. A lock is waited for one second at a time."""
    engine = create_async_engine(database_url)
    try:
        async with engine.connect() as connection:
            await connection.execute(text(f"set lock_timeout = '{_LOCK_TIMEOUT}'"))
            await connection.commit()
            await connection.run_sync(lambda c: command.upgrade(_config(service, c), revision))
            await connection.commit()
    finally:
        await engine.dispose()


async def drift(database_url: str, service: str) -> None:
    """Raises alembic's AutogenerateDiffsDetected when tables.py and the migrated database differ."""
    engine = create_async_engine(database_url)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(lambda c: command.check(_config(service, c)))
    finally:
        await engine.dispose()


async def require_current(database_url: str, service: str) -> None:
    """Raises NotMigrated unless the database is at this version's head, or one step past it.

    While version n is rolled out, n-1 must be able to start again beside it: a step keeps the version before it working.
    """
    engine = create_async_engine(database_url)
    try:
        async with engine.connect() as connection:
            head, found = await connection.run_sync(lambda c: _revisions(c, service))
    finally:
        await engine.dispose()
    if _is_next(found, head):
        log.warning("database-is-newer", revision=found, known=head)
    elif found != head:
        raise NotMigrated(
            f"the database is at revision {found or 'none'}, this version needs {head}: "
            f"run `python -m services.{service} migrate` first"
        )


def _is_next(found: str | None, head: str | None) -> bool:
    """Revisions are numbers without a gap: 0001, 0002, …"""
    return found is not None and head is not None and found.isdecimal() and int(found) == int(head) + 1


def _revisions(connection: Connection, service: str) -> tuple[str | None, str | None]:
    """The head of the service's chain, and where its database is."""
    head = ScriptDirectory.from_config(_config(service, connection)).get_current_head()
    return head, MigrationContext.configure(connection).get_current_revision()
