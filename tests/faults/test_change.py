"""A new version comes while people are in the middle of the cycle: rows 56 and 57 of the fault matrix."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from deploy.local.environment import ROOT, SERVICES
from deploy.rehearsal.invariants import reading
from services.chassis.db import driver_url
from tests.faults.harness import Battle, KeyedDoors, NotReached, fight
from tests.support.versions import checkout, version_after, version_before

pytestmark = pytest.mark.faults

WAITING = "migration-waits-for-a-lock"


@asynccontextmanager
async def _connected(battle: Battle, service: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(driver_url(battle.system.surroundings.databases[service]))
    try:
        yield connection
    finally:
        await connection.close()


async def _migrate(
    battle: Battle, service: str, root: Path, table: str, meanwhile: Callable[[], Awaitable[None]]
) -> None:
    """`python -m services.<name> migrate` while somebody reads the table and does not end: it waits, lets others pass between,
    and comes through once the reader has ended."""
    async with _connected(battle, service) as reader, _connected(battle, service) as looking:
        reading = reader.transaction()
        await reading.start()
        await reader.fetchval(f"select count(*) from {table}")
        migration = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"services.{service}", "migrate"),
            cwd=root,
            env=battle.system.surroundings.of(service),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:

            async def waits() -> bool:
                found = await looking.fetchval(
                    "select count(*) from pg_locks where relation = $1::text::regclass and not granted "
                    "and mode = 'AccessExclusiveLock'",
                    table,
                )
                return int(found) > 0

            async def waits_no_more() -> bool:
                return not await waits()

            await battle.eventually(waits, f"the migration of {service} waiting for a lock on {table}")
            await battle.eventually(waits_no_more, "the migration giving up for a while", within=10)
            await meanwhile()
            await battle.eventually(waits, f"the migration of {service} waiting again")
        finally:
            await reading.rollback()
            said, _ = await asyncio.wait_for(migration.communicate(), 120)
    assert migration.returncode == 0, said.decode()[-2000:]
    battle.reached[f"the migration of {service} waited for a lock"] += said.decode().count(WAITING)


async def _bring_to_this_version(battle: Battle, service: str) -> None:
    """By one revision, while the version before goes on."""
    async with _connected(battle, service) as connection:
        revision = await connection.fetchval("select version_num from alembic_version")
        migration = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"services.{service}", "migrate"),
            cwd=ROOT,
            env=battle.system.surroundings.of(service),
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await migration.wait() == 0
        migrated = await connection.fetchval("select version_num from alembic_version")
    assert int(migrated) == int(revision) + 1, f"{service}: {revision} is not the version before {migrated}"


_PROVEN = """
    select exists (select from closings where closed_at is not null)
       and not exists (select from obligations where status in ('awaiting', 'held'))
       and (select count(*) from proofs) = (select coalesce(sum(proofs), 0) from closings)
           + (select coalesce(sum(proofs), 0) from later_roots)
"""


@pytest.mark.faults(needs="the history of git")
async def test_a_new_version_is_rolled_out_beside_the_one_before_in_the_middle_of_the_cycle(
    tmp_path: Path,
) -> None:
    """Row 56. Everything begins in version n-1, is migrated under it, and serves in both versions side by side through the
    windows; half of the services are then n alone, the others close in both."""
    before = {name: checkout(version_before(name), tmp_path / "before") for name in SERVICES}

    async def breaks(battle: Battle) -> None:
        system = battle.system
        # Slowly, so that most is still to be done when both versions are there, however long they take to start.
        KeyedDoors.pause = 1.0
        await battle.until(0.03)
        await asyncio.gather(*(_bring_to_this_version(battle, name) for name in SERVICES))
        async with battle.doors_closed():
            beside = {name: system.replicas[await system.add_replica(name)] for name in SERVICES}
            KeyedDoors.beside = {
                system.services[name].public_url: beside[name].public_url for name in SERVICES
            }
        KeyedDoors.pause = 0.0
        await battle.until(0.9)
        for name, new in beside.items():
            old = system.services[name]
            # Carriers alone come to notification's door, and they know one address: what it does is to send.
            asked = "kaowu_message_tries" if name == "notification" else "kaowu_http_requests"
            for counter in (asked, "kaowu_events_handled"):
                for version, process in (("n-1", old), ("n", new)):
                    battle.reached[f"{name} {version} {counter}"] += await battle.metric(counter, process) > 0
        async with battle.doors_closed():
            KeyedDoors.beside = {}
            for name in ("registration", "confirmation"):
                await system.roll_out(name)
        battle.reached["rolled out"] += 1

        async def everybody_is_proven() -> bool:
            """What n-1 forfeits after its close was published is put under a root by n, when its own turn comes (30 s), and the
            root is on the topic."""
            async with _connected(battle, "payment") as connection:
                proven = await connection.fetchval(_PROVEN)
                return bool(proven) and not await connection.fetchval(reading._UNPUBLISHED)

        await battle.eventually(everybody_is_proven, "a published root over each forfeiture", within=300)

    fought = await fight(tmp_path, breaks, people=60, code=before)
    fought.holds({56: "rolled out"})
    fought.as_the_rules_say()
    both = [what for what in fought.reached if what.split()[1:2] in (["n"], ["n-1"])]
    assert len(both) == 16, both
    silent = [what for what in both if not fought.reached[what]]
    assert not silent, f"in one of the versions nobody worked: {silent}"


async def test_a_migration_that_needs_the_table_people_pay_by_lets_them_pay(tmp_path: Path) -> None:
    """Row 57. Version n+1 adds a column; a reader who does not end makes it wait. Version n serves on, and starts again on
    what n+1 has made."""
    after, revision = version_after(
        "payment", tmp_path / "after", "alter table obligations add column if not exists remark text"
    )

    async def breaks(battle: Battle) -> None:
        system = battle.system
        payment = system.services["payment"]
        await battle.until(0.8)
        KeyedDoors.pause = 0.2

        async def people_pay() -> None:
            before = await battle.metric("kaowu_http_requests", payment)
            await battle.grows(
                "kaowu_http_requests", before + 3, "people were served while the migration waited", payment
            )

        await _migrate(battle, "payment", after, "obligations", people_pay)
        async with _connected(battle, "payment") as connection:
            assert await connection.fetchval("select version_num from alembic_version") == revision
            await connection.fetchval("select count(remark) from obligations")
        await system.restart("payment")
        if battle.driver.timing.steps >= battle.steps:
            raise NotReached("everybody was through before the version before was started again")
        battle.reached["version n works on the tables of n+1"] += 1

    fought = await fight(tmp_path, breaks, people=60)
    fought.holds({57: "the migration of payment waited for a lock"})
    fought.as_the_rules_say()
    assert fought.reached["people were served while the migration waited"]
    assert fought.reached["version n works on the tables of n+1"]
