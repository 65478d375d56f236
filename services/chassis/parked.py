"""Events that failed for good, kept per key in order until somebody decides: replay or discard.

Parked is not lost. Replay goes through the same inbox and the same handlers, in the order of a key's versions, and stops at
the first of a key that fails again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from aiokafka import ConsumerRecord

from contracts.envelope import Envelope, MalformedEnvelope
from services.chassis.heard import OVERTAKEN

if TYPE_CHECKING:
    from services.chassis.consuming import Consumers
    from services.chassis.db import Database, UnitOfWork

# Nothing waits behind what was overtaken: whatever comes is later still.
_IN_THE_WAY = f"status = 'parked' and reason not like '{OVERTAKEN}:%'"
_OPEN_KEYS = f"""
select distinct topic, key from parked
where {_IN_THE_WAY} and (topic, key) in (select * from unnest($1::text[], $2::text[]))
"""
_PARK = """
insert into parked (topic, partition, "offset", key, type, event_id, handler, headers, payload, reason, parked_at)
values ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb, $9, $10, $11)
on conflict (topic, partition, "offset") do nothing
"""
_COLUMNS = 'id, topic, partition, "offset", key, type, event_id, handler, headers, payload, reason, parked_at, status, note'
_WAITING = f"select id, headers from parked where {_IN_THE_WAY} and topic = $1 and key = $2 order by id"
_RESOLVE = "update parked set status = $2, resolved_at = $3, note = $4 where id = $1 and status = 'parked'"


@dataclass(frozen=True, slots=True)
class Parked:
    """One event that waits for a decision."""

    id: int
    topic: str
    partition: int
    offset: int
    key: str | None
    type: str | None
    event_id: UUID | None
    reason: str
    parked_at: datetime
    status: str
    note: str | None

    def facts(self) -> dict[str, Any]:
        """For operators: everything but the payload."""
        return {
            "id": self.id,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "key": self.key,
            "type": self.type,
            "event_id": None if self.event_id is None else str(self.event_id),
            "reason": self.reason,
            "parked_at": self.parked_at.isoformat(),
            "status": self.status,
            "note": self.note,
        }


class CannotReplay(Exception):
    """Why a parked event was not replayed, and what to do first."""


async def blocked_keys(
    uow: UnitOfWork, where: AbstractSet[tuple[str, str | None]]
) -> set[tuple[str, str | None]]:
    """Those (topic, key) that have an event waiting: what comes later waits behind it."""
    pairs = [(topic, key) for topic, key in where if key is not None]
    rows = await uow.sql(_OPEN_KEYS, [t for t, _ in pairs], [k for _, k in pairs])
    return {(row["topic"], row["key"]) for row in rows}


async def park(
    uow: UnitOfWork,
    record: ConsumerRecord[bytes | None, bytes | None],
    envelope: Envelope | None,
    *,
    handler: str,
    reason: str,
) -> None:
    """Keep a record as it came. The same record twice is kept once."""
    headers = [
        [as_text(name.encode()), base64.b64encode(value or b"").decode(), value is None]
        for name, value in record.headers
    ]
    await uow.sql(
        _PARK,
        record.topic,
        record.partition,
        record.offset,
        None if record.key is None else as_text(record.key),
        None if envelope is None else envelope.type,
        None if envelope is None else envelope.event_id,
        handler,
        json.dumps(headers),
        record.value or b"",
        reason,
        uow.at,
    )


def as_text(found: bytes) -> str:
    """What a key or a header's name is kept as: whatever no column of text can hold is replaced, never left out."""
    return found.decode("utf-8", "replace").replace("\0", "\ufffd")


async def list_parked(uow: UnitOfWork, *, status: str = "parked", limit: int = 200) -> list[Parked]:
    """Oldest first."""
    rows = await uow.sql(
        f"select {_COLUMNS} from parked where status = $1 order by id limit $2", status, limit
    )
    return [_parked(row) for row in rows]


async def replay(database: Database, consumers: Consumers, parked_id: int) -> Parked:
    """Take one parked event in again. It must be the first of its key that waits.

    Raises CannotReplay when it is not there, not waiting, not the first, overtaken, or fails again.
    """
    async with database.unit_of_work() as uow:
        one, record = await _lock(uow, parked_id)
        if one.reason.startswith(f"{OVERTAKEN}:"):
            raise CannotReplay(
                f"parked {parked_id} was {one.reason}, and is never applied over it: see what it says, set right by hand what "
                "is missing, and discard it with a note"
            )
        rows = await uow.sql(_WAITING, one.topic, one.key)
        first = _first([(row.id, _sequence(row.headers)) for row in rows])
        if first is not None and first != one.id:
            raise CannotReplay(f"parked {parked_id} waits behind {first} of the same key: replay that first")
        try:
            await consumers.replay(uow, record)
        except Exception as error:
            raise CannotReplay(f"parked {parked_id} failed again: {type(error).__name__}") from error
        await uow.sql(_RESOLVE, parked_id, "replayed", uow.at, None)
        return one


def _first(waiting: Sequence[tuple[int, int | None]]) -> int | None:
    """Of (id, version) in the order in which they came: whose turn it is. Nothing passes one whose version cannot be read."""
    found: tuple[int, int] | None = None
    for parked_id, sequence in waiting:
        if sequence is None:
            return parked_id if found is None else found[0]
        if found is None or sequence < found[1]:
            found = (parked_id, sequence)
    return None if found is None else found[0]


def _sequence(stored: Any) -> int | None:
    try:
        return Envelope.from_headers(_headers(stored)).sequence
    except MalformedEnvelope:
        return None


async def discard(database: Database, parked_id: int, note: str) -> Parked:
    """Decide that an event will never be taken in. `note` says why; it is kept with the event."""
    if not note.strip():
        raise CannotReplay("a discarded event needs a note that says why")
    async with database.unit_of_work() as uow:
        one, _ = await _lock(uow, parked_id)
        await uow.sql(_RESOLVE, parked_id, "discarded", uow.at, note)
        return one


async def _lock(uow: UnitOfWork, parked_id: int) -> tuple[Parked, ConsumerRecord[bytes | None, bytes | None]]:
    rows = await uow.sql(f"select {_COLUMNS} from parked where id = $1 for update", parked_id)
    if not rows:
        raise CannotReplay(f"no parked event {parked_id}")
    row, one = rows[0], _parked(rows[0])
    if one.status != "parked":
        raise CannotReplay(f"parked {parked_id} is {one.status} already")
    record: ConsumerRecord[bytes | None, bytes | None] = ConsumerRecord(
        topic=one.topic,
        partition=one.partition,
        offset=one.offset,
        timestamp=0,
        timestamp_type=0,
        key=None if one.key is None else one.key.encode(),
        value=bytes(row.payload),
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=len(row.payload),
        headers=_headers(row.headers),
    )
    return one, record


def _headers(stored: Any) -> list[tuple[str, bytes | None]]:
    found = stored if isinstance(stored, list) else json.loads(stored)
    return [(name, None if null else base64.b64decode(value)) for name, value, null in found]


def _parked(row: Any) -> Parked:
    return Parked(
        row.id,
        row.topic,
        row.partition,
        row.offset,
        row.key,
        row.type,
        row.event_id,
        row.reason,
        row.parked_at,
        row.status,
        row.note,
    )
