"""How long events are kept: outbox and inbox are cut into periods by the time in their event ids; whole periods are dropped.

The outbox is the evidence of what was said and the way back when the broker is lost, so it outlives its cycle by
`outbox_days`. A topic that was rebuilt from it on its last day is read for as long as topics are kept, so the inbox
outlives the outbox by that and a margin: no event comes again after what tells it apart has gone. See docs/decisions/0007.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeVar
from uuid import UUID

import asyncpg
import structlog
from prometheus_client import Counter, Gauge

from contracts.cycle.lint import extent
from contracts.topics import TOPICS
from services.chassis import audit
from services.chassis.jobs import Job
from services.chassis.tokens import Actor

if TYPE_CHECKING:
    from contracts.cycle import Cycle
    from services.chassis.clock import Clock
    from services.chassis.db import Database, UnitOfWork

log = structlog.get_logger(__name__)

JOB: Final = "drop-old-events"
MARGIN: Final = timedelta(days=30)
MOVED_AT_MOST: Final = 10_000  # rows that go from the default partition to a new one while writers wait
_LONGEST_TOPIC: Final = max(topic.retention for topic in TOPICS.values())
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MONTH: Final = 7  # of a period: between the cycles of an exam, so that one cycle lies in one period
_EVERY: Final = timedelta(hours=6)  # real time
_LOCK_TIMEOUT: Final = "250ms"  # whoever comes while we wait for a lock waits behind us
_PAUSES: Final = (0.5, 1.0, 2.0, 4.0)  # seconds between attempts; afterwards the next turn tries again
_ACTOR: Final = Actor(f"job:{JOB}", frozenset({"service"}))

DROPPED = Counter("kaowu_events_dropped", "Events whose period was dropped after its time", ["table"])
OVERDUE = Gauge("kaowu_event_periods_overdue", "Periods past their time that something holds", ["table"])
OUTSIDE = Gauge("kaowu_events_outside_periods", "Events in the default partition, never dropped", ["table"])
LOCK_WAITS = Counter("kaowu_retention_lock_waits", "Locks that were not to be had in time")

Log = Literal["outbox", "inbox"]
LOGS: Final[tuple[Log, ...]] = ("outbox", "inbox")
T = TypeVar("T")

_PARTITIONS: Final = """
select c.relname as name, pg_get_expr(c.relpartbound, c.oid) as bound
from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = $1::text::regclass and not i.inhdetachpending
"""
_BOUNDS: Final = re.compile(r"FOR VALUES FROM \((?:MINVALUE|'([0-9a-f-]{36})')\) TO \('([0-9a-f-]{36})'\)")
_UNPUBLISHED: Final = """
select not exists (select from relay_cursor where id = 1) or exists (
    select from {partition} o, relay_cursor c
    where c.id = 1 and o.xid >= c.lower and not (c.upper is not null and o.xid < c.upper and o.id <= c.last_id)
) as held
"""
# A candidate with an event that waits for a decision keeps what was said about them.
_PARKED: Final = {
    "outbox": """
select exists (
    select from parked p where p.status = 'parked' and exists (select from {partition} o where o.key = p.key)
) as held
""",
    "inbox": """
select exists (
    select from parked p where p.status = 'parked' and p.event_id >= '{first}'::uuid and p.event_id < '{end}'::uuid
) as held
""",
}


@dataclass(frozen=True, slots=True)
class Period:
    """`[begins, ends)`: a year that begins with July, in UTC."""

    begins: datetime
    ends: datetime

    @classmethod
    def of(cls, at: datetime) -> Period:
        """The period that this moment lies in."""
        begins = datetime(at.astimezone(UTC).year, _FIRST_MONTH, 1, tzinfo=UTC)
        if at < begins:
            begins = begins.replace(year=begins.year - 1)
        return cls(begins, begins.replace(year=begins.year + 1))

    @property
    def next(self) -> Period:
        return Period.of(self.ends)


@dataclass(frozen=True, slots=True)
class Partition:
    """The events with `first <= event_id < end`; without `first`: all below `end`."""

    name: str
    first: UUID | None
    end: UUID

    @property
    def ends(self) -> datetime:
        """When the first moment after it was, or will be."""
        return moment_of(self.end)


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long what is kept, judged by the cycle that this process serves."""

    begins: datetime
    ends: datetime
    outbox: timedelta
    inbox: timedelta

    @classmethod
    def of(cls, cycle: Cycle, outbox_days: int) -> Keeping:
        begins, ends = extent(cycle)
        outbox = timedelta(days=outbox_days)
        return cls(
            begins=begins,
            ends=ends,
            outbox=outbox,
            inbox=outbox + _LONGEST_TOPIC + MARGIN,
        )

    def until(self, table: Log, period_ends: datetime) -> datetime:
        """The first moment at which a period that ended then may be dropped.

        A period that ended before this cycle began holds only earlier cycles; any other waits for this cycle's end.
        """
        last = max(period_ends, self.ends) if self.begins < period_ends else period_ends
        return last + (self.outbox if table == "outbox" else self.inbox)


