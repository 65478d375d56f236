"""What the simulated outside says about its own work: nothing due is ever hidden, and one failure stops nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from deploy.simulators.agenda import Agenda, Pending
from tests.simulators.outside import START, HandClock
from tests.support.eventually import eventually


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def agenda(clock: HandClock) -> AsyncIterator[Agenda]:
    agenda = Agenda(clock)
    running = asyncio.create_task(agenda.run())
    yield agenda
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def at_rest(agenda: Agenda) -> None:
    async def look() -> bool:
        return agenda.pending().now == 0

    await eventually(look, within=5, every=0.001)


async def test_deeds_are_done_in_the_order_of_their_moments(agenda: Agenda, clock: HandClock) -> None:
    done: list[int] = []

    def deed(n: int) -> None:
        async def do() -> None:
            done.append(n)

        agenda.add(START + timedelta(seconds=n), do)

    for n in (3, 1, 2, 7):
        deed(n)
    assert agenda.pending() == Pending(0, START + timedelta(seconds=1))
    clock.move(seconds=5)
    await at_rest(agenda)
    assert done == [1, 2, 3]
    assert agenda.pending() == Pending(0, START + timedelta(seconds=7))


async def test_a_deed_due_now_is_pending_before_and_while_it_is_done(agenda: Agenda) -> None:
    go, begun = asyncio.Event(), asyncio.Event()

    async def deed() -> None:
        begun.set()
        await go.wait()

    agenda.add(START, deed)
    assert agenda.pending().now == 1
    await begun.wait()
    assert agenda.pending().now == 1
    go.set()
    await at_rest(agenda)


async def test_what_a_deed_adds_is_pending_before_the_deed_ends(agenda: Agenda) -> None:
    seen: list[int] = []

    async def second() -> None:
        await asyncio.sleep(0)

    async def first() -> None:
        agenda.add(START, second)
        seen.append(agenda.pending().now)

    agenda.add(START, first)
    await at_rest(agenda)
    assert seen == [2]


async def test_a_deed_that_fails_is_shown_and_stops_nothing(agenda: Agenda, clock: HandClock) -> None:
    async def bad() -> None:
        raise ValueError("no such thing")

    done = asyncio.Event()

    async def good() -> None:
        done.set()

    agenda.add(START, bad)
    agenda.add(START + timedelta(seconds=1), good)
    clock.move(seconds=1)
    await asyncio.wait_for(done.wait(), 5)
    await at_rest(agenda)
    assert agenda.failures == ["ValueError: no such thing"]


async def test_an_earlier_deed_wakes_a_sleeping_agenda(agenda: Agenda, clock: HandClock) -> None:
    async def never() -> None:
        raise AssertionError("its moment never comes")

    agenda.add(START + timedelta(days=1), never)
    await asyncio.sleep(0.01)
    done = asyncio.Event()

    async def now() -> None:
        done.set()

    agenda.add(START, now)
    await asyncio.wait_for(done.wait(), 0.3)
    await at_rest(agenda)
    assert agenda.failures == []


async def test_who_waits_for_rest_is_answered_once_what_is_due_is_done(
    agenda: Agenda, clock: HandClock
) -> None:
    go = asyncio.Event()

    async def deed() -> None:
        await go.wait()

    agenda.add(START + timedelta(seconds=1), deed)
    await asyncio.wait_for(agenda.settled(60), 5)  # it is not due yet
    clock.move(seconds=1)
    waiting = asyncio.create_task(agenda.settled(60))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    go.set()
    await asyncio.wait_for(waiting, 5)
    assert agenda.pending() == Pending(0, None)


async def test_who_waits_for_rest_is_not_kept_waiting_for_ever(agenda: Agenda) -> None:
    stuck = asyncio.Event()

    async def deed() -> None:
        await stuck.wait()

    agenda.add(START, deed)
    await asyncio.wait_for(agenda.settled(0.02), 5)
    assert agenda.pending().now == 1
