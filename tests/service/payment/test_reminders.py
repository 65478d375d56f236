"""Reminders before the close: who is told, who is not, and never twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from uuid_utils.compat import uuid7

from contracts import payment
from services.payment.repository import reminders
from tests.service.payment.system import CLOSES, System, approved, moment, rejected


async def test_each_reminder_is_said_once_and_names_the_close(system: System) -> None:
    candidate = await system.owing()
    assert await system.remind() == moment("2024-02-02 00:00")
    system.at("2024-02-01 23:59:59.999999")
    await system.remind()
    assert await system.words(candidate) == ["due"]
    system.at("2024-02-02 00:00")
    assert await system.remind() == moment("2024-02-06 00:00")
    await system.remind()
    (reminder,) = (await system.said(candidate))[1:]
    assert reminder == payment.ClosingSoon(
        cycle_id=system.cycle.id,
        registration_id=candidate,
        amount_fen=20_000,
        closes_at=moment(CLOSES),
        offset=7 * 86_400,
    )
    upcoming = None
    for at in ("2024-02-06 00:00", "2024-02-08 00:00", "2024-02-08 18:00", "2024-02-08 22:00"):
        system.at(at)
        upcoming = await system.remind()
        await system.remind()
    assert upcoming is None
    offsets = [
        event.offset for event in await system.said(candidate) if isinstance(event, payment.ClosingSoon)
    ]
    assert offsets == [7 * 86_400, 3 * 86_400, 86_400, 6 * 3600, 2 * 3600]


async def test_nobody_who_paid_is_paying_or_owes_nothing_is_reminded(system: System) -> None:
    paid, paying, gone, owes = await system.approved(4)
    await system.paid_and_heard(await system.ordered(paid))
    await system.deliver(rejected(gone))
    system.at("2024-02-01 23:00")
    await system.ordered(paying)
    system.at("2024-02-02 00:00")
    await system.remind()
    assert [await system.words(one) for one in (paid, paying, gone, owes)] == [
        ["due", "paid"],
        ["due"],
        ["due"],
        ["due", "closing-soon"],
    ]
    # Once the moment is done with it is not made up for when the order ends.
    system.at("2024-02-02 02:00")
    await system.settle()
    await system.remind()
    assert await system.words(paying) == ["due"]


async def test_an_order_that_ends_at_a_reminders_moment_is_asked_about_first(system: System) -> None:
    """Its job may come later: the reminder must neither be missed by who did not pay nor sent to who did."""
    system.at("2024-02-01 22:00")
    over, lost, under_way = await system.approved(3)
    await system.ordered(over)
    system.pay(await system.ordered(lost))  # no callback ever comes
    system.at("2024-02-01 22:00:00.000001")
    await system.ordered(under_way)
    system.at("2024-02-02 00:00")
    await system.remind()
    assert [await system.words(one) for one in (over, lost, under_way)] == [
        ["due", "closing-soon"],
        ["due", "paid"],
        ["due"],
    ]


async def test_while_the_gateway_is_away_whose_payment_is_unknown_is_not_told_to_pay(system: System) -> None:
    system.at("2024-02-01 22:00")
    perhaps, owes = await system.approved(2)
    await system.ordered(perhaps)
    system.at("2024-02-02 00:00")
    system.gateway_down(3600)
    await system.remind()
    assert [await system.words(one) for one in (perhaps, owes)] == [["due"], ["due", "closing-soon"]]


async def test_after_an_outage_only_the_latest_missed_reminder_is_sent(system: System) -> None:
    candidate = await system.owing()
    system.at("2024-02-08 20:00")
    assert await system.remind() == moment("2024-02-08 22:00")
    (reminder,) = (await system.said(candidate))[1:]
    assert isinstance(reminder, payment.ClosingSoon)
    assert reminder.offset == 6 * 3600
    runs = await system.rows("select offset_seconds, skipped from reminder_runs order by 1")
    assert [(run["offset_seconds"], run["skipped"]) for run in runs] == [
        (6 * 3600, False),
        (86_400, True),
        (3 * 86_400, True),
        (7 * 86_400, True),
    ]


def before_the_second_chunk(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Awaitable[None]]) -> None:
    """Three are told at a time; this happens once the first three have been."""
    monkeypatch.setattr(reminders, "CHUNK", 3)
    remind, chunks = reminders.remind_chunk, 0

    async def chunk(*args: object) -> reminders.Reminded:
        nonlocal chunks
        chunks += 1
        if chunks == 2:
            await happens()
        return await remind(*args)  # type: ignore[arg-type]  # passed on as they come

    monkeypatch.setattr(reminders, "remind_chunk", chunk)


async def test_a_run_cut_short_goes_on_where_it_was(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = await system.approved(7)

    async def dies() -> None:
        raise OSError("killed")

    before_the_second_chunk(monkeypatch, dies)
    system.at("2024-02-02 00:00")
    with pytest.raises(OSError, match="killed"):
        await system.remind()
    said = [await system.words(one) for one in candidates]
    assert sorted(map(len, said)) == [1, 1, 1, 1, 2, 2, 2]
    await system.remind()
    assert [await system.words(one) for one in candidates] == [["due", "closing-soon"]] * 7


async def test_whoever_is_approved_while_others_are_told_is_told_too_though_their_turn_was_over(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = uuid7()  # before the others in the order in which they are told
    candidates = await system.approved(7)
    before_the_second_chunk(monkeypatch, lambda: system.deliver(approved(late)))
    system.at("2024-02-02 00:00")
    await system.remind()
    assert [await system.words(one) for one in (late, *candidates)] == [["due", "closing-soon"]] * 8


async def test_whose_row_another_changes_at_that_moment_is_told_all_the_same(system: System) -> None:
    candidate, other = await system.approved(2)
    system.at("2024-02-02 00:00")
    async with system.other_session() as uow:
        await uow.changed(
            "update obligations set changed_at = changed_at where registration_id = $1", candidate
        )
        reminding = asyncio.create_task(system.remind())
        await system.until_waiting()
    await reminding
    assert [await system.words(one) for one in (candidate, other)] == [["due", "closing-soon"]] * 2


async def test_nobody_is_reminded_after_the_close(system: System) -> None:
    candidate = await system.owing()
    system.clock.jump(moment(CLOSES))
    assert await system.remind() is None
    assert await system.words(candidate) == ["due"]
    assert {run["skipped"] for run in await system.rows("select skipped from reminder_runs")} == {True}


async def test_reminders_and_money_share_one_sequence_without_a_gap(system: System) -> None:
    candidate = await system.owing()
    system.at("2024-02-02 00:00")
    await system.remind()
    order_no = await system.ordered(candidate)
    system.clock.jump(moment("2024-02-02 00:00") + timedelta(minutes=1))
    await system.paid_and_heard(order_no)
    assert await system.words(candidate) == ["due", "closing-soon", "paid"]
