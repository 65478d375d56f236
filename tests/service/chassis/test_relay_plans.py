"""What the relay asks stays cheap with many partitions and a long log: by index only, and no dearer for a longer log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from deploy.local.databases import DatabaseLogin
from services.chassis import relay
from services.chassis.clock import SystemClock
from services.chassis.db import Database
from services.chassis.retention import Keeping, Period, Retention, bound
from tests.support.postgres import TestDatabases
from tests.support.streams import make_tables

PERIODS = 24
ROWS = 4_000  # in each of them
LOG_PAGES = 4_000  # of 8 kB, at least
QUESTION_PAGES = 400  # at most: a thousand rows, and a walk down each partition's index

FILL = """
insert into outbox (event_id, topic, key, type, sequence, occurred_at, payload, correlation_id)
select $1, 't', 'key-' || n % 1000, 'y', $2 + n / 1000, now(), repeat('x', 220), 'c' from generate_series(0, $3 - 1) n
"""


@pytest.fixture(scope="module")
async def long_log(databases: TestDatabases) -> AsyncIterator[Any]:
    """The relay's own kind of connection to a log of 24 periods, each filled by one transaction."""
    login: DatabaseLogin = await databases.blank("long_log")
    await make_tables(login)
    database = Database(login.url, clock=SystemClock())
    moment = datetime(2028, 1, 1, tzinfo=UTC)
    retention = Retention(database, SystemClock(), Keeping(moment, moment, timedelta(0), timedelta(0)))
    period = Period.of(moment)
    for number in range(PERIODS):
        assert await retention.make("outbox", period)
        async with database.unit_of_work() as uow:
            await uow.changed(FILL, bound(period.begins), 1 + number * ROWS, ROWS)
        period = period.next
    await database.dispose()
    connection = await asyncpg.connect(login.dsn)
    await connection.execute(relay._PLANNER)
    yield connection
    await connection.close()
    await databases.drop(login)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


async def looked_at(connection: Any, statement: str, *args: object) -> tuple[int, list[dict[str, Any]]]:
    """The pages that the question touched, and the scans it was answered by."""
    answer = await connection.fetchval(
        f"explain (analyze, buffers, timing off, format json) {statement}", *args
    )
    plan = json.loads(answer)[0]["Plan"]
    scans = [node for node in nodes(plan) if str(node.get("Relation Name", "")).startswith("outbox")]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], scans


async def where(connection: Any, period: int) -> tuple[str, int]:
    """The transaction that filled a period, and its first id."""
    row = await connection.fetchrow(
        "select xid::text as xid, id from outbox where id = $1", 1 + period * ROWS
    )
    return row["xid"], row["id"]


async def test_no_question_reads_the_log(long_log: Any) -> None:
    pages = await long_log.fetchval(
        "select sum(pg_relation_size(inhrelid)) / 8192 from pg_inherits where inhparent = 'outbox'::regclass"
    )
    assert pages > LOG_PAGES, "the log is too short to tell"
    last, first_id = await where(long_log, PERIODS - 1)
    upper = str(int(last) + 1)
    keys = [f"key-{number}" for number in range(1000)]
    questions: dict[str, tuple[str, tuple[object, ...]]] = {
        "nothing new": (relay._NEXT_RANGE, (upper,)),
        "a new range": (relay._NEXT_RANGE, (last,)),
        "a page in the middle": (relay._PAGE_OF_RANGE, ((await where(long_log, 11))[0], upper, 13 * ROWS)),
        "the last page": (relay._PAGE_OF_RANGE, (last, upper, first_id + ROWS - 1000)),
        "nothing beyond": (relay._EARLIER_BEYOND, (upper, first_id, keys)),
        "a transaction beyond": (relay._EARLIER_BEYOND, (last, first_id + 1000, keys)),
    }
    for what, (statement, args) in questions.items():
        touched, scans = await looked_at(long_log, statement, *args)
        assert touched < QUESTION_PAGES, f"{what}: {touched} pages of {pages}"
        assert len(scans) >= PERIODS
        assert {node["Node Type"] for node in scans} <= {"Index Scan", "Index Only Scan"}, what
        assert all("Index Cond" in node for node in scans), f"{what}: an index from end to end"
        removed = sum(node.get("Rows Removed by Filter", 0) for node in scans)
        assert removed <= ROWS, f"{what}: {removed} rows looked at in vain"


async def test_a_plan_that_was_made_before_the_log_was_long_stays_good(long_log: Any) -> None:
    """The relay prepares once and lives for weeks: its generic plans may not read a partition from end to end either."""
    await long_log.execute("set plan_cache_mode = force_generic_plan")
    try:
        last, first_id = await where(long_log, PERIODS - 1)
        upper = str(int(last) + 1)
        for statement, args in (
            (relay._NEXT_RANGE, (last,)),
            (relay._PAGE_OF_RANGE, (last, upper, first_id + ROWS - 1000)),
            (relay._EARLIER_BEYOND, (last, first_id + 1000, ["key-1", "key-2"])),
        ):
            touched, scans = await looked_at(long_log, statement, *args)
            assert touched < QUESTION_PAGES
            assert all("Index Cond" in node for node in scans)
    finally:
        await long_log.execute("reset plan_cache_mode")
