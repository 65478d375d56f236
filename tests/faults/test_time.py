"""Clocks that are wrong when the window closes, and a host that sleeps through it: rows 34 to 37 and 39 of the fault matrix.

Rows 34 to 36 are real time: a notice whose window closes in seconds, and Debian's libfaketime under the service or under
PostgreSQL. The broker keeps the true time: it is the third clock.
"""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import orjson
import pytest

from services.chassis.db import driver_url
from tests.faults.harness import Battle, NotReached, fight
from tests.faults.owing import Owing, owing
from tests.support.faketime import NOTICED_WITHIN, WrongClock

pytestmark = pytest.mark.faults

HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)
TICK = timedelta(microseconds=1)
ZONES = ("UTC", "America/St_Johns", "Asia/Kathmandu", "Pacific/Kiritimati")
PEOPLE = 300
MANY = 20_000


async def _reaches(moment: datetime) -> None:
    """Until the machine's own clock is there."""
    await asyncio.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))


async def _database_steps(ground: Owing, clock: WrongClock, offset: timedelta) -> None:
    """The database's clock is moved, and everybody who asks it sees that."""
    clock.step(offset)

    async def seen() -> bool:
        (row,) = await ground.rows("select clock_timestamp() as now")
        now: datetime = row["now"]
        return abs(now - datetime.now(UTC) - offset) < timedelta(seconds=5)

    await ground.eventually(seen, f"a database clock that is off by {offset}", within=20)
    # Sessions that were open before look again within this time.
    await asyncio.sleep(2 * NOTICED_WITHIN)


async def _stopped(ground: Owing, why: str) -> None:
    """The guard refuses, in sight of ops; and nobody is forfeited."""
    before = (await ground.standing())["expired"]
    await ground.grows(
        "kaowu_payment_close_stopped", 0, f"the guard stopped the close: {why}", ground.payment
    )
    assert await ground.metric("kaowu_clock_disagreement_seconds", ground.payment) > 5
    assert (await ground.standing())["expired"] == before, "somebody was forfeited while clocks disagreed"


async def _first_proof_by_the_database(ground: Owing, closes_at: datetime) -> datetime:
    """Proof ids are made by the database and carry its time."""
    (row,) = await ground.rows(
        "select min(uuid_extract_timestamp(proof_id)) as at from proofs where closes_at = $1", closes_at
    )
    at: datetime = row["at"]
    return at


@pytest.mark.faults(needs="libfaketime")
async def test_a_service_whose_clock_is_wrong_forfeits_nobody_early_and_nobody_is_missed(
    tmp_path: Path,
) -> None:
    """Row 34: an hour fast, an hour slow, and three seconds fast, which the guard lets pass."""
    clock = WrongClock(tmp_path / "offset")
    async with owing(tmp_path, clock="system") as ground:
        system = ground.system
        paying, *_ = await ground.owe(PEOPLE)
        order = await ground.order(paying)
        assert order.status == 201, order.body
        closes_at = await ground.closes_in(await ground.room_for(restarts=3))

        clock.step(HOUR)
        await system.restart("payment", clock.environment)
        await _stopped(ground, "an hour fast")
        # Paid in time; the notice is signed an hour ago by this clock and refused, so it must be heard of by asking.
        await ground.pay(_number(order.body))
        await ground.grows("kaowu_payment_callbacks", 0, "a notice was refused as stale", ground.payment)
        assert await ground.standing() == {"awaiting": PEOPLE}

        clock.step(timedelta(seconds=3))
        await system.restart("payment", clock.environment)
        if datetime.now(UTC) > closes_at - timedelta(seconds=5):
            raise NotReached("the window closed before the clock that is three seconds fast")
        await ground.at_rest()
        ground.reached["three seconds fast"] += 1
        first = await _first_proof_by_the_database(ground, closes_at)
        assert first >= closes_at, f"forfeited {closes_at - first} before the close by the database's clock"
        assert await ground.standing() == {"expired": PEOPLE - 1, "paid": 1}

        room = await ground.room_for(restarts=1)
        await ground.owe(PEOPLE)
        closes_at = await ground.closes_in(room)
        clock.step(-HOUR)
        await system.restart("payment", clock.environment)
        await _reaches(closes_at + timedelta(seconds=3))
        assert (await ground.standing())["awaiting"] == PEOPLE
        ground.reached["the close passed unseen by a clock an hour slow"] += 1
        clock.step(timedelta(0))
        await system.restart("payment")
        await ground.at_rest()
        assert await ground.standing() == {"expired": 2 * PEOPLE - 1, "paid": 1}
        # Of the reminders that an hour-slow service sent, the dates are an hour early: no rule reads them.
        fought = await ground.fought(dated=False)
    fought.holds({34: "the guard stopped the close: an hour fast"})
    assert fought.reached["a notice was refused as stale"]
    assert fought.reached["the close passed unseen by a clock an hour slow"]


