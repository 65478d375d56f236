"""Whoever is not confirmed in time lapses: at that moment, once, and nobody else."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from contracts import confirmation
from contracts.refusals import Code
from services.confirmation import handlers
from tests.service.confirmation.system import System, amended, payload, withdrawn
from tests.support.eventually import eventually
from tests.support.under_test import names
from tests.unit.confirmation.cases import moment


async def test_a_desk_lapses_whom_it_did_not_confirm_at_its_close_and_not_before(system: System) -> None:
    missed, confirmed, rejected, gone = await system.pre_registered(many=4)
    elsewhere = await system.registered("wutongqiao")
    system.at("2023-12-10 09:00")
    await system.confirm(confirmed)
    await system.at_desk("reject", rejected)
    await system.deliver(withdrawn(gone))
    before = len(await system.said())
    system.at("2023-12-14 11:59:59.999999")
    assert await system.run_job() == moment("2023-12-14 12:00")
    assert len(await system.said()) == before
    closes = system.at("2023-12-14 12:00")
    assert await system.run_job() == moment("2023-12-15")
    (lapsed,) = (await system.said())[before:]
    assert lapsed.key == str(missed)
    assert lapsed.envelope.time == closes
    assert lapsed.envelope.causation_id == "job:lapse_missed"
    assert isinstance(lapsed, confirmation.Lapsed)
    assert (lapsed.site_id, lapsed.closed_at) == ("shizhong", closes)
    states = {row["registration_id"]: row["state"] for row in await system.rows("select * from cases")}
    assert states == {
        missed: "lapsed",
        confirmed: "confirmed",
        rejected: "rejected",
        gone: "withdrawn",
        elsewhere: "pre-registered",
    }
    (decision,) = await system.rows("select * from decisions where kind = 'lapsed'")
    assert (decision["actor_kind"], decision["level"], decision["version"]) == ("clock", "desk", 1)
    # once
    await system.run_job()
    assert len(await system.said()) == before + 1
    assert (await system.confirm(missed)).json()["code"] == Code.WINDOW_CLOSED


async def test_every_close_that_was_missed_is_made_up_for_at_the_start(system: System) -> None:
    sites = ["shizhong", "ebian", "jingyan", "wutongqiao", "municipal"]
    ones = [await system.registered(site) for site in sites]
    closes = ["2023-12-14 12:00", "2023-12-13", "2023-12-14", "2023-12-16", "2023-12-16"]
    at = system.at("2024-01-05 03:00")
    assert await system.run_job() is None
    for one, close in zip(ones, closes, strict=True):
        (lapsed,) = await system.said(one)
        assert datetime.fromisoformat(payload(lapsed)["closed_at"]) == moment(close)
        assert lapsed.envelope.time == at


async def test_the_job_asks_to_be_called_at_every_close_in_turn(system: System) -> None:
    due = []
    following = await system.run_job()
    while following is not None:
        due.append(following)
        system.clock.jump(following)
        following = await system.run_job()
    assert due == [
        moment(text) for text in ("2023-12-13", "2023-12-14", "2023-12-14 12:00", "2023-12-15", "2023-12-16")
    ]


async def test_a_returned_candidate_lapses_when_the_named_time_ends(system: System) -> None:
    earlier, later, none = await system.pre_registered(many=3)
    system.at("2023-12-10 09:00")
    await system.run_job()
    system.job.awake.clear()
    assert (await system.at_desk("return", earlier, fix_until="2023-12-11T12:00:00+08:00")).status_code == 200
    assert system.job.awake.is_set(), "a new moment: the job must hear of it"
    await system.at_desk("return", later, fix_until="2023-12-20T12:00:00+08:00")
    await system.at_desk("return", none)
    assert await system.run_job() == moment("2023-12-11 12:00")
    system.at("2023-12-11 11:59:59.999999")
    await system.run_job()
    assert names(await system.said(earlier)) == ["returned"]
    system.at("2023-12-11 12:00")
    await system.run_job()
    assert names(await system.said(earlier)) == ["returned", "lapsed"]
    system.at("2023-12-14 12:00")
    await system.run_job()
    assert names(await system.said(none)) == ["returned", "lapsed"]
    assert names(await system.said(later)) == ["returned"]
    system.at("2023-12-20 12:00")
    await system.run_job()
    said = await system.said(later)
    assert datetime.fromisoformat(payload(said[-1])["closed_at"]) == moment("2023-12-20 12:00")


async def test_a_returned_candidate_who_moves_to_another_desk_keeps_the_named_time(system: System) -> None:
    one = await system.registered()
    system.at("2023-12-10 09:00")
    await system.at_desk("return", one, fix_until="2023-12-15T12:00:00+08:00")
    await system.deliver(amended(one, 2, "wutongqiao"))
    system.at("2023-12-14 12:00")
    await system.run_job()
    assert (await system.case(one))["state"] == "returned"
    system.at("2023-12-15 12:00")
    await system.run_job()
    assert (await system.case(one))["state"] == "lapsed"


async def test_an_undated_desk_lapses_with_the_overall_window(system: System) -> None:
    one = await system.registered("municipal")
    system.at("2023-12-15 23:59:59.999999")
    await system.run_job()
    assert await system.said(one) == []
    system.at("2023-12-16 00:00")
    await system.run_job()
    assert names(await system.said(one)) == ["lapsed"]


async def test_many_lapse_in_chunks_and_two_jobs_at_once_do_it_once(system: System) -> None:
    await system.pre_registered(many=60)
    system.at("2023-12-14 12:00")
    cycle = system.process.plumbing.cycle

    async def sweep() -> int:
        total = 0
        while True:
            async with system.database.unit_of_work() as uow:
                count = await handlers.lapse_missed(uow, cycle=cycle, limit=7)
                assert count <= 7
            if not count:
                return total
            total += count

    counts = await asyncio.gather(*(sweep() for _ in range(3)))
    await system.run_job()
    assert sum(counts) <= 60
    assert names(await system.said()) == ["lapsed"] * 60


async def waits_for_a_lock(system: System) -> bool:
    waiting = await system.rows(
        "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    )
    return bool(waiting)


async def test_somebody_at_the_desk_in_the_last_moment_is_waited_for_and_not_lapsed(system: System) -> None:
    at_the_desk, missed = await system.pre_registered(many=2)
    system.at("2023-12-14 11:59:59.999999")
    async with system.database.unit_of_work() as uow:
        await uow.sql("select 1 from cases where registration_id = $1 for update", at_the_desk)
        system.at("2023-12-14 12:00")
        job = asyncio.create_task(system.run_job())
        await eventually(
            lambda: waits_for_a_lock(system), because="the job waits for the row that the desk holds"
        )
        assert names(await system.said(missed)) == ["lapsed"], "and has done all the others"
        await uow.sql(
            "update cases set state = 'confirmed', passed = 1, version = 1 where registration_id = $1",
            at_the_desk,
        )
    await asyncio.wait_for(job, 5)
    assert (await system.case(at_the_desk))["state"] == "confirmed"
    assert names(await system.said()) == ["lapsed"]


async def test_who_comes_at_the_very_moment_is_too_late_before_and_after_the_job(system: System) -> None:
    one, two = await system.pre_registered(many=2)
    system.at("2023-12-14 12:00")
    codes = [(await system.confirm(one)).json()["code"], (await system.at_desk("return", two)).json()["code"]]
    await system.run_job()
    assert codes == [
        (await system.confirm(one)).json()["code"],
        (await system.at_desk("return", two)).json()["code"],
    ]
    assert codes == [Code.WINDOW_CLOSED, Code.NOT_ALLOWED]


@pytest.mark.slow
async def test_twenty_thousand_lapse_within_seconds(system: System) -> None:
    async with system.database.unit_of_work() as uow:
        await uow.sql(
            "insert into cases select uuidv7(), $1, 'shizhong', '203', 'junior', '{1,2,3,4}', 1, false, "
            "'pre-registered', 0, null, 0, $2, $2 from generate_series(1, 20000)",
            system.process.plumbing.cycle.id,
            uow.at,
        )
    system.at("2023-12-14 12:00")
    loop = asyncio.get_running_loop()
    started = loop.time()
    await system.run_job()
    assert timedelta(seconds=loop.time() - started) < timedelta(seconds=10)
    assert len(await system.rows("select 1 from outbox")) == 20_000