def bound(at: datetime) -> UUID:
    """The id that no UUIDv7 made before `at` (to the millisecond) reaches, and every later one passes."""
    return UUID(int=((at - _EPOCH) // timedelta(milliseconds=1)) << 80)


def moment_of(event_id: UUID) -> datetime:
    """When an id was made, to the millisecond. Only of a UUIDv7 or a bound."""
    return _EPOCH + timedelta(milliseconds=event_id.int >> 80)


class Retention:
    """Keeps a period ahead of the time, and drops what is past its own."""

    def __init__(self, database: Database, clock: Clock, keeping: Keeping) -> None:
        self._database = database
        self._clock = clock
        self._keeping = keeping

    @property
    def now(self) -> datetime:
        """Ids carry real time, cycles virtual time: what is past must be past on both."""
        return min(self._clock.now(), self._clock.real_now())

    async def run(self) -> None:
        """Make the period of now and the next one, then drop what may go. Never waits long for a lock."""
        for table in LOGS:
            current = Period.of(self._clock.real_now())
            for period in (current, current.next):
                await self.make(table, period)
            await self.drop_old(table)

    async def partitions(self, uow: UnitOfWork, table: Log) -> list[Partition]:
        """In the order of time, without the default one."""
        found = [
            Partition(row.name, UUID(bounds[1]) if bounds[1] else None, UUID(bounds[2]))
            for row in await uow.sql(_PARTITIONS, table)
            if (bounds := _BOUNDS.fullmatch(row.bound or ""))
        ]
        return sorted(found, key=lambda partition: partition.end)

    async def make(self, table: Log, period: Period) -> bool:
        """Give the period a partition of its own unless it lies in one. Returns whether there is one now."""
        return await self._patiently(partial(self._make, table, period)) or False

    async def _make(self, table: Log, period: Period) -> bool:
        first, end = bound(period.begins), bound(period.ends)
        where = f"event_id >= '{first}' and event_id < '{end}'"
        async with self._database.reading() as uow:
            if await self._made(uow, table, first, end):
                return True
            rows = await uow.sql(f"select 1 from {table}_default where {where} limit {MOVED_AT_MOST + 1}")
        if len(rows) > MOVED_AT_MOST:
            log.error("period-stays-in-default", table=table, begins=period.begins.isoformat())
            return False
        name = f"{table}_{period.begins:%Y_%m}"
        async with self._database.unit_of_work() as uow:
            await uow.sql(f"set local lock_timeout = '{_LOCK_TIMEOUT}'")
            # The whole table first, as everybody else does. This lock keeps other makers out and nobody else.
            await uow.sql(f"lock table only {table} in share update exclusive mode")
            if await self._made(uow, table, first, end):
                return True  # another process was quicker
            await uow.sql(
                f"create table {name} (like {table}_default including defaults including constraints including indexes)"
            )
            await uow.sql(f"lock table only {table}_default in access exclusive mode")
            moved = await uow.changed(
                f"with moved as (delete from {table}_default where {where} returning *) insert into {name} select * from moved"
            )
            await uow.sql(
                f"alter table {table} attach partition {name} for values from ('{first}') to ('{end}')"
            )
        log.info("period-made", table=table, partition=name, moved=moved)
        return True

    async def _made(self, uow: UnitOfWork, table: Log, first: UUID, end: UUID) -> bool:
        return any(
            (there.first is None or there.first < end) and first < there.end
            for there in await self.partitions(uow, table)
        )

    async def drop_old(self, table: Log) -> None:
        """Drop every period that is past its time and that nothing holds."""
        async with self._database.reading() as uow:
            old = [
                one
                for one in await self.partitions(uow, table)
                if self.now >= self._keeping.until(table, one.ends)
            ]
            outside = await uow.sql(f"select count(*) as rows from {table}_default")
        OUTSIDE.labels(table).set(outside[0].rows)
        held = 0
        for partition in old:
            held += not await self._patiently(partial(self._drop, table, partition))
        OVERDUE.labels(table).set(held)

    async def _drop(self, table: Log, partition: Partition) -> bool:
        """False when something holds it. What holds it is asked again under the lock that keeps writers out."""
        try:
            async with self._database.reading() as uow:
                if await self._held(uow, table, partition):
                    return False
                (counted,) = await uow.sql(f"select count(*) as rows from {partition.name}")
        except asyncpg.UndefinedTableError:
            return True  # another process was quicker
        async with self._database.unit_of_work() as uow:
            await uow.sql(f"set local lock_timeout = '{_LOCK_TIMEOUT}'")
            await uow.sql(f"lock table only {table} in access exclusive mode")
            if partition not in await self.partitions(uow, table):
                return True
            if await self._held(uow, table, partition):
                return False
            await uow.sql(f"drop table {partition.name}")
            await audit.record(
                uow,
                _ACTOR,
                JOB,
                subject=partition.name,
                detail={"events": counted.rows, "ended": partition.ends.isoformat()},
            )
        DROPPED.labels(table).inc(counted.rows)
        log.info("period-dropped", table=table, partition=partition.name, events=counted.rows)
        return True

    async def _held(self, uow: UnitOfWork, table: Log, partition: Partition) -> bool:
        asked = {"parked": _PARKED[table]}
        if table == "outbox":
            asked["unpublished"] = _UNPUBLISHED
        for why, question in asked.items():
            first = partition.first or UUID(int=0)
            (answer,) = await uow.sql(
                question.format(partition=partition.name, first=first, end=partition.end)
            )
            if answer.held:
                log.warning("period-is-held", table=table, partition=partition.name, why=why)
                return True
        return False

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do it when its locks can be had soon; None when they could not, so that the next turn tries again."""
        for pause in (*_PAUSES, None):
            try:
                return await work()
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                LOCK_WAITS.inc()
                if pause is not None:
                    await asyncio.sleep(pause * (0.5 + secrets.randbelow(1000) / 1000))
        log.warning("retention-waits-for-a-lock")
        return None


def make_job(database: Database, clock: Clock, cycle: Cycle, outbox_days: int) -> Job:
    """Every service has it, one process of a service at a time does it."""
    retention = Retention(database, clock, Keeping.of(cycle, outbox_days))

    async def turn() -> None:
        # No moment of its own: a rehearsal that steps from one due moment to the next must not stop for it.
        await retention.run()

    return Job(JOB, turn, every=_EVERY)
