"""Whoever is forfeited after their close was published is under a root as well, under one, and it is said once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from contracts import payment
from deploy.replay.engine import replay
from deploy.replay.history import read_log
from deploy.replay.order import order
from deploy.replay.reactions import Recorded
from services.chassis.db import Database
from services.payment.domain.proof_tree import ProofTree
from services.payment.handlers import closing
from services.payment.repository import closing as sweeping
from services.payment.repository import roots, windows
from tests.service.payment.system import CLOSES, System, approved, hours, moment, returned
from tests.service.payment.two_people import LATER, Office, owing_at
from tests.support.postgres import TestDatabases

LAST = "2024-02-08 23:57:59"


async def held(system: System, many: int = 1) -> list[UUID]:
    """They ordered in the last moment, the gateway does not answer: the close is published without them."""
    found = await system.approved(many)
    system.at(LAST)
    for one in found:
        await system.ordered(one)
    system.at(CLOSES)
    system.gateway_down(600)
    await system.close()
    assert {await system.status(one) for one in found} == {"held"}
    return found


async def answered(system: System, after: float = 2) -> None:
    """The gateway is back, and says of each that it was not paid."""
    system.clock.jump(moment(CLOSES) + hours(after))
    await system.settle()


async def root_of(leaves: AsyncIterator[bytes]) -> tuple[str, int]:
    tree = ProofTree()
    async for leaf in leaves:
        tree.add(leaf)
    return tree.root().hex(), tree.leaves


async def each_is_under_one_root(system: System) -> list[int]:
    """Made again from the rows, each root is the one that was said; together they hold each proof once. How many each holds."""
    said = [
        e
        for e in await system.said(system.cycle.id)
        if isinstance(e, (payment.WindowClosed, payment.ProofsPublished))
    ]
    numbers: list[int] = []
    proofs = await system.rows("select number, closes_at from proofs order by number")
    async with system.database.reading() as uow:
        for event in said:
            if isinstance(event, payment.WindowClosed):
                (close,) = await uow.sql(
                    "select last_proof from closings where closes_at = $1", event.closes_at
                )
                under = [
                    p["number"]
                    for p in proofs
                    if p["closes_at"] == event.closes_at and p["number"] <= close.last_proof
                ]
                leaves = sweeping.leaves(uow, event.closes_at, close.last_proof)
            else:
                assert event.envelope is not None
                (later,) = await uow.sql(
                    "select * from later_roots where sequence = $1", event.envelope.sequence
                )
                assert event.proofs_before == len(numbers)
                published = {row.closes_at: row.last_proof for row in await uow.sql("select * from closings")}
                under = [
                    p["number"]
                    for p in proofs
                    if later.after_proof < p["number"] <= later.last_proof
                    and p["number"] > published[p["closes_at"]]
                ]
                leaves = roots.leaves(uow, event.cycle_id, later.after_proof, later.last_proof)
            assert await root_of(leaves) == (event.proof_root, event.proofs)
            assert len(under) == event.proofs
            numbers += under
    assert sorted(numbers) == [p["number"] for p in proofs]
    assert len(numbers) == len(await system.rows("select 1 from outbox where type like '%.expired.%'"))
    return [event.proofs for event in said]


async def test_who_was_held_and_denied_later_is_under_a_root_of_their_own(system: System) -> None:
    late = await held(system, 3)
    never = await system.approved(2)
    await answered(system)
    await system.close()
    assert {await system.status(one) for one in (*late, *never)} == {"expired"}
    assert await each_is_under_one_root(system) == [0, 5]
    published = (await system.said(system.cycle.id))[-1]
    assert isinstance(published, payment.ProofsPublished)
    assert (published.proofs, published.proofs_before, published.expired_fen) == (5, 0, 100_000)
    listed = (await system.office("close"))["roots"]
    assert [(one["sequence"], one["proofs"], one["proof_root"]) for one in listed] == [
        (1, 0, (await system.said(system.cycle.id))[0].proof_root),  # type: ignore[attr-defined]  # a close
        (2, 5, published.proof_root),
    ]
    # Nothing more to say: neither by the next run, nor by the news delivered once more.
    await system.close()
    await system.deliver(*(approved(one) for one in never))
    await system.close()
    assert len(await system.said(system.cycle.id)) == 2


async def test_each_later_root_holds_who_came_since_the_one_before(system: System) -> None:
    await system.approved(4)
    system.at(CLOSES)
    await system.close()
    for many in (1, 2, 3):
        await system.approved(many)
        await system.close()
    assert await each_is_under_one_root(system) == [4, 1, 2, 3]
    before = [
        e.proofs_before for e in await system.said(system.cycle.id) if isinstance(e, payment.ProofsPublished)
    ]
    assert before == [4, 5, 7]


async def test_who_falls_twice_by_one_close_has_two_proofs_each_under_a_root(system: System) -> None:
    """Approved again before the close, the news came after it: the sweep must not stumble over who fell before."""
    one, other = await system.approved(2)
    system.at(CLOSES)
    await system.close()
    await system.deliver(returned(one))
    await system.deliver(approved(one))
    late = await system.owing()
    await system.close()
    assert await system.words(one) == ["due", "expired", "due", "expired"]
    assert [await system.status(who) for who in (one, other, late)] == ["expired"] * 3
    assert await each_is_under_one_root(system) == [2, 2]


async def test_two_proofs_of_one_person_may_lie_under_the_same_root(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "_LEAVES_PAGE", 2)
    many = await system.approved(5)
    system.at(CLOSES)
    async with system.other_session() as uow:
        await sweeping.begin(uow, system.cycle.id, moment(CLOSES), system.cycle.fingerprint, None)
    await closing.sweep(system.database, system.cycle, moment(CLOSES))
    await system.deliver(*(returned(one) for one in many))
    await system.deliver(*(approved(one) for one in many))
    await system.close()
    assert await each_is_under_one_root(system) == [10]


async def test_four_processes_say_it_once(system: System) -> None:
    await held(system, 6)
    await answered(system)
    await asyncio.gather(*(system.turns.close_window() for _ in range(4)))
    assert await each_is_under_one_root(system) == [0, 6]


@pytest.mark.parametrize("dies_at", ["sweep-after-chunk", "close-in-later-proofs", "close-in-totals"])
async def test_a_process_that_dies_there_says_it_when_it_runs_again(
    system: System, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    if dies_at == "close-in-totals":
        await system.approved(3)
        system.at(CLOSES)
    else:
        await held(system, 3)
        await answered(system)
    reached: list[str] = []

    def dies(name: str) -> None:
        if name == dies_at and not reached:
            reached.append(name)
            raise KeyboardInterrupt

    monkeypatch.setattr(closing, "crash_point", dies)
    with pytest.raises(KeyboardInterrupt):
        await system.turns.close_window()
    assert reached == [dies_at]
    before = len(await system.said(system.cycle.id))
    await system.end()
    system.start()
    await system.close()
    assert len(await system.said(system.cycle.id)) == before + 1
    assert await each_is_under_one_root(system) == ([3] if dies_at == "close-in-totals" else [0, 3])


async def test_a_root_is_not_made_while_somebody_is_in_the_middle_of_being_forfeited(system: System) -> None:
    """The lower number commits after the higher one: the root waits for it, so that no proof falls between two roots."""
    await system.approved(2)
    system.at(CLOSES)
    async with system.other_session() as uow:
        await windows.share(uow)
        assert await sweeping.sweep_chunk(uow, system.cycle.fingerprint, chunk=1) == 1
        async with system.other_session() as faster:
            await sweeping.begin(faster, system.cycle.id, moment(CLOSES), system.cycle.fingerprint, None)
            await windows.share(faster)
            assert await sweeping.sweep_chunk(faster, system.cycle.fingerprint, chunk=1) == 1
        publishes = asyncio.create_task(
            closing.publish_totals(system.database, system.cycle, moment(CLOSES), moment(CLOSES), last=True)
        )
        await asyncio.sleep(0.3)
        assert not publishes.done()
    await publishes
    assert await each_is_under_one_root(system) == [2]


async def test_of_two_closes_each_has_its_root_and_who_is_late_by_either_a_later_one(system: System) -> None:
    """One desk closes two days later. Somebody is late by the first close in the middle of the second's sweep."""
    office = Office(system)
    owing = await owing_at(system, "shizhong", "shizhong", "emeishan", "emeishan", "emeishan")
    await office.extend(LATER, "emeishan")
    system.at(CLOSES)
    await system.close()
    assert await each_is_under_one_root(system) == [2]
    system.at(LATER)
    async with system.other_session() as uow:
        await sweeping.begin(uow, system.cycle.id, moment(LATER), system.cycle.fingerprint, None)
        assert await sweeping.sweep_chunk(uow, system.cycle.fingerprint, chunk=2) == 2
    (late,) = await owing_at(system, "shizhong")
    async with system.other_session() as uow:
        assert await sweeping.sweep_chunk(uow, system.cycle.fingerprint, chunk=1) == 1
    # A process that knows of the first close only says what it can: not those whose own close will cover them.
    await closing.publish_later_proofs(system.database, system.cycle, moment(LATER))
    await system.close()
    assert {await system.status(one) for one in (*owing, late)} == {"expired"}
    assert await each_is_under_one_root(system) == [2, 1, 3]
    await owing_at(system, "shizhong", "emeishan")
    await system.close()
    assert await each_is_under_one_root(system) == [2, 1, 3, 2]


