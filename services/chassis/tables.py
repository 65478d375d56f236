"""The tables that every service has beside its own: log of events, relay's cursor, inbox, parked, keys, audit.

The same shape stands in migrations (PLUMBING_V1, then PARTITIONS_V2) as frozen SQL; a test holds the two together.
Outbox and inbox are partitioned by the time in their event ids; retention makes and drops the partitions.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

# An event larger than a broker takes would block its partition for ever: it is refused when it is written.
MAX_PAYLOAD_BYTES = 900_000


class Xid8(UserDefinedType[str]):
    """PostgreSQL's 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


# So that comparing a database with these tables knows the type.
ischema_names["xid8"] = Xid8


def add_plumbing(metadata: MetaData) -> None:
    """Put the chassis' tables beside a service's own: `add_plumbing(Base.metadata)` in its tables.py."""
    moment = DateTime(timezone=True)
    Table(
        "outbox",
        metadata,
        # A partitioned table can have no key without its event id. Every partition has what the whole table had before:
        # primary key (id), and unique (key, sequence), so that a version is said once within a period.
        Column("id", BigInteger, Identity(always=True), nullable=False),
        Column("xid", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
        Column("event_id", Uuid, nullable=False),
        Column("topic", Text, nullable=False),
        Column("key", Text, nullable=False),
        Column("type", Text, nullable=False),
        Column("sequence", BigInteger, nullable=False),
        Column("occurred_at", moment, nullable=False),
        Column("payload", Text, nullable=False),
        Column("correlation_id", Text, nullable=False),
        Column("causation_id", Text),
        Column("traceparent", Text),
        CheckConstraint(f"octet_length(payload) <= {MAX_PAYLOAD_BYTES}", name="payload_fits_the_broker"),
        CheckConstraint("sequence > 0", name="sequence_starts_at_one"),
        Index(None, "xid", "id"),
        postgresql_partition_by="RANGE (event_id)",
    )
    Table(
        "relay_cursor",
        metadata,
        Column("id", SmallInteger, primary_key=True, autoincrement=False),
        Column("lower", Xid8, nullable=False),
        Column("upper", Xid8),
        Column("last_id", BigInteger, nullable=False),
        CheckConstraint("id = 1", name="one_row"),
    )
    Table(
        "inbox",
        metadata,
        Column("handler", Text, nullable=False),
        Column("event_id", Uuid, nullable=False),
        Column("received_at", moment, nullable=False),
        PrimaryKeyConstraint("handler", "event_id"),
        postgresql_partition_by="RANGE (event_id)",
    )
    Table(
        "parked",
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("topic", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("offset", BigInteger, nullable=False),
        Column("key", Text),
        Column("type", Text),
        Column("event_id", Uuid),
        Column("handler", Text, nullable=False),
        Column("headers", JSONB, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("reason", Text, nullable=False),
        Column("parked_at", moment, nullable=False),
        Column("status", Text, nullable=False, server_default=text("'parked'")),
        Column("resolved_at", moment),
        Column("note", Text),
        CheckConstraint("status in ('parked', 'replayed', 'discarded')", name="status"),
        CheckConstraint("(status = 'parked') = (resolved_at is null)", name="resolved_when_left"),
        UniqueConstraint("topic", "partition", "offset"),
        Index("ix_parked_open", "topic", "key", postgresql_where=text("status = 'parked'")),
    )
    Table(
        "idempotency_keys",
        metadata,
        Column("caller", Text, nullable=False),
        Column("key", Text, nullable=False),
        Column("request_hash", LargeBinary, nullable=False),
        Column("answer", JSONB),
        Column("created_at", moment, nullable=False),
        PrimaryKeyConstraint("caller", "key"),
    )
    Table(
        "audit",
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("at", moment, nullable=False),
        Column("actor_kind", Text, nullable=False),
        Column("actor", Text, nullable=False),
        Column("action", Text, nullable=False),
        Column("subject", Text),
        Column("outcome", Text, nullable=False),
        Column("detail", JSONB, nullable=False, server_default=text("'{}'")),
    )
