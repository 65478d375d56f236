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

While a page is packed, PostgreSQL fetches the next one and the broker writes the last one. The cursor moves behind
a page when all of it and of every page before it is acknowledged. See docs/decisions/0012-the-relay-reads-ahead.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import asyncpg
import structlog
from aiokafka import AIOKafkaProducer

from services.chassis.consuming import METADATA_AGE_MS
from services.chassis.crash import crash_point
from services.chassis.db import driver_url
from services.chassis.forgetting import Forgotten
from services.chassis.pacing import Pace
from services.chassis.packing import COLUMNS, OutboxRow, hand_over
from services.chassis.record_batch import MAX_BATCH_BYTES
from services.chassis.telemetry import RELAYED

log = structlog.get_logger(__name__)

PAGE: Final = 2000
_AHEAD: Final = 3  # pages handed to the broker and not yet acknowledged, before another is packed
_ACKNOWLEDGED_WITHIN = 30.0  # seconds; an idempotent aiokafka producer never gives up by itself
_LEADER_LOCK = 7_205_759_403_792_794  # one per database, and each service has its own database
_IDLE = 0.25
_MAX_REQUEST_BYTES = 1 << 20

# A plan made while the table is empty is kept for the life of a connection: it would scan and sort a million
# rows for every page. These leave the planner only the indexes.
# A cursor that a crash of the server sets back makes duplicates, which are dropped; it need not wait for the disk.
_PLANNER = (
    "set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off; set jit = off; "
    "set synchronous_commit = off"
)

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
select {COLUMNS} from outbox
where id > $3 and xid >= $1::text::xid8 and xid < $2::text::xid8 order by id limit {PAGE}
"""
# `offset 0` here keeps `order by id` from walking the primary key through the whole log, page after page.
_EARLIER_BEYOND = f"""
select {COLUMNS} from (
    select * from outbox where xid >= $1::text::xid8 and id < $2 and key = any($3::text[]) offset 0
) r order by id
"""
_MOVE = "update relay_cursor set lower = $1::text::xid8, upper = $2::text::xid8, last_id = $3 where id = 1"


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything below `lower` is published; of `[lower, upper)`, everything up to id `last_id`.

    `beyond`: whether something at or above `upper` was written when the range was drawn. It is not kept: a leader that
    takes over half way through a range looks.
    """

    lower: str
    upper: str | None
    last_id: int
    beyond: bool = True

    @classmethod
    def of(cls, row: Any) -> Cursor:
        """As the database has it."""
        if row is None:
            raise RuntimeError("relay_cursor has no row: the database is not migrated")
        return cls(row["lower"], row["upper"], row["last_id"])


@dataclass(frozen=True, slots=True)
class Page:
    """What goes out next, in this order; `own` of them belong to the page, the others were pulled forward to it."""

    rows: Sequence[OutboxRow]
    own: int
    after: Cursor

    @property
    def full(self) -> bool:
        """Whether its range may hold more."""
        return self.own == PAGE


@dataclass(frozen=True, slots=True)
class Sent:
    """A page that the producer has."""

    page: Page
    acknowledged: asyncio.Future[Any]