@pytest.mark.faults(needs="libfaketime")
async def test_a_database_whose_clock_jumps_a_day_ahead_forfeits_nobody(tmp_path: Path) -> None:
    """Row 36: alone, and together with the service, so that two of three are wrong; the close waits and is complete."""
    clock = WrongClock(tmp_path / "offset")
    async with owing(tmp_path, clock="system") as ground:
        system = ground.system
        await system.restart_database(clock.environment)
        await ground.owe(PEOPLE)
        closes_at = await ground.closes_in(await ground.room_for(restarts=3))
        await _database_steps(ground, clock, DAY)
        await system.restart("payment", clock.environment)
        await _stopped(ground, "service and database a day ahead of the broker")
        if datetime.now(UTC) > closes_at:
            raise NotReached("the window closed before two clocks were wrong")

        await system.restart("payment")
        assert await ground.metric("kaowu_payment_close_stopped", ground.payment) == 0
        await _reaches(closes_at)
        await _stopped(ground, "the database a day ahead")
        assert await ground.standing() == {"awaiting": PEOPLE}

        await _database_steps(ground, clock, timedelta(0))
        await system.restart("payment")
        await ground.at_rest()
        assert await ground.standing() == {"expired": PEOPLE}
        fought = await ground.fought()
    fought.holds({36: "the guard stopped the close: the database a day ahead"})
    assert fought.reached["the guard stopped the close: service and database a day ahead of the broker"]


@pytest.mark.faults(needs="libfaketime")
async def test_a_database_whose_clock_steps_back_in_the_sweep_reopens_nothing_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    """Row 35: five minutes back with part of the people forfeited; the sweep goes on, dies, and is not begun again before
    the clocks agree; meanwhile nobody may order."""
    clock = WrongClock(tmp_path / "offset")
    async with owing(tmp_path, clock="system", extra={"PAYMENT_SWEEP_CHUNK": "4"}) as ground:
        system = ground.system
        await system.restart_database(clock.environment)
        people = await ground.owe(MANY)
        await ground.closes_in(3)
        await system.restart("payment")

        async def begun() -> bool:
            return (await ground.standing())["expired"] > 0

        await ground.eventually(begun, "the sweep")
        system.suspend("payment")  # so that the step comes in its middle, however fast it is
        try:
            await _database_steps(ground, clock, -5 * MINUTE)
            before = (await ground.standing())["expired"]
        finally:
            system.resume("payment")

        async def goes_on() -> bool:
            return (await ground.standing())["expired"] > before

        await ground.eventually(goes_on, "the sweep going on after the step")
        await ground.payment.process.kill()
        if (await ground.standing())["awaiting"] == 0:
            raise NotReached("the sweep was over before it died")
        ground.reached["the clock stepped back in the middle of the sweep"] += 1
        await system.restart("payment")
        await _stopped(ground, "the database five minutes back")
        rows = await ground.rows("select registration_id from obligations where status = 'awaiting' limit 1")
        refused = await ground.order(rows[0]["registration_id"])
        assert (refused.status, _code(refused.body)) == (409, "window-closed"), refused.body

        await _database_steps(ground, clock, timedelta(0))
        own = WrongClock(tmp_path / "own-offset")
        own.step(-5 * MINUTE)
        await system.restart("payment", own.environment)
        refused = await ground.order(rows[0]["registration_id"])
        assert (refused.status, _code(refused.body)) == (409, "window-closed"), refused.body
        ground.reached["the service's own clock was set back as well"] += 1
        await system.restart("payment")
        await ground.at_rest()
        assert await ground.standing() == {"expired": len(people)}
        fought = await ground.fought()
    fought.holds({35: "the clock stepped back in the middle of the sweep"})
    assert fought.reached["the guard stopped the close: the database five minutes back"]
    assert fought.reached["the service's own clock was set back as well"]


