"""Row 30 of the fault matrix: no room left where the database writes, then where the broker does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from deploy.local.kafka import LocalKafka
from deploy.local.postgres import UNSYNCED, EmbeddedPostgres
from services.chassis.wire import Wires
from tests.faults.disks import Disk, small_disk
from tests.faults.harness import Battle, fight

pytestmark = pytest.mark.faults

DATABASE_MIB, BROKER_MIB = 224, 96


@asynccontextmanager
async def database_on(disk: Disk) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(disk.path / "postgres", settings={**UNSYNCED, "max_wal_size": "64MB"})
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def broker_on(disk: Disk) -> AsyncIterator[LocalKafka]:
    broker = LocalKafka(disk.path / "kafka")
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def read(battle: Battle) -> int:
    """What the office reads of the money, as a status."""
    payment = battle.system.services["payment"]
    headers = {"authorization": f"Bearer {battle.system.mint(['office'], 'office')}"}
    async with Wires(connections=1, patience=10.0, limit=1 << 20) as wires:
        return (await wires.request("GET", f"{payment.public_url}/office/money", headers)).status


async def test_a_full_disk_stops_writers_and_neither_readers_nor_what_was_written(tmp_path: Path) -> None:
    async def no_room_for_the_database(battle: Battle) -> None:
        registration = battle.system.services["registration"]
        await battle.until(0.03)
        # Somebody needs a page that is not there yet, sooner or later: people go on until then.
        async with battle.heedless() as further:
            await asyncio.to_thread(database_disk.fill)
            await battle.eventually(
                lambda: "DiskFullError" in registration.process.log.read_text(),
                "a write refused for want of room",
                within=120,
            )
            await further(0)
        assert await read(battle) == 200
        battle.reached["reads went on while writes were refused"] += 1
        # Now the log of the database itself finds no room for its next file: the server goes down.
        await asyncio.to_thread(database_disk.fill)
        with_log = database.process.log
        try:
            async with database.connection() as connection:
                await connection.execute("select pg_switch_wal()")
                await connection.execute("create table more (n int)")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            battle.reached["the administrator was refused too"] += 1
        await battle.eventually(lambda: "PANIC" in with_log.read_text(), "the database going down")
        battle.reached["the database went down for want of room"] += 1
        database_disk.free()
        await database.stop()
        await database.start()
        steps = battle.driver.timing.steps
        await battle.eventually(lambda: battle.driver.timing.steps > steps, "people served again")
        battle.reached["people were served when there was room again"] += 1

    async def no_room_for_the_broker(battle: Battle) -> None:
        await battle.until(0.2)
        async with battle.heedless() as further:
            await asyncio.to_thread(broker_disk.fill)
            log = broker.process.log
            await battle.eventually(
                lambda: not broker.process.alive or "No space left" in log.read_text(),
                "the broker out of room",
            )
            battle.reached["the broker had no room left"] += 1

            async def waiting() -> bool:
                ready = [await battle.ready(one) for one in battle.system.services.values()]
                return any(int(one["outbox_unpublished"]) for one in ready)

            await battle.eventually(waiting, "events that wait for room", within=120)
            battle.reached["events waited for room"] += 1
            await further(0)
        await broker.kill()
        broker_disk.free()
        await broker.start()

    async def breaks(battle: Battle) -> None:
        await no_room_for_the_database(battle)
        await no_room_for_the_broker(battle)

    async with (
        small_disk(tmp_path / "database", DATABASE_MIB) as database_disk,
        small_disk(tmp_path / "broker", BROKER_MIB) as broker_disk,
        database_on(database_disk) as database,
        broker_on(broker_disk) as broker,
    ):
        given = {"DATABASE_URL": database.administrator.dsn, "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap}
        fought = await fight(tmp_path, breaks, people=25, given=given)
    fought.holds({30: "reads went on while writes were refused"})
    assert fought.reached["the database went down for want of room"]
    assert fought.reached["the broker had no room left"]
    assert fought.reached["events waited for room"]
