"""A protection of payment that is taken away is missed: the interleavings find it, and an invariant or an error says which.

Without this nobody knew whether runs are green because nothing is wrong or because nothing is looked at.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.interleavings import runner
from tests.interleavings.planted import PLANTED
from tests.interleavings.playing import SIZE
from tests.interleavings.reaching import missed
from tests.interleavings.town import Town
from tests.support.plays import apart

BATCH: Final = 24
"""One that reaches by itself whatever must be reached soon."""
# One of each kind, found in the first batch; all are in make test-faults, or this file by name.
QUICK: Final = ("no order undecided", "the right amount")


async def _first(one: Town, name: str) -> str:
    """What the first batch that breaks breaks, with this protection gone."""
    planted = PLANTED[name]
    with planted.mutation():
        for number in range(planted.within):
            _, broken = await runner.attempt(one, number)
            if broken:
                return f"batch {number}: {broken}"
    return ""


def _play_and_look_for(*names: str) -> tuple[dict[str, int], str, dict[str, str]]:
    async def look(one: Town) -> tuple[dict[str, int], str, dict[str, str]]:
        batch, broken = await runner.attempt(one, BATCH)
        return dict(batch.reached), broken, await _look(one, names)

    return runner.in_a_town(look)


async def _look(one: Town, names: tuple[str, ...]) -> dict[str, str]:
    return {name: await _first(one, name) for name in names}


def _look_for(*names: str) -> dict[str, str]:
    return runner.in_a_town(lambda one: _look(one, names))


def _check(name: str, found: str) -> None:
    planted = PLANTED[name]
    assert found, f"none of {planted.within} batches noticed that {name} is gone"
    print(f"{name}: {found.splitlines()[0]}")
    assert found.partition(": ")[2].startswith(tuple(planted.noticed_by)), found


def test_two_hundred_runs_break_no_promise_reach_what_they_must_and_miss_a_protection_that_is_gone() -> None:
    reached, broken, found = apart(_play_and_look_for, *QUICK)
    assert not broken, broken
    assert not (left := missed(SIZE, reached)), left
    for name in QUICK:
        _check(name, found[name])


@pytest.fixture(scope="module")
def missed_protections() -> dict[str, str]:
    return apart(_look_for, *PLANTED)


@pytest.mark.faults(long=True)
@pytest.mark.parametrize("name", PLANTED)
def test_a_protection_that_is_gone_is_missed_by_name(name: str, missed_protections: dict[str, str]) -> None:
    _check(name, missed_protections[name])
