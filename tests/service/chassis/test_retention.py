"""Periods are made ahead of the time and dropped after it: every condition at its edge, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from contracts.cycle import Cycle
from contracts.topics import TOPICS
from deploy.local.databases import DatabaseLogin
from services.chassis import inbox, outbox, retention
from services.chassis.db import Database
from services.chassis.retention import Keeping, Log, Partition, Period, Retention, bound
from services.chassis.settings import ServiceSettings
from tests.support.counted import counted
from tests.support.streams import confirmed, make_tables

CYCLE = Cycle.read(Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml")
MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)
# The migration's first period ends at a July that depends on the day it runs: these tests look at the ones after it.
OLD = Period.of(datetime(2031, 1, 1, tzinfo=UTC))
YOUNG = OLD.next


@dataclass
class SetClock:
    """A clock that stands where a test puts it; the machine's may stand elsewhere."""

    at: datetime
    real: datetime | None = None
    virtual: bool = True

    def now(self) -> datetime:
        return self.at

    def real_now(self) -> datetime:
        return self.real or self.at

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class Kept:
    """A service's database with two later periods, and what is asked of it."""

    login: DatabaseLogin
    database: Database
    clock: SetClock

    def retention(self, keeping: Keeping | None = None) -> Retention:
        return Retention(self.database, self.clock, keeping or self.keeping())

    def keeping(self, begins: datetime = OLD.begins, ends: datetime = OLD.begins + DAY) -> Keeping:
        return Keeping(begins, ends, outbox=365 * DAY, inbox=800 * DAY)

    async def execute(self, statement: str, *args: object) -> None:
        async with self.database.unit_of_work() as uow:
            await uow.changed(statement, *args)

    async def rows(self, statement: str, *args: object) -> Sequence[Any]:
        async with self.database.reading() as uow:
            return await uow.sql(statement, *args)

    async def value(self, statement: str, *args: object) -> Any:
        return (await self.rows(statement, *args))[0][0]

    async def partitions(self, table: Log) -> set[str]:
        async with self.database.reading() as uow:
            return {one.name for one in await self.retention().partitions(uow, table)}

    async def say(self, at: datetime, key: UUID | None = None, sequence: int = 1) -> UUID:
        """An event whose id was made then."""
        event_id = made_at(at)
        async with self.database.unit_of_work() as uow:
            await outbox.add(uow, confirmed(key or uuid4()), sequence=sequence)
            # A row cannot be born in the past: it is moved there, as an update of the partition key does.
            await uow.sql("update outbox set event_id = $1 where id = (select max(id) from outbox)", event_id)
        return event_id

    async def claim(self, at: datetime) -> UUID:
        event_id = made_at(at)
        async with self.database.unit_of_work() as uow:
            assert await inbox.claim(uow, "handler", [event_id]) == {event_id}
        return event_id

    async def publish_all(self) -> None:
        await self.execute("update relay_cursor set lower = pg_current_xact_id(), upper = null, last_id = 0")

    async def park(self, *, key: str = "k", event_id: UUID | None = None) -> None:
        await self.execute(
            'insert into parked (topic, partition, "offset", key, event_id, handler, headers, payload, reason, parked_at) '
            "values ('t', 0, (select count(*) from parked), $1, $2, 'h', '[]', '', 'failed', now())",
            key,
            event_id,
        )


def made_at(at: datetime) -> UUID:
    """A UUIDv7 of that millisecond."""
    return UUID(int=bound(at).int | 7 << 76 | 2 << 62 | uuid4().int & (1 << 62) - 1)


@pytest.fixture
async def log(blank_database: DatabaseLogin) -> AsyncIterator[Kept]:
    await make_tables(blank_database)
    clock = SetClock(OLD.begins)
    service = Kept(blank_database, Database(blank_database.url, clock=clock), clock)
    for table in retention.LOGS:
        for period in (OLD, YOUNG):
            assert await service.retention().make(table, period)
    yield service
    await service.database.dispose()


