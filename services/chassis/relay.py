"""Outbox to Kafka, in order, one leader per service; the only publisher.

What is read: whole ranges of transactions that are over, `lower <= xid < upper` with `upper` the oldest one
still in progress, **ordered by id** inside the range. Nothing that commits late is skipped, because a
transaction in progress keeps `upper` below its own id.

One case crosses ranges. A transaction T2 may draw its xid before it waits for a row that T1 holds, and T1 may
draw a later xid and commit first. While a third transaction between the two is in progress, T2 is below
`upper` and T1 is not: T1's event, the earlier of the two, would go out after T2's. So before a range is
published, rows beyond it that come *earlier* for one of its keys are pulled forward. They go out once more when
their own range comes; the inbox drops the second copy, and their first occurrences are in order.
See docs/decisions/0002-relay-order-across-ranges.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import asyncpg
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner

from contracts.catalogue import EVENTS
from contracts.envelope import Envelope
from services.chassis.cause import new_traceparent
from services.chassis.crash import crash_point
from services.chassis.db import driver_url
from services.chassis.telemetry import RELAYED

log = structlog.get_logger(__name__)

PAGE: Final = 1000
_ACKNOWLEDGED_WITHIN = 30.0  # seconds; an idempotent aiokafka producer never gives up by itself
_LEADER_LOCK = 7_205_759_403_792_794  # one per database, and each service has its own database
_IDLE = 0.25
_MAX_BATCH_BYTES = 1 << 18
_MAX_REQUEST_BYTES = 1 << 20

# A plan made while the table is empty is kept for the life of a connection: it would scan and sort a million
# rows for every page. These leave the planner only the indexes.
_PLANNER = "set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off; set jit = off"

_COLUMNS = "id, event_id, topic, key, type, sequence, occurred_at, payload, correlation_id, causation_id, traceparent"
_CURSOR = "select lower::text, upper::text, last_id from relay_cursor where id = 1"
# `offset 0` keeps min() from walking the primary key through the whole log when the range is empty.
_NEXT_RANGE = """
with horizon as materialized (select pg_snapshot_xmin(pg_current_snapshot()) as upper)
select horizon.upper::text as upper,
       (select min(id) from (select o.id from outbox o
                             where o.xid >= $1::text::xid8 and o.xid < horizon.upper offset 0) r) as first_id,
       exists (select 1 from outbox o where o.xid >= horizon.upper) as beyond
from horizon
"""
_PAGE_OF_RANGE = f"""
select {_COLUMNS} from outbox
where id > $3 and xid >= $1::text::xid8 and xid < $2::text::xid8 order by id limit {PAGE}
"""
_EARLIER_BEYOND = f"""
select {_COLUMNS} from outbox where xid >= $1::text::xid8 and key = any($2::text[]) order by id
"""
_MOVE = "update relay_cursor set lower = $1::text::xid8, upper = $2::text::xid8, last_id = $3 where id = 1"


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything below `lower` is published; of `[lower, upper)`, everything up to id `last_id`."""

    lower: str
    upper: str | None
    last_id: int


class OutboxRow(Protocol):
    """One event as it stands in the log."""

    def __getitem__(self, name: str) -> Any: ...


