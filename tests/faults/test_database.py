"""A database that dies, is locked, or has no connection left: rows 26, 28 and 31 of the fault matrix.

Sixty seconds of a lock are scaled to ten: what matters is that it is held several times as long as anybody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import psutil
import pytest

from deploy.local.system import Service
from deploy.rehearsal.doors import AT_ONCE
from services.chassis.db import driver_url
from services.chassis.wire import Answer, Wires
from tests.faults.harness import Battle, KeyedDoors, fight

pytestmark = pytest.mark.faults

HELD = 10.0  # real seconds
CLIENTS = 500


async def test_a_database_killed_again_and_again_keeps_what_was_committed_and_nothing_else(
    tmp_path: Path,
) -> None:
    """Row 26: under somebody's request the postmaster dies, or all of the server at once; it recovers from its log."""

    async def breaks(battle: Battle) -> None:
        system = battle.system
        asked_again = battle.driver._acts._doors.counts
        for number, share in enumerate((0.03, 0.2, 0.3, 0.75)):
            await battle.until(share)
            server = await frozen_under_a_request(battle)
            repeated = asked_again.repeated
            server[0].kill()
            for session in server[1:]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    # Without its postmaster a session finishes what it is at, and only then notices.
                    session.kill() if number % 2 else session.resume()
            await asyncio.sleep(0.2)
            await system.kill_database()
            battle.reached["the database was killed"] += 1
            await battle.eventually(lambda: asked_again.repeated > repeated, "somebody who must ask again")  # noqa: B023
            battle.reached["a request met a dead database"] += 1

    fought = await fight(tmp_path, breaks, people=25)
    fought.holds({26: "a request met a dead database"})
    fought.as_the_rules_say()
    assert fought.reached["a request met a dead database"] == 4


def said(service: Service) -> list[dict[str, Any]]:
    """What it wrote to its log; a line that is just being written, or is none of ours, is left out."""
    found: list[dict[str, Any]] = []
    for line in service.process.log.read_text().splitlines():
        with contextlib.suppress(orjson.JSONDecodeError):
            found.append(orjson.loads(line))
    return found


async def frozen_under_a_request(battle: Battle) -> list[psutil.Process]:
    """The server, which stands still while a service waits for it on behalf of somebody of the crowd. Its postmaster first.

    Every process of it leads a group of its own, so they are stopped one by one."""
    postmaster = psutil.Process(battle.system.processes()["postgres"].pid)
    slots = [slot for service, slot in battle.driver._slots.items() if service != "gateway"]

    def asked() -> bool:
        return any(slot._value < AT_ONCE for slot in slots)

    async with asyncio.timeout(120):
        while True:
            while not asked():
                await asyncio.sleep(0.001)
            server = [postmaster, *postmaster.children()]
            for process in server:
                with contextlib.suppress(psutil.NoSuchProcess):  # a session that has just ended
                    process.suspend()
            await asyncio.sleep(0.2)
            if asked():
                return server
            for process in server:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()


@asynccontextmanager
async def transaction(battle: Battle, service: str) -> AsyncIterator[Any]:
    """Somebody else's, in a service's database; ended at the latest after the block."""
    connection = await asyncpg.connect(driver_url(battle.system.surroundings.databases[service]))
    try:
        begun = connection.transaction()
        await begun.start()
        yield connection
        await begun.rollback()
    finally:
        await connection.close()


async def burst(battle: Battle, count: int) -> list[Answer]:
    """So many clients at once who ask what they owe."""
    payment = battle.system.services["payment"]
    headers = {"authorization": f"Bearer {battle.system.mint(['office'], 'office')}"}
    async with Wires(connections=count, patience=60.0, limit=1 << 20) as wires:
        url = f"{payment.public_url}/office/payments?limit=1"
        return list(await asyncio.gather(*(wires.request("GET", url, headers) for _ in range(count))))


async def test_whoever_holds_a_lock_delays_only_those_who_need_it(tmp_path: Path) -> None:
    """Rows 28 and 31. Somebody holds one person's row: that payment waits, others go on, and the gateway comes again.
    Somebody alters the table: who waits for it takes all connections, and everybody is told soon to come again."""

    async def breaks(battle: Battle) -> None:
        system = battle.system
        payment = system.services["payment"]
        # Few connections, so that those who wait for the lock take them all.
        await system.restart("payment", {"PAYMENT_DATABASE_POOL_SIZE": "5"})
        await battle.until(0.7)

        async def paid() -> float:
            return await battle.metric("kaowu_payment_paid", payment)

        def notices_refused() -> int:
            asked = [line for line in said(payment) if line.get("event") == "request"]
            return sum(line["route"] == "/gateway/wechat/notify" and line["status"] == 503 for line in asked)

        # An open transaction that has written, or locked, also holds back what the relay may publish.
        async with battle.heedless() as further, transaction(battle, "payment") as somebody:
            found: list[Any] = []
            KeyedDoors.pause = 0.5  # so that there is a moment between an order and its payment

            async def ordered() -> bool:
                found[:] = await somebody.fetch(
                    "select o.registration_id from obligations o join orders r using (registration_id) "
                    "where r.status = 'open' and r.channel = 'wechat' and o.status = 'awaiting' "
                    "and o.registration_id = any($1::uuid[]) limit 1 for update of o skip locked",
                    battle.about_to_pay(),
                )
                return bool(found)

            await battle.eventually(ordered, "somebody with an open order", within=120)
            KeyedDoors.pause = 0.0
            before = await paid()

            async def others() -> bool:
                return await paid() >= before + 2

            await battle.eventually(others, "payments of others", within=120)
            battle.reached["others paid while a row was locked"] += 1
            await battle.eventually(lambda: notices_refused() > 0, "the notice of the locked one", within=120)
            battle.reached["a gateway was told to come again"] += 1
            await further(0)
            await asyncio.sleep(HELD)
        async with transaction(battle, "payment") as somebody:

            async def come_again() -> bool:
                query = "select status from obligations where registration_id = $1"
                return str(await somebody.fetchval(query, found[0]["registration_id"])) == "paid"

            await battle.eventually(come_again, "the gateway coming again", within=120)
            await somebody.execute("alter table obligations add column remark text")
            answers = await burst(battle, CLIENTS)
            assert {one.status for one in answers} == {503}
            assert {one.headers["retry-after"] for one in answers} == {"5"}
            assert {one.headers["content-type"] for one in answers} == {"application/problem+json"}
            await asyncio.sleep(HELD)
        log = payment.process.log.read_text()
        battle.reached["a statement gave up waiting for a lock"] += log.count("LockNotAvailableError")
        battle.reached["a request found no free connection"] += sum(
            line.get("error") == "TimeoutError" for line in said(payment)
        )
        assert {one.status for one in await burst(battle, CLIENTS)} == {200}

    fought = await fight(tmp_path, breaks, people=25)
    fought.holds({28: "a statement gave up waiting for a lock", 31: "a request found no free connection"})
    fought.as_the_rules_say()
    assert fought.reached["others paid while a row was locked"]
    assert fought.reached["a gateway was told to come again"]
    assert fought.reached["a request found no free connection"] > CLIENTS / 2