def test_a_period_is_a_year_from_july_and_half_open() -> None:
    assert Period.of(datetime(2027, 6, 30, 23, 59, tzinfo=UTC)).begins == datetime(2026, 7, 1, tzinfo=UTC)
    assert Period.of(datetime(2027, 7, 1, tzinfo=UTC)) == Period(
        datetime(2027, 7, 1, tzinfo=UTC), datetime(2028, 7, 1, tzinfo=UTC)
    )
    assert made_at(OLD.ends - timedelta(milliseconds=1)) < bound(OLD.ends) <= made_at(OLD.ends)
    assert retention.moment_of(bound(OLD.ends)) == OLD.ends


def test_what_is_kept_for_how_long_follows_cycle_settings_and_topics() -> None:
    """No redelivery outlives its inbox row: a topic rebuilt on the outbox's last day is read until its retention ends."""
    keeping = Keeping.of(CYCLE, outbox_days=730)
    assert keeping.begins == CYCLE.windows.pre_registration.opens
    assert keeping.ends == CYCLE.windows.results.closes
    longest = max(topic.retention for topic in TOPICS.values())
    assert keeping.outbox == 730 * DAY
    assert keeping.inbox == keeping.outbox + longest + 30 * DAY
    assert ServiceSettings.model_fields["outbox_days"].default == 730


@pytest.mark.parametrize("table", retention.LOGS)
def test_a_period_waits_for_the_cycle_that_was_on_when_it_ended(table: Log) -> None:
    ends, days = OLD.ends, {"outbox": 365 * DAY, "inbox": 800 * DAY}[table]

    def until(begins: datetime, closes: datetime) -> datetime:
        return Keeping(begins, closes, 365 * DAY, 800 * DAY).until(table, ends)

    assert until(OLD.begins, ends - DAY) == ends + days, "the period's own end counts at least"
    assert until(OLD.begins, ends + 90 * DAY) == ends + 90 * DAY + days, "the cycle went on beyond it"
    assert until(ends - MICROSECOND, ends + 90 * DAY) == ends + 90 * DAY + days
    assert until(ends, ends + 90 * DAY) == ends + days, "a cycle that began later has nothing in it"


@pytest.mark.parametrize("table", retention.LOGS)
async def test_a_period_is_dropped_at_its_moment_and_not_a_microsecond_before(log: Kept, table: Log) -> None:
    for at in (OLD.begins, OLD.ends - timedelta(milliseconds=1), OLD.ends):
        await log.say(at)
        await log.claim(at)
    await log.publish_all()
    keeping, name = log.keeping(), f"{table}_2030_07"
    log.clock.at = keeping.until(table, OLD.ends) - MICROSECOND
    await log.retention().drop_old(table)
    assert name in await log.partitions(table)
    before = counted("kaowu_events_dropped_total", table=table)
    log.clock.at += MICROSECOND
    await log.retention().drop_old(table)
    assert name not in await log.partitions(table)
    assert await log.value(f"select count(*) from {table}") == 1, (
        "what came at the first moment after it stays"
    )
    assert counted("kaowu_events_dropped_total", table=table) == before + 2
    rows = await log.rows("select actor_kind, actor, action, at, detail from audit where subject = $1", name)
    assert [tuple(row) for row in rows] == [
        (
            "service",
            "job:drop-old-events",
            "drop-old-events",
            log.clock.at,
            {"events": 2, "ended": OLD.ends.isoformat()},
        )
    ]


@pytest.mark.parametrize("table", retention.LOGS)
@pytest.mark.parametrize("behind", ["machine", "cycle"])
async def test_what_is_past_must_be_past_on_both_clocks(log: Kept, table: Log, behind: str) -> None:
    """A rehearsal of a cycle in ten years must not drop what was written today; nor one of the past."""
    past = log.keeping().until(table, OLD.ends)
    log.clock.at = past + 3650 * DAY if behind == "machine" else past - MICROSECOND
    log.clock.real = past - MICROSECOND if behind == "machine" else past + 3650 * DAY
    await log.publish_all()
    await log.retention().drop_old(table)
    assert f"{table}_2030_07" in await log.partitions(table)