async def test_who_was_revived_and_falls_again_is_under_the_root_of_their_new_close(system: System) -> None:
    one, _ = await system.approved(2)
    system.at(CLOSES)
    await system.close()
    await revived(system, one)
    system.at("2024-02-13 00:00")
    await system.close()
    assert await system.words(one) == ["due", "expired", "reinstated", "expired"]
    assert await each_is_under_one_root(system) == [2, 1]


async def revived(system: System, one: UUID) -> None:
    """Two people lift this forfeiture."""
    office = Office(system)
    body = {"kind": "revive", "registration_id": str(one), "reason": "医院证明"}
    decision = (await office.call("office-li", "POST", "/office/decisions", body)).json()
    await office.approve(decision)
    await system.carry_out_job.run()
    assert await system.status(one) == "awaiting"


async def test_while_the_office_decides_nobodys_root_is_forgotten(system: System) -> None:
    """An extension is asked for between the sweep of a late one and its root: it is said once that is decided."""
    office = Office(system)
    await held(system, 2)
    await answered(system)
    await closing.sweep(system.database, system.cycle, system.clock.now())
    decision = await office.asked()
    await system.close()
    await office.say(decision, "reject")
    await system.close()
    assert await each_is_under_one_root(system) == [0, 2]


async def test_rebuilt_from_its_log_the_service_publishes_nothing_again(
    system: System, databases: TestDatabases
) -> None:
    """Numbers of proofs are drawn anew in a rebuilt database: what is covered must stay covered."""
    await held(system, 2)
    await system.approved(3)
    await answered(system)
    await system.close()
    await system.approved(1)
    await system.close()
    assert await each_is_under_one_root(system) == [0, 5, 1]
    name = system.database.url.rpartition("/")[2]
    async with databases.server.connection(name) as connection:
        said = await read_log(connection)
    await system.database.dispose()
    login = await databases.server.make_database(f"{name}_rebuilt", owner="payment", template=name)
    rebuilt = Database(login.url, clock=Recorded(said[0].occurred_at), pool_size=2)
    try:
        async with rebuilt.unit_of_work() as uow:
            await uow.sql("alter table proofs disable trigger user")
            await uow.sql("alter table later_roots disable trigger user")
            await uow.sql("truncate proofs, later_roots, closings, cycle_versions")
            await uow.sql("update obligations set status = 'awaiting', expired_at = null, proof_id = null")
            await uow.sql("delete from outbox where type not like '%.due.%'")
        await replay(rebuilt, "payment", system.cycle, order(said, [], {}), book=False)
        async with rebuilt.reading(moment(CLOSES) + timedelta(hours=3)) as uow:
            assert not await roots.any_beyond(uow, system.cycle.id)
            assert [row.proofs for row in await roots.published(uow, system.cycle.id)] == [0, 5, 1]
            later = await uow.sql("select * from later_roots order by sequence")
            numbers = [row.number for row in await uow.sql("select number from proofs order by number")]
            assert [row.last_proof for row in later] == numbers[4:]
    finally:
        await rebuilt.dispose()
        await databases.drop(login)
