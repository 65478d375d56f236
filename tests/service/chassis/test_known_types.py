"""Types that PostgreSQL ships with are looked up once in a process, those of a migration on each connection."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from deploy.local.databases import DatabaseLogin
from services.chassis import known_types
from services.chassis.clock import SystemClock
from services.chassis.db import Database

NOW = datetime(2024, 2, 9, tzinfo=UTC)


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """What each look-up was for, in a process that knows nothing yet."""
    asked: list[set[int]] = []
    look_up = asyncpg.Connection._introspect_types

    async def noted(self: Any, oids: Any, timeout: Any) -> Any:
        asked.append(set(oids))
        return await look_up(self, oids, timeout)

    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", noted)
    monkeypatch.setattr(known_types, "_known", {})
    return asked


async def test_a_second_connection_asks_only_for_types_of_our_own(
    blank_database: DatabaseLogin, looked_up: list[set[int]]
) -> None:
    ids = [uuid4(), uuid4()]
    for number in range(3):
        database = Database(blank_database.url, clock=SystemClock(), pool_size=1)
        if number == 0:
            async with database.unit_of_work() as uow:
                await uow.sql("create type mood as enum ('calm')")
        async with database.reading() as uow:
            (row,) = await uow.sql(
                "select $1::uuid[] as ids, $2::timestamptz[] as moments, $3::int[] as numbers",
                ids,
                [NOW],
                [7],
            )
            assert (row.ids, row.moments, row.numbers) == (ids, [NOW], [7])
            (row,) = await uow.sql("select $1::mood[] as moods", ["calm"])
            assert row.moods == ["calm"]
        await database.dispose()
    shipped = [asked for asked in looked_up if max(asked) < 16384]
    ours = [asked for asked in looked_up if max(asked) >= 16384]
    assert len(shipped) == 1
    assert len(ours) == 3