async def test_a_period_with_one_unpublished_event_stays(log: Kept) -> None:
    await log.say(OLD.begins)
    await log.say(OLD.begins)
    first, second = await log.rows("select id, xid::text as xid from outbox order by id")
    log.clock.at = log.keeping().until("outbox", OLD.ends)
    beyond = str(int(second.xid) + 1)
    for lower, upper, last_id, published in (
        (first.xid, None, 0, False),
        (second.xid, None, 0, False),
        (first.xid, second.xid, first.id, False),
        (first.xid, beyond, second.id - 1, False),
        (first.xid, beyond, second.id, True),
    ):
        await log.execute(
            "update relay_cursor set lower = $1::text::xid8, upper = $2::text::xid8, last_id = $3",
            lower,
            upper,
            last_id,
        )
        await log.retention().drop_old("outbox")
        assert ("outbox_2030_07" not in await log.partitions("outbox")) is published
        assert counted("kaowu_event_periods_overdue", table="outbox") == (0 if published else 1)


async def test_without_a_cursor_nothing_is_known_to_be_published(log: Kept) -> None:
    await log.execute("delete from relay_cursor")
    log.clock.at = log.keeping().until("outbox", OLD.ends)
    await log.retention().drop_old("outbox")
    assert "outbox_2030_07" in await log.partitions("outbox")


async def test_an_outbox_period_stays_while_an_event_of_one_of_its_keys_is_parked(log: Kept) -> None:
    key = uuid4()
    await log.say(OLD.begins, key)
    await log.publish_all()
    await log.park(key=str(key))
    log.clock.at = log.keeping().until("outbox", OLD.ends)
    await log.retention().drop_old("outbox")
    assert "outbox_2030_07" in await log.partitions("outbox")
    await log.execute("update parked set status = 'discarded', resolved_at = now(), note = 'n'")
    await log.park(key=str(uuid4()))  # somebody else's, with nothing in this period
    await log.retention().drop_old("outbox")
    assert "outbox_2030_07" not in await log.partitions("outbox")


@pytest.mark.parametrize(
    ("event_id", "held"),
    [
        (bound(OLD.begins), True),
        (UUID(int=bound(OLD.begins).int - 1), False),
        (UUID(int=bound(OLD.ends).int - 1), True),
        (bound(OLD.ends), False),
        (None, False),
    ],
)
async def test_an_inbox_period_stays_while_an_event_of_it_is_parked(
    log: Kept, event_id: UUID | None, held: bool
) -> None:
    await log.park(event_id=event_id)
    log.clock.at = log.keeping().until("inbox", OLD.ends)
    await log.retention().drop_old("inbox")
    assert ("inbox_2030_07" in await log.partitions("inbox")) is held


async def test_an_event_of_a_period_without_partition_waits_in_the_default_one(log: Kept) -> None:
    """Nothing is refused; when the period is made its events go there, and the relay and the inbox see no difference."""
    later = YOUNG.next
    key = uuid4()
    for number in range(1, 4):
        await log.say(later.begins + number * DAY, key, number)
    stray = await log.say(later.ends)
    taken = [await log.claim(later.begins + number * DAY) for number in range(1, 4)]
    seen = "select *, xid::text as x from outbox order by id"
    before = await log.rows(seen)
    assert await log.value("select count(*) from outbox_default") == 4
    for table in retention.LOGS:
        assert await log.retention().make(table, later)
    assert await log.rows(seen) == before
    assert await log.value("select count(*) from outbox_2032_07") == 3
    assert await log.value("select event_id from outbox_default") == stray
    async with log.database.unit_of_work() as uow:
        assert await inbox.claim(uow, "handler", taken) == set()
    with pytest.raises(asyncpg.UniqueViolationError):
        await log.say(later.begins + DAY, key, 3)


