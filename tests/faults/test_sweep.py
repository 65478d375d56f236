"""The sweep is killed, and fired by many at once: rows 7 and 38 of the fault matrix."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from deploy.local.system import Service
from tests.faults.harness import KILLED, Battle, fight
from tests.faults.owing import Owing, owing

pytestmark = pytest.mark.faults

PEOPLE = 100_000
CHUNK = {"PAYMENT_SWEEP_CHUNK": "500"}
KILLS = 20
RIVALS = 5
RIVAL = ("tests.faults.rivals", "run")
FEW = 30_000
LATE = 120
SMALL = {"PAYMENT_SWEEP_CHUNK": "50"}


async def test_a_sweep_killed_twenty_times_forfeits_everybody_once(tmp_path: Path) -> None:
    """Row 7. In a chunk, after a chunk, or at any moment by SIGKILL; each life begins where the one before ended."""
    chance = random.Random(7)
    async with owing(tmp_path, extra=CHUNK) as ground:
        await ground.owe(PEOPLE)
        await ground.payment.process.kill()
        assert ground.system.clock_control is not None
        ground.system.clock_control.jump(ground.closes_at)
        forfeited = [0]
        for _ in range(KILLS):
            await _dies(ground, chance, forfeited[-1])
            standing = await ground.standing()
            assert standing["awaiting"] > 0, "the sweep was over before it was killed"
            forfeited.append(standing["expired"])
        assert len(set(forfeited)) > KILLS / 2, f"the sweep was hardly ever in its middle: {forfeited}"
        await ground.system.restart("payment", wait=False)
        await ground.at_rest()
        fought = await ground.fought()
        assert await ground.standing() == {"expired": PEOPLE}
    fought.holds({7: "died with a chunk not committed"})
    assert fought.reached["died with a chunk committed"]
    assert fought.reached["killed at some moment of the sweep"]
    assert sum(fought.reached.values()) == KILLS


async def _dies(ground: Owing, chance: random.Random, forfeited: int) -> None:
    system, process = ground.system, ground.payment.process
    way = chance.choice(("sweep-in-chunk", "sweep-after-chunk", ""))
    if way:
        armed = {"KAOWU_CRASH_AT": f"{way}:{chance.randint(1, 8)}"}
        await system.restart("payment", armed, wait=False)
        await ground.eventually(lambda: not process.alive, f"payment reaching {way}")
        assert process.exit_code == KILLED, process.tail()
        committed = way == "sweep-after-chunk"
        ground.reached[f"died with a chunk {'committed' if committed else 'not committed'}"] += 1
        return
    await system.restart("payment", wait=False)

    async def goes_on() -> bool:
        return (await ground.standing())["expired"] > forfeited

    await ground.eventually(goes_on, "the sweep going on")
    await asyncio.sleep(chance.uniform(0, 0.1))
    await process.kill()
    ground.reached["killed at some moment of the sweep"] += 1


async def test_who_falls_after_the_close_was_published_is_under_one_later_root_whenever_the_service_dies(
    tmp_path: Path,
) -> None:
    """Row 7 for approvals whose news came late: their close is published already."""
    async with owing(tmp_path, extra=SMALL) as ground:
        system = ground.system
        await ground.owe(LATE)
        assert system.clock_control is not None
        system.clock_control.jump(ground.closes_at)
        await ground.at_rest()
        for point in ("sweep-in-chunk", "sweep-after-chunk", "close-in-later-proofs"):
            process = ground.payment.process
            await process.kill()
            await ground.owe(LATE)
            await system.restart("payment", {"KAOWU_CRASH_AT": f"{point}:1"}, wait=False)
            process = ground.payment.process
            await ground.eventually(lambda: not process.alive, f"payment reaching {point}")  # noqa: B023
            assert process.exit_code == KILLED, process.tail()
            ground.reached[f"died at {point}"] += 1
        await system.restart("payment", wait=False)

        async def all_published() -> bool:
            said = await ground.rows("select coalesce(sum(proofs), 0)::int as n from later_roots")
            return bool(said[0]["n"] == 3 * LATE)

        await ground.eventually(all_published, "a root over everybody who fell late", 180)
        await ground.at_rest()
        fought = await ground.fought()
        assert await ground.standing() == {"expired": 4 * LATE}
    fought.holds({7: "died at close-in-later-proofs"})
    assert fought.reached["died at sweep-in-chunk"]
    assert fought.reached["died at sweep-after-chunk"]


async def test_a_crowd_is_forfeited_by_a_service_that_dies_at_its_second(tmp_path: Path) -> None:
    """Row 7 among people who pay: one at a time, and the process dies with the second not committed."""

    async def breaks(battle: Battle) -> None:
        await battle.until(0.97)
        await battle.dies("payment", "sweep-in-chunk", 2)

    fought = await fight(tmp_path, breaks, people=60, extra={"PAYMENT_SWEEP_CHUNK": "1"})
    fought.holds({7: "payment died at sweep-in-chunk"})
    fought.as_the_rules_say()


async def test_five_services_fire_the_close_at_once_and_one_of_them_acts(tmp_path: Path) -> None:
    """Row 38, as it is built: one turn of a job in all processes of a service. When the one dies another goes on."""
    async with owing(tmp_path, extra=SMALL) as ground:
        system = ground.system
        await ground.owe(FEW)
        names = [await system.add_replica("payment") for _ in range(RIVALS - 1)]
        processes = [ground.payment, *(system.replicas[name] for name in names)]
        assert system.clock_control is not None
        system.clock_control.jump(ground.closes_at)

        async def others_turned_away() -> bool:
            # The one that acts may be turned away from another job.
            refused = [await ground.metric("kaowu_job_elsewhere", one) for one in processes]
            return sum(count > 0 for count in refused) >= RIVALS - 1

        acting: list[Service] = []

        async def somebody_acts() -> bool:
            acting[:] = [one for one in processes if await ground.metric("kaowu_payment_expired", one)]
            return bool(acting)

        await ground.eventually(others_turned_away, "the other processes being turned away")
        await ground.eventually(somebody_acts, "whoever was not turned away forfeiting somebody")
        assert len(acting) == 1, "two processes swept at once"
        assert (await ground.standing())["awaiting"] > 0, "the close was over before anybody was turned away"
        ground.reached["one acted and four were turned away"] += 1
        await acting[0].process.kill()
        await ground.at_rest()
        processes.remove(acting[0])
        ground.reached["another went on"] += any(
            [await ground.metric("kaowu_payment_expired", one) for one in processes]
        )
        fought = await ground.fought()
    fought.holds({38: "one acted and four were turned away", 7: "another went on"})


async def test_five_services_that_know_nothing_of_each_other_forfeit_everybody_once(tmp_path: Path) -> None:
    """Row 38 with the jobs' locks taken away, and the close twice in each process: ten sweeps at once."""
    async with owing(tmp_path, extra=SMALL) as ground:
        system = ground.system
        await ground.owe(FEW)
        await system.restart("payment", module=RIVAL)
        names = [await system.add_replica("payment", module=RIVAL) for _ in range(RIVALS - 1)]
        processes = [ground.payment, *(system.replicas[name] for name in names)]
        assert system.clock_control is not None
        system.clock_control.jump(ground.closes_at)
        await ground.at_rest()
        shares = [await ground.metric("kaowu_payment_expired", one) for one in processes]
        print("forfeited by each:", shares)
        assert sum(shares) == FEW
        if sum(share > 0 for share in shares) >= 3:
            ground.reached["several processes swept at once"] += 1
        fought = await ground.fought()
        assert await ground.standing() == {"expired": FEW}
    fought.holds({38: "several processes swept at once"})
