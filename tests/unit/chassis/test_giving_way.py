"""Long work in pieces lets people through."""

from __future__ import annotations

import asyncio

import pytest

from services.chassis.giving_way import SMALL, GivingWay, Visitors


class Loop:
    """Of the event loop its time, and whoever sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.slept: list[float] = []

        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            self.now += seconds

        monkeypatch.setattr(asyncio, "sleep", sleep)
        monkeypatch.setattr(GivingWay, "_now", staticmethod(lambda: self.now))


async def test_while_nobody_comes_it_takes_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, way = Loop(monkeypatch), GivingWay(Visitors(), 2000)
    for _ in range(3):
        assert way.size == 2000
        loop.now += 0.07
        await way.rest()
    assert loop.slept == []


async def test_who_comes_is_let_through_between_smaller_pieces_until_nobody_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    visitors = Visitors()
    loop, way = Loop(monkeypatch), GivingWay(visitors, 2000)
    visitors.came += 1
    loop.now += 0.07
    await way.rest()
    assert way.size == SMALL
    visitors.came += 2
    loop.now += 0.015
    await way.rest()
    assert loop.slept == pytest.approx(
        [0.07, 0.015]
    )  # as long as the piece before, and no rest is counted as work
    loop.now += 0.015
    await way.rest()
    assert way.size == 2000
    assert len(loop.slept) == 2


async def test_a_piece_that_took_long_does_not_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    visitors = Visitors()
    loop, way = Loop(monkeypatch), GivingWay(visitors, 2000)
    visitors.came += 1
    loop.now += 30
    await way.rest()
    assert loop.slept == [0.25]


async def test_a_piece_that_was_small_already_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    visitors = Visitors()
    Loop(monkeypatch)
    way = GivingWay(visitors, 2)
    visitors.came += 1
    await way.rest()
    assert way.size == 2