async def test_too_many_to_move_while_writers_wait_stay_where_they_are(
    log: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = YOUNG.next
    for _ in range(3):
        await log.claim(later.begins)
    monkeypatch.setattr(retention, "MOVED_AT_MOST", 2)
    assert not await log.retention().make("inbox", later)
    assert await log.retention().make("inbox", later.next), "the period after it is made all the same"
    await log.retention().drop_old("inbox")
    assert counted("kaowu_events_outside_periods", table="inbox") == 3
    monkeypatch.setattr(retention, "MOVED_AT_MOST", 3)
    assert await log.retention().make("inbox", later)


async def test_an_event_is_taken_in_once_on_either_side_of_a_border(log: Kept) -> None:
    border = [made_at(OLD.ends - timedelta(milliseconds=1)), made_at(OLD.ends)]
    async with log.database.unit_of_work() as uow:
        assert await inbox.claim(uow, "handler", border) == set(border)
    async with log.database.unit_of_work() as uow:
        assert await inbox.claim(uow, "handler", border) == set()
        assert await inbox.claim(uow, "another", border) == set(border)
    assert await log.value("select count(*) from inbox_2030_07") == 2
    assert await log.value("select count(*) from inbox_2031_07") == 2


async def test_a_turn_makes_the_next_period_and_two_processes_drop_once(log: Kept) -> None:
    await log.say(OLD.begins)
    await log.publish_all()
    log.clock.at = log.keeping().until("inbox", OLD.ends)
    others = [Database(log.login.url, clock=log.clock) for _ in range(3)]
    try:
        turns = [Retention(one, log.clock, log.keeping()).run() for one in others]
        await asyncio.gather(*turns, log.retention().run())
    finally:
        for one in others:
            await one.dispose()
    now = Period.of(log.clock.at)
    for table in retention.LOGS:
        there = await log.partitions(table)
        assert {f"{table}_{period.begins:%Y_%m}" for period in (now, now.next)} <= there
        assert f"{table}_2030_07" not in there
    subjects = [row.subject for row in await log.rows("select subject from audit order by subject")]
    assert subjects.count("outbox_2030_07") == subjects.count("inbox_2030_07") == 1


async def test_dropping_and_making_under_load_fails_no_writer(
    log: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that stays open is waited for a moment, then writers go on and the next turn tries again."""
    monkeypatch.setattr(retention, "_PAUSES", (0.02,))
    monkeypatch.setattr(retention, "_LOCK_TIMEOUT", "60ms")
    await log.say(OLD.begins)
    await log.publish_all()
    log.clock.at = log.keeping().until("inbox", OLD.ends)
    stop, written = asyncio.Event(), 0

    async def write() -> None:
        nonlocal written
        while not stop.is_set():
            async with log.database.unit_of_work() as uow:
                await inbox.claim(uow, "handler", [made_at(YOUNG.begins)])
                await outbox.add(uow, confirmed(uuid4()), sequence=1)
            written += 1

    waits = counted("kaowu_retention_lock_waits_total")
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(write())
        async with log.database.reading() as reader:
            for table in retention.LOGS:
                await reader.sql(f"select count(*) from {table}")
            await asyncio.wait_for(log.retention().run(), 30)
            assert counted("kaowu_retention_lock_waits_total") >= waits + 3, (
                "nobody was waited for: not reached"
            )
            for table in retention.LOGS:
                assert f"{table}_2030_07" in await log.partitions(table)
                assert counted("kaowu_event_periods_overdue", table=table) >= 3
            so_far = written
        await asyncio.wait_for(log.retention().run(), 30)
        stop.set()
    assert written > so_far > 0
    for table in retention.LOGS:
        assert f"{table}_2030_07" not in await log.partitions(table)
    assert await log.value("select count(*) from inbox where handler = 'handler'") == written
    # The one event that was dropped, and those that were said since.
    assert await log.value("select count(*) from outbox") == written


async def test_what_appears_between_the_look_and_the_lock_holds_the_period(
    log: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question is asked again under the lock: an answer from before it is worth nothing."""
    await log.say(OLD.begins)
    await log.publish_all()
    log.clock.at = log.keeping().until("outbox", OLD.ends)
    asked, keep = 0, Retention._held

    async def held(self: Retention, uow: Any, table: Log, partition: Partition) -> bool:
        nonlocal asked
        answer = await keep(self, uow, table, partition)
        if partition.name == "outbox_2030_07":
            asked += 1
            if asked == 1:
                await log.say(OLD.begins)
        return answer

    monkeypatch.setattr(Retention, "_held", held)
    await log.retention().drop_old("outbox")
    assert asked == 2
    assert "outbox_2030_07" in await log.partitions("outbox")
    assert await log.rows("select 1 from audit where subject = 'outbox_2030_07'") == []