class Relay:
    """Publishes a service's events for as long as it leads; waits for its turn otherwise."""

    def __init__(self, database_url: str, bootstrap_servers: str, *, service: str, pace: float = 0.0) -> None:
        self._dsn = driver_url(database_url)
        self._bootstrap = bootstrap_servers
        self._service = service
        self._pace = pace
        self._awake = asyncio.Event()
        self._stop = asyncio.Event()
        self._partitioner = DefaultPartitioner()
        self.leading = False
        self.published = 0

    def wake(self) -> None:
        """There is something new: called in this process after each commit that added events."""
        self._awake.set()

    def stop(self) -> None:
        """Finish the page under way, then return from `run`."""
        self._stop.set()
        self._awake.set()

    async def run(self) -> None:
        """Lead, or wait to lead, until `stop`. On any error: a new connection and a new producer."""
        while not self._stop.is_set():
            try:
                await self._lead()
            except Exception as error:
                self.leading = False
                log.warning("relay-interrupted", error=type(error).__name__, service=self._service)
                await self._pause(0.5 + secrets.randbelow(1000) / 1000)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _lead(self) -> None:
        async with self._connection() as connection:
            while not await connection.fetchval("select pg_try_advisory_lock($1)", _LEADER_LOCK):
                await self._pause(0.5 + secrets.randbelow(500) / 1000)
                if self._stop.is_set():
                    return
            async with producer(self._bootstrap) as kafka:
                self.leading = True
                try:
                    await self._publish_all(connection, kafka)
                finally:
                    self.leading = False

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        connection = await asyncpg.connect(
            self._dsn,
            timeout=5,
            command_timeout=60,
            server_settings={"application_name": f"{self._service}-relay"},
        )
        try:
            await connection.execute(_PLANNER)
            yield connection
        finally:
            with contextlib.suppress(Exception):
                await connection.close(timeout=2)

    async def _publish_all(self, connection: asyncpg.Connection[Any], kafka: AIOKafkaProducer) -> None:
        row = await connection.fetchrow(_CURSOR)
        if row is None:
            raise RuntimeError("relay_cursor has no row: the database is not migrated")
        cursor = Cursor(row["lower"], row["upper"], row["last_id"])
        delay = 0.002
        clock = asyncio.get_running_loop().time
        while not self._stop.is_set():
            self._awake.clear()
            started = clock()
            cursor, count = await self._step(connection, kafka, cursor)
            if count:
                delay = 0.002
            if count < PAGE and cursor.upper is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._awake.wait(), delay)
                if count and (early := started + self._pace - clock()) > 0:
                    await self._pause(early)
                # Right after a wake-up another writer may still hold the horizon, so look again soon.
                delay = 0.004 if self._awake.is_set() else min(delay * 2, _IDLE)

    async def _step(
        self, connection: asyncpg.Connection[Any], kafka: AIOKafkaProducer, cursor: Cursor
    ) -> tuple[Cursor, int]:
        """Publish one page and move the cursor behind it. Returns the new cursor and how many went out."""
        beyond = True
        if cursor.upper is None:
            found = await connection.fetchrow(_NEXT_RANGE, cursor.lower)
            assert found is not None
            if found["first_id"] is None:
                return Cursor(cursor.lower, None, 0), 0
            cursor = Cursor(cursor.lower, found["upper"], found["first_id"] - 1)
            beyond = found["beyond"]
        rows: Sequence[OutboxRow] = await connection.fetch(
            _PAGE_OF_RANGE, cursor.lower, cursor.upper, cursor.last_id
        )
        if rows:
            earlier = await self._earlier(connection, cursor, rows) if beyond else ()
            crash_point("relay-before-publish")
            async with asyncio.timeout(_ACKNOWLEDGED_WITHIN):
                await self._publish(kafka, [*earlier, *rows])
            crash_point("relay-after-ack")
        assert cursor.upper is not None
        moved = (
            Cursor(cursor.lower, cursor.upper, rows[-1]["id"])
            if len(rows) == PAGE
            else Cursor(cursor.upper, None, 0)
        )
        await connection.execute(_MOVE, moved.lower, moved.upper, moved.last_id)
        self.published += len(rows)
        RELAYED.inc(len(rows))
        return moved, len(rows)

    @staticmethod
    async def _earlier(
        connection: asyncpg.Connection[Any], cursor: Cursor, rows: Iterable[OutboxRow]
    ) -> Sequence[OutboxRow]:
        last = {row["key"]: row["id"] for row in rows}
        beyond = await connection.fetch(_EARLIER_BEYOND, cursor.upper, list(last))
        return [row for row in beyond if row["id"] < last[row["key"]]]

    async def _publish(self, kafka: AIOKafkaProducer, rows: Sequence[OutboxRow]) -> None:
        """All of these, in this order per key, acknowledged by every replica that must."""
        open_batches: dict[tuple[str, int], Any] = {}
        acknowledged: list[asyncio.Future[Any]] = []
        partitions: dict[str, list[int]] = {}
        for row in rows if len(rows) == 1 else sorted(rows, key=lambda row: row["id"]):
            topic: str = row["topic"]
            if topic not in partitions:
                partitions[topic] = sorted(await kafka.partitions_for(topic))
            key = row["key"].encode()
            choice = partitions[topic]
            where = (topic, self._partitioner(key, choice, choice))
            value, headers = row["payload"].encode(), headers_of(row)
            batch = open_batches.setdefault(where, kafka.create_batch())
            if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
                acknowledged.append(await kafka.send_batch(batch, topic, partition=where[1]))
                open_batches[where] = batch = kafka.create_batch()
                if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
                    raise ValueError(f"event {row['event_id']} is larger than a batch of the broker")
        for (topic, partition), batch in open_batches.items():
            acknowledged.append(await kafka.send_batch(batch, topic, partition=partition))
        await asyncio.gather(*acknowledged)


@asynccontextmanager
async def producer(bootstrap_servers: str) -> AsyncIterator[AIOKafkaProducer]:
    """A started idempotent producer that is stopped, at the latest after a few seconds, whatever happened."""
    kafka = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers,
        enable_idempotence=True,
        acks="all",
        max_batch_size=_MAX_BATCH_BYTES,
        max_request_size=_MAX_REQUEST_BYTES,
    )
    try:
        async with asyncio.timeout(_ACKNOWLEDGED_WITHIN):
            await kafka.start()
        yield kafka
    finally:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(3):
                await kafka.stop()


def headers_of(row: OutboxRow) -> list[tuple[str, bytes]]:
    """The CloudEvents attributes of a row of the log."""
    kind = EVENTS[row["type"]]
    envelope = Envelope(
        event_id=row["event_id"],
        type=row["type"],
        source=kind.source,
        subject=row["key"],
        time=row["occurred_at"],
        dataschema=kind.dataschema(),
        sequence=row["sequence"],
        correlation_id=row["correlation_id"],
        causation_id=row["causation_id"],
        traceparent=row["traceparent"] or new_traceparent(row["event_id"]),
    )
    return envelope.headers()
