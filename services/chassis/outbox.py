"""A service's event log: events are added in the transaction that makes them true, and kept.

Nothing here commits or publishes. The rule that keeps order: THE AGGREGATE'S ROW IS LOCKED AND UPDATED BEFORE
ITS EVENT IS ADDED, so that the ids of one key are drawn in the order of its commits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from uuid_utils.compat import uuid7

from services.chassis.cause import Cause
from services.chassis.tables import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from contracts.envelope import Envelope
    from contracts.event import Event
    from services.chassis.db import UnitOfWork

_COLUMNS = (
    "event_id, topic, key, type, sequence, occurred_at, payload, correlation_id, causation_id, traceparent"
)
_INSERT_ONE = f"insert into outbox ({_COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_INSERT_MANY = f"""
insert into outbox ({_COLUMNS})
select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::timestamptz[],
                     $7::text[], $8::text[], $9::text[], $10::text[])
"""


class EventTooLarge(ValueError):
    """The broker would never take this event; the transaction that wanted to say it must not commit."""


def _cause_of(uow: UnitOfWork, cause: Cause | Envelope | None) -> Cause:
    if cause is None:
        return uow.cause
    return cause if isinstance(cause, Cause) else Cause.of(cause)


def _row(uow: UnitOfWork, event: Event, sequence: int, cause: Cause | Envelope | None) -> tuple[object, ...]:
    chain = _cause_of(uow, cause)
    payload = event.model_dump_json()
    if len(payload.encode()) > MAX_PAYLOAD_BYTES:
        raise EventTooLarge(f"{event.type} of {event.key} is larger than {MAX_PAYLOAD_BYTES} bytes")
    return (
        uuid7(),
        event.topic,
        event.key,
        event.type,
        sequence,
        uow.at,
        payload,
        chain.correlation_id,
        chain.causation_id,
        chain.traceparent,
    )


async def add(uow: UnitOfWork, event: Event, *, sequence: int, cause: Cause | Envelope | None = None) -> None:
    """Say that `event` became true in this transaction. Never flushes other work, never commits.

    `sequence` is the version of the event's key in this service: 1, 2, 3, … without a gap.
    `cause` is the envelope of the event that led here, or nothing for the unit of work's own cause.
    """
    await uow.sql(_INSERT_ONE, *_row(uow, event, sequence, cause))
    uow.events_added += 1


async def add_all(uow: UnitOfWork, events: Sequence[tuple[Event, int, Cause | Envelope | None]]) -> None:
    """The same for many (event, sequence, cause), in this order, in one statement."""
    if not events:
        return
    rows = [_row(uow, event, sequence, cause) for event, sequence, cause in events]
    await uow.sql(_INSERT_MANY, *[list(column) for column in zip(*rows, strict=True)])
    uow.events_added += len(rows)


def insert_select(
    event: type[Event],
    payload: Mapping[str, str],
    *,
    source: str,
    key: str,
    sequence: str,
    occurred_at: str,
    correlation_id: str = "uuidv7()::text",
    causation_id: str = "null",
    traceparent: str = "null",
) -> str:
    """The set-based form, for one statement that moves many rows and says so.

    `payload` gives an SQL expression for every field of the event; the other arguments are SQL expressions
    too; `source` is what follows `from`. Moments must be written with `moment_sql`. The caller adds the number of rows to
    `uow.events_added`. Raises ValueError when the payload is not exactly the event's fields.
    """
    fields = set(event.model_fields)
    if set(payload) != fields:
        missing, unknown = sorted(fields - set(payload)), sorted(set(payload) - fields)
        raise ValueError(f"{event.type}: payload misses {missing}, does not know {unknown}")
    pairs = ", ".join(f"'{name}', {expression}" for name, expression in payload.items())
    return (
        f"insert into outbox ({_COLUMNS}) "
        f"select uuidv7(), '{event.topic}', {key}, '{event.type}', {sequence}, {occurred_at}, "
        f"json_build_object({pairs})::text, {correlation_id}, {causation_id}, {traceparent} from {source}"
    )


def moment_sql(expression: str) -> str:
    """An SQL expression of a timestamptz as contracts write moments: RFC 3339, UTC, `Z`."""
    return f"""to_char(({expression}) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
