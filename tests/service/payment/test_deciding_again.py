"""After a restore: what two people had decided since the backup reaches everybody, or waits for the office."""

from __future__ import annotations

from uuid import UUID

import pytest

from services.payment.handlers import deciding_again
from services.payment.repository import decisions
from services.payment.repository.left_behind import LeftBehind, Unrecorded, left_behind, unrecorded
from tests.service.payment.backups import Backups
from tests.service.payment.system import CLOSES, System
from tests.service.payment.two_people import DECIDES, LATER, Office, owing_at, without_desk

EVENING = "2024-02-08 21:00"


@pytest.fixture
def office(system: System) -> Office:
    return Office(system)


async def begun(system: System, office: Office, site: str | None) -> UUID:
    """Approved and done to one person: what a process had done that was killed then, as the topic tells it."""
    found = UUID((await office.approve(await office.asked(site=site)))["decision_id"])
    async with system.database.unit_of_work() as uow:
        decision = await decisions.find(uow, found)
        assert decision is not None
        step = await decisions.move_chunk(uow, decision, decision.figures, None, chunk=1)
    assert step.moved == 1
    return found


async def begun_and_lost(
    system: System, office: Office, backups: Backups, site: str | None, at: str | None = None
) -> UUID:
    """Approved since the backup and done to one person; the database is put back, at once or `at` a later moment."""
    system.at(EVENING)
    backup = await backups.take()
    decision = await begun(system, office, site)
    if at is not None:
        system.at(at)
    await backups.restore(backup, caught_up=True)
    return decision


async def left(system: System) -> list[LeftBehind]:
    async with system.database.reading() as uow:
        return await left_behind(uow)


async def listed(office: Office) -> list[tuple[str, str, str | None]]:
    found = (await office.call(DECIDES, "GET", "/office/decisions")).json()["items"]
    return [(one["asked_by"], one["state"], one["site"]) for one in found]


async def closes(system: System) -> set[tuple[str, str]]:
    rows = await system.rows("select status, closes_at::text as closes_at from obligations")
    return {(row["status"], row["closes_at"]) for row in rows}


@pytest.mark.parametrize("site", [None, "ebian"])
async def test_a_close_that_had_not_reached_everybody_is_asked_for_again_and_nobody_is_forfeited_meanwhile(
    system: System, office: Office, backups: Backups, site: str | None
) -> None:
    people = await owing_at(system, "ebian", "ebian", "ebian")
    lost = await begun_and_lost(system, office, backups, site)
    assert await listed(office) == []
    assert [one.people for one in await left(system)] == [2]
    async with system.database.reading() as uow:
        assert await unrecorded(uow) == [Unrecorded(lost, asked=False, moved=1, reinstated=0)]
    await system.settle()
    assert await listed(office) == [("payment-recovery", "asked", site)]
    assert await left(system) == [], "somebody is about to see to them"
    # The old close comes: nobody falls who was left behind.
    system.at(CLOSES)
    await system.close()
    assert await system.rows("select from obligations where status = 'expired'") == []
    (waiting,) = (await office.call(DECIDES, "GET", "/office/decisions")).json()["items"]
    read = await office.read(waiting)
    assert (read["preview"]["told"], read["reason"]) == (2, deciding_again.REASON)
    await office.approve(waiting)
    await system.carry_out_job.run()
    assert (await office.read(waiting))["done"] == {"moved": 2, "reinstated": 0}
    assert {status for status, _ in await closes(system)} == {"awaiting"}
    assert len(await closes(system)) == 1
    system.at(LATER)
    await system.close()
    assert [await system.status(one) for one in people] == ["expired"] * 3


async def test_what_was_done_to_everybody_is_not_asked_for_again(
    system: System, office: Office, backups: Backups
) -> None:
    await owing_at(system, "ebian", "jingyan")
    system.at(EVENING)
    backup = await backups.take()
    decision = await office.extend(site="ebian")
    await backups.restore(backup, caught_up=True)
    await system.settle()
    assert await listed(office) == []
    async with system.database.reading() as uow:
        assert await unrecorded(uow) == [
            Unrecorded(UUID(decision["decision_id"]), asked=False, moved=1, reinstated=0)
        ]


async def test_what_the_backup_knows_as_asked_for_is_not_asked_for_twice_and_is_approved_again(
    system: System, office: Office, backups: Backups
) -> None:
    await owing_at(system, "ebian", "ebian")
    system.at(EVENING)
    decision = await office.asked(site="ebian")
    backup = await backups.take()
    await office.approve(decision)
    await system.carry_out_job.run()
    await backups.restore(backup, caught_up=True)
    await system.settle()
    assert [(state, site) for _, state, site in await listed(office)] == [("asked", "ebian")]
    async with system.database.reading() as uow:
        (known,) = await unrecorded(uow)
    assert (known.asked, known.moved) == (True, 2)
    await office.approve(decision)
    await system.carry_out_job.run()
    assert (await office.read(decision))["done"] == {"moved": 2, "reinstated": 0}
    async with system.database.reading() as uow:
        assert await unrecorded(uow) == []


async def test_a_decision_under_way_leaves_nobody_behind(system: System, office: Office) -> None:
    await owing_at(system, "ebian", "ebian")
    await begun(system, office, "ebian")
    assert await left(system) == []


async def test_a_close_that_has_passed_meanwhile_is_not_asked_for(
    system: System, office: Office, backups: Backups
) -> None:
    await owing_at(system, "ebian", "ebian")
    await begun_and_lost(system, office, backups, "ebian", at=LATER)
    await system.settle()
    assert await listed(office) == []
    assert [one.people for one in await left(system)] == [1], "they are listed all the same"


async def test_it_is_asked_for_again_also_where_somebodys_desk_is_unknown_and_said_then_to_the_office(
    system: System, office: Office, backups: Backups
) -> None:
    await owing_at(system, "ebian", "ebian")
    await begun_and_lost(system, office, backups, "ebian")
    await without_desk(system, 1)
    await system.settle()
    (waiting,) = (await office.call(DECIDES, "GET", "/office/decisions")).json()["items"]
    answer = await office.say(waiting, "approve")
    assert (answer.status_code, answer.json()["hints"]) == (409, {"without_site": 1})