class Relay:
    """Publishes a service's events for as long as it leads; waits for its turn otherwise."""

    def __init__(
        self,
        database_url: str,
        bootstrap_servers: str,
        *,
        service: str,
        pace: float = 0.0,
        before_leading: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`before_leading` is asked with the lock in hand. It may raise Forgotten: then nothing is published, and `run` ends."""
        self._dsn = driver_url(database_url)
        self._bootstrap = bootstrap_servers
        self._service = service
        self._pace = Pace(pace)
        self._before_leading = before_leading
        self._awake = asyncio.Event()
        self._stop = asyncio.Event()
        self._connection_lock = asyncio.Lock()
        self.leading = False
        self.published = 0

    def wake(self) -> None:
        """There is something new: called in this process after each commit that added events."""
        self._awake.set()

    def hurry(self) -> None:
        """Somebody waits for what is written: no pace is waited out."""
        self._pace.hurry()

    def stop(self) -> None:
        """Finish the page under way, then return from `run`."""
        self._stop.set()
        self._awake.set()
        self._pace.hurry()

    async def run(self) -> None:
        """Lead, or wait to lead, until `stop`. On any error: a new connection and a new producer."""
        while not self._stop.is_set():
            try:
                await self._lead()
            except Forgotten:
                raise
            except Exception as error:
                self.leading = False
                log.warning("relay-interrupted", error=type(error).__name__, service=self._service)
                await self._pause(0.5 + secrets.randbelow(1000) / 1000)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _lead(self) -> None:
        async with self._connection() as connection:
            while not await self.may_lead(connection):
                await self._pause(0.5 + secrets.randbelow(500) / 1000)
                if self._stop.is_set():
                    return
            if self._before_leading is not None:
                await self._before_leading()
            async with producer(self._bootstrap) as kafka:
                self.leading = True
                try:
                    await self._publish_all(connection, kafka)
                finally:
                    self.leading = False

    @staticmethod
    async def may_lead(connection: asyncpg.Connection[Any]) -> bool:
        """Whether nobody else leads; from then on this connection does, until it ends."""
        return bool(await connection.fetchval("select pg_try_advisory_lock($1)", _LEADER_LOCK))

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
            # A datetime costs as much as the rest of its row, and most rows have the one of the row before.
            await connection.set_builtin_type_codec("timestamptz", schema="pg_catalog", codec_name="int8")
            yield connection
        finally:
            with contextlib.suppress(Exception):
                await connection.close(timeout=2)

    async def _publish_all(self, connection: asyncpg.Connection[Any], kafka: AIOKafkaProducer) -> None:
        cursor = Cursor.of(await connection.fetchrow(_CURSOR))
        reading: asyncio.Task[Page] | None = None
        sent: deque[Sent] = deque()
        delay = 0.002
        try:
            while not self._stop.is_set():
                self._awake.clear()
                self._pace.begin()
                page = await (reading or self._read(connection, cursor))
                reading, cursor = None, page.after
                if page.full:
                    reading = asyncio.create_task(self._read(connection, cursor))
                    await asyncio.sleep(0)  # its query is on its way before the packing takes the loop
                if page.rows:
                    sent.append(await self._hand_over(kafka, page))
                    delay = 0.002
                if page.full or (page.rows and self._awake.is_set() and not self._pace.seconds):
                    while len(sent) >= _AHEAD:
                        await self._settle(connection, sent.popleft())
                    continue
                while sent:
                    await self._settle(connection, sent.popleft())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._awake.wait(), delay)
                if page.rows:
                    await self._pace.keep()
                # Another writer may still hold the horizon below what waits: look again soon. Where nothing waits, whoever
                # commits wakes us.
                waits = page.rows or page.after.beyond
                delay = 0.004 if self._awake.is_set() else min(delay * 2, _IDLE) if waits else _IDLE
            while sent:
                await self._settle(connection, sent.popleft())
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def once(self, connection: asyncpg.Connection[Any], kafka: AIOKafkaProducer) -> int:
        """One page, from where the database says that the last leader stood. For simulations; `run` goes on from memory."""
        page = await self._read(connection, Cursor.of(await connection.fetchrow(_CURSOR)))
        if page.rows:
            await self._settle(connection, await self._hand_over(kafka, page))
        return page.own

    async def _read(self, connection: asyncpg.Connection[Any], cursor: Cursor) -> Page:
        """The next page behind this cursor; an empty one when nothing is visible yet."""
        rows: Sequence[OutboxRow] = ()
        earlier: Sequence[OutboxRow] = ()
        async with self._connection_lock:
            while not rows:
                if cursor.upper is None:
                    found = await connection.fetchrow(_NEXT_RANGE, cursor.lower)
                    assert found is not None
                    if found["first_id"] is None:
                        return Page((), 0, replace(cursor, beyond=found["beyond"]))
                    cursor = Cursor(cursor.lower, found["upper"], found["first_id"] - 1, found["beyond"])
                upper = cursor.upper
                assert upper is not None
                rows = await connection.fetch(_PAGE_OF_RANGE, cursor.lower, upper, cursor.last_id)
                if rows and cursor.beyond:
                    earlier = await self._earlier(connection, upper, rows)
                over = len(rows) < PAGE
                cursor = Cursor(upper, None, 0) if over else replace(cursor, last_id=rows[-1]["id"])
        together = sorted([*earlier, *rows], key=lambda row: row["id"]) if earlier else rows
        return Page(together, len(rows), cursor)

    @staticmethod
    async def _earlier(
        connection: asyncpg.Connection[Any], upper: str, rows: Sequence[OutboxRow]
    ) -> Sequence[OutboxRow]:
        last = {row["key"]: row["id"] for row in rows}
        beyond = await connection.fetch(_EARLIER_BEYOND, upper, rows[-1]["id"], list(last))
        return [row for row in beyond if row["id"] < last[row["key"]]]

    async def _hand_over(self, kafka: AIOKafkaProducer, page: Page) -> Sent:
        crash_point("relay-before-publish")
        async with asyncio.timeout(_ACKNOWLEDGED_WITHIN):
            acknowledged = asyncio.gather(*await hand_over(kafka, page.rows))
        acknowledged.add_done_callback(_look_at)
        return Sent(page, acknowledged)

    async def _settle(self, connection: asyncpg.Connection[Any], sent: Sent) -> None:
        """Wait until every replica that must has the page, then move the cursor behind it."""
        async with asyncio.timeout(_ACKNOWLEDGED_WITHIN):
            await sent.acknowledged
        crash_point("relay-after-ack")
        after = sent.page.after
        async with self._connection_lock:
            await connection.execute(_MOVE, after.lower, after.upper, after.last_id)
        self.published += sent.page.own
        RELAYED.inc(sent.page.own)


def _look_at(acknowledged: asyncio.Future[Any]) -> None:
    """A page whose turn to be waited for never comes, because an earlier one failed, has nothing more to say."""
    if not acknowledged.cancelled():
        acknowledged.exception()


@asynccontextmanager
async def producer(bootstrap_servers: str) -> AsyncIterator[AIOKafkaProducer]:
    """A started idempotent producer that is stopped, at the latest after a few seconds, whatever happened."""
    kafka = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers,
        enable_idempotence=True,
        acks="all",
        metadata_max_age_ms=METADATA_AGE_MS,
        max_batch_size=MAX_BATCH_BYTES,
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
