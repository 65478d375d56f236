"""Decisions of two people that meet each other, the sweep, a payment or a death."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from services.payment.handlers import closing as close_handlers
from services.payment.handlers import deciding
from services.payment.repository import closing as closing_rows
from services.payment.repository import decisions
from tests.service.payment.system import CLOSES, System, moment, rejected
from tests.service.payment.two_people import LATER, Office, owing_at, words
from tests.support.counted import counts


@pytest.fixture
def office(system: System) -> Office:
    return Office(system)


async def test_two_people_who_approve_at_once_are_one_approval(system: System, office: Office) -> None:
    candidate = await system.owing()
    decision = await office.asked()
    answers = await asyncio.gather(
        *(office.say(decision, "approve", f"office-{number}") for number in range(4))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    await asyncio.gather(*(system.carry_out_job.run() for _ in range(2)), return_exceptions=True)
    await system.carry_out_job.run()
    assert await system.words(candidate) == ["due", "window-moved"]


async def test_whoever_asks_waits_for_the_chunk_of_the_sweep_that_is_under_way(
    system: System, office: Office
) -> None:
    """Row 58 of the fault matrix. Either it was forfeited before anybody asked, or not until it is decided: no third."""
    candidates = await system.approved(6)
    system.at(CLOSES)
    asked: list[asyncio.Task[dict[str, object]]] = []
    sweep = closing_rows.sweep_chunk

    async def slow(*args: object, **more: object) -> int:
        swept: int = await sweep(*args, **more)  # type: ignore[arg-type]  # passed on as they come
        if not asked:
            asked.append(asyncio.create_task(office.asked()))
            await asyncio.sleep(0.3)
            assert not asked[0].done(), "asked although forfeiting was under way"
        return swept

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(closing_rows, "sweep_chunk", slow)
        await close_handlers.sweep(system.database, system.cycle, system.clock.now(), chunk=2)
    decision = await asked[0]
    preview = decision["preview"]
    assert isinstance(preview, dict)
    fallen = sum(["expired" in said for said in await words(system, candidates)])
    assert (preview["reinstated"], preview["moved"]) == (fallen, 6 - fallen)
    assert 2 <= fallen < 6, "asked when a part of the sweep had run"
    with counts(1, "kaowu_payment_decided_total", kind="extend-payment", word="approved"):
        await office.approve(decision)
    with counts(fallen, "kaowu_payment_reinstated_total"):
        await system.carry_out_job.run()
    assert sorted(await words(system, candidates)) == [
        *[["due", "expired", "reinstated"]] * fallen,
        *[["due", "window-moved"]] * (6 - fallen),
    ]
    await system.close()
    assert not any(said[-1] == "expired" for said in await words(system, candidates))


async def test_a_run_cut_short_goes_on_where_it_was_and_tells_nobody_twice(
    system: System, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = await system.approved(7)
    system.at("2024-02-09 01:00")
    await system.close()
    decision = await office.asked()
    await office.approve(decision)
    move, chunks = decisions.move_chunk, 0

    async def dies(*args: object, **more: object) -> object:
        nonlocal chunks
        chunks += 1
        if chunks == 3:
            raise OSError("killed")
        return await move(*args, **more)  # type: ignore[arg-type]  # passed on as they come

    monkeypatch.setattr(decisions, "move_chunk", dies)
    with pytest.raises(OSError, match="killed"):
        await deciding.carry_out(system.database, system.clock.now(), chunk=2)
    said = [len(one) for one in await words(system, candidates)]
    assert sorted(said) == [2, 2, 2, 3, 3, 3, 3]
    await system.close()
    assert [len(one) for one in await words(system, candidates)] == said, (
        "nobody falls while it is being done"
    )
    await deciding.carry_out(system.database, system.clock.now(), chunk=2)
    assert await words(system, candidates) == [["due", "expired", "reinstated"]] * 7
    assert (await office.read(decision))["done"] == {"moved": 0, "reinstated": 7}


async def test_a_payment_that_holds_its_row_meanwhile_is_waited_for(system: System, office: Office) -> None:
    paying, other = await system.approved(2)
    decision = await office.asked()
    await office.approve(decision)
    async with system.other_session() as uow:
        await uow.sql("select from obligations where registration_id = $1 for update", paying)
        doing = asyncio.create_task(deciding.carry_out(system.database, system.clock.now()))
        await asyncio.sleep(0.2)
        assert not doing.done()
        await uow.changed("update obligations set changed_at = changed_at where registration_id = $1", paying)
    await doing
    assert await words(system, [paying, other]) == [["due", "window-moved"]] * 2


async def test_after_the_old_close_an_order_is_refused_by_the_new_window_first_and_then_by_the_state(
    system: System, office: Office
) -> None:
    paid, gone, owes = await system.approved(3)
    await system.paid_and_heard(await system.ordered(paid))
    await system.deliver(rejected(gone))
    await office.extend()
    system.at("2024-02-10 12:00")
    codes = [(await system.order(one)).json().get("code") for one in (paid, gone, uuid7(), owes)]
    assert codes == ["already-paid", "not-approved", "not-approved", None]
    system.clock.jump(moment(LATER) - timedelta(minutes=2))
    codes = [(await system.order(one)).json().get("code") for one in (paid, gone, uuid7())]
    assert codes == ["too-late-to-order"] * 3
    system.at(LATER)
    codes = [(await system.order(one)).json().get("code") for one in (paid, gone, uuid7())]
    assert codes == ["window-closed"] * 3


async def test_whether_a_close_is_put_off_is_asked_once_for_a_sweep_and_not_for_each_row(
    system: System, office: Office
) -> None:
    await owing_at(system, "ebian", "jingyan", "mabian")
    await office.asked(site="ebian")
    (row,) = await system.rows(
        f"explain (format json) select count(*) from obligations o where {closing_rows.DUE}",
        moment(LATER),
    )
    plan = json.loads(row["QUERY PLAN"]) if isinstance(row["QUERY PLAN"], str) else row["QUERY PLAN"]
    found = list(parents_of("decisions", plan[0]["Plan"], ()))
    assert found
    assert all("InitPlan" in parents for parents in found), found


def parents_of(table: str, node: dict[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """How each scan of a table hangs on the statement: an InitPlan runs once, a SubPlan for each row."""
    above = (*above, node.get("Parent Relationship", ""))
    if node.get("Relation Name") == table:
        yield above
    for below in node.get("Plans", ()):
        yield from parents_of(table, below, above)
