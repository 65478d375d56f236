"""What every service's migrations/env.py calls, and the frozen first shape of the chassis' own tables.

A service's chain is applied by a command before it starts (`python -m services.<name> migrate`), never at start.
Changes come as expand, then contract: a running version n-1 must go on working, and a lock is waited for one second only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from alembic import command, context
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine

_SERVICES = Path(__file__).resolve().parent.parent

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


class Operations(Protocol):
    """The part of alembic's `op` that is used here."""

    def execute(self, sqltext: str) -> None: ...


class NotMigrated(Exception):
    """The database is not at this version's head; says what to run."""


def create_plumbing_v1(op: Operations) -> None:
    """Create the chassis' tables: call it in a service's revision 0001."""
    for statement in PLUMBING_V1:
        op.execute(statement)


def run(metadata: MetaData) -> None:
    """The whole of a service's env.py: `run(Base.metadata)`."""
    connection: Connection | None = context.config.attributes.get("connection")
    if connection is None:
        raise RuntimeError(
            "run `python -m services.<name> migrate`; alembic's own command has no connection here"
        )
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


def _config(service: str, connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SERVICES / service / "migrations"))
    config.attributes["connection"] = connection
    return config


async def upgrade(database_url: str, service: str) -> None:
    """Bring this service's database to the newest version. A lock that is held for more than a second ends the attempt."""
    engine = create_async_engine(database_url)
    try:
        async with engine.connect() as connection:
            await connection.execute(text("set lock_timeout = '1s'"))
            await connection.commit()
            await connection.run_sync(lambda c: command.upgrade(_config(service, c), "head"))
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
    """Raises NotMigrated unless the database is at this version's head."""
    engine = create_async_engine(database_url)
    try:
        async with engine.connect() as connection:
            head, found = await connection.run_sync(lambda c: _revisions(c, service))
    finally:
        await engine.dispose()
    if found != head:
        raise NotMigrated(
            f"the database is at revision {found or 'none'}, this version needs {head}: "
            f"run `python -m services.{service} migrate` first"
        )


def _revisions(connection: Connection, service: str) -> tuple[str | None, str | None]:
    """The head of the service's chain, and where its database is."""
    head = ScriptDirectory.from_config(_config(service, connection)).get_current_head()
    return head, MigrationContext.configure(connection).get_current_revision()