async def test_a_host_that_sleeps_through_the_close_closes_late_and_completely(tmp_path: Path) -> None:
    """Row 37: every process is stopped in the last hours, wakes eight hours after the close and makes up for it."""

    async def breaks(battle: Battle) -> None:
        system, payment = battle.system, battle.system.services["payment"]
        closes_at = system.cycle.windows.payment.closes
        await battle.eventually(
            lambda: system.clock.now() >= closes_at - 6 * HOUR, "the last hours of the window", within=240
        )
        asleep = list(system.processes().values())
        battle.streams.faulted = True
        for process in asleep:
            process.signal(signal.SIGSTOP)
        try:
            if system.clock.now() >= closes_at:
                raise NotReached("the window had closed before anybody slept")
            await asyncio.sleep(3)
            assert system.clock_control is not None
            system.clock_control.jump(closes_at + 8 * HOUR)
            battle.reached["slept through the close"] += len(asleep)
        finally:
            for process in asleep:
                process.signal(signal.SIGCONT)
        battle.streams.faulted = False
        await battle.grows("kaowu_payment_close_seconds_count", 0, "closed after waking", payment)
        connection = await asyncpg.connect(driver_url(system.surroundings.databases["payment"]))
        try:
            (closing,) = await connection.fetch("select begun_at, closed_at from closings")
        finally:
            await connection.close()
        assert closes_at + 8 * HOUR <= closing["begun_at"] <= closing["closed_at"]

    fought = await fight(tmp_path, breaks, people=40)
    fought.holds({37: "slept through the close"})
    assert fought.reached["slept through the close"] == 7, "PostgreSQL, Kafka, simulators and four services"
    assert fought.reached["closed after waking"]


async def test_a_window_ends_at_its_moment_wherever_the_machines_stand(tmp_path: Path) -> None:
    """Row 39. Processes in four zones: to the microsecond they take the last order, refuse the first late one, and close."""
    async with owing(tmp_path, extra={"TZ": ZONES[0]}) as ground:
        system = ground.system
        assert system.clock_control is not None
        people = await ground.owe(2 * len(ZONES))
        names = [await system.add_replica("payment", {"TZ": zone}) for zone in ZONES[1:]]
        doors = [ground.payment, *(system.replicas[name] for name in names)]
        for zone, door in zip(ZONES, doors, strict=True):
            environment = Path(f"/proc/{door.process.pid}/environ").read_bytes().split(b"\0")
            ground.reached["zones"] += f"TZ={zone}".encode() in environment
        last_order_at = system.cycle.windows.payment.last_order_at

        system.clock_control.jump(last_order_at - TICK)
        orders = []
        for one, door in zip(people, doors, strict=False):
            answer = await ground.order(one, door)
            assert answer.status == 201, answer.body
            orders.append(_number(answer.body))
        system.clock_control.jump(last_order_at)
        for one, door in zip(people[len(doors) :], doors, strict=True):
            answer = await ground.order(one, door)
            assert (answer.status, _code(answer.body)) == (409, "too-late-to-order")

        system.clock_control.jump(ground.closes_at - TICK)
        await ground.pay(orders[0])
        await asyncio.sleep(2)
        standing = await ground.standing()
        assert standing == {"awaiting": len(people) - 1, "paid": 1}, "decided a microsecond before the close"
        system.clock_control.jump(ground.closes_at)
        for door in doors:
            late = await ground.order(people[1], door)
            assert (late.status, _code(late.body)) == (409, "window-closed")
        await ground.at_rest()
        assert await ground.standing() == {"expired": len(people) - 1, "paid": 1}
        fought = await ground.fought()
    fought.holds({39: "zones"})
    assert fought.reached["zones"] == len(ZONES)


def _number(body: bytes) -> str:
    return str(orjson.loads(body)["order_no"])


def _code(body: bytes) -> str:
    return str(orjson.loads(body)["code"])
