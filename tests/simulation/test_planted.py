"""A protection that is taken away is missed: the simulation finds the bug, and an invariant or the rules say which.

Without this nobody knew whether seeds are green because nothing is wrong or because nothing is looked at.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Final, TypeVar

import pytest

from tests.simulation.finding import Found, first
from tests.simulation.planted import PLANTED
from tests.simulation.runner import attempt, cut_down, on_a_stage, what_broke
from tests.simulation.stage import Stage

T = TypeVar("T")

# Found within a dozen seeds; the others take up to a minute each (make test-faults, or this file by name).
QUICK: Final = ("cursor after acknowledgement", "offsets after effects")


def _apart(work: Callable[..., T], *names: str) -> T:
    """In a process of its own: a stage changes much of the one that it stands in."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as worker:
        return worker.submit(work, *names).result()


def _look_for(*names: str) -> dict[str, Found | None]:
    """On one stage, one after the other."""

    async def look(one: Stage) -> dict[str, Found | None]:
        return {
            name: await first(one, PLANTED[name].mutation, range(1, PLANTED[name].within + 1))
            for name in names
        }

    return on_a_stage(look)


def _shorten(name: str) -> tuple[int, int, str, str]:
    planted = PLANTED[name]

    async def look(one: Stage) -> tuple[int, int, str, str]:
        with planted.mutation():
            for seed in range(1, planted.within + 1):
                run, outcome = await attempt(one, seed)
                if isinstance(outcome, str):
                    plan = run.chance.plan
                    small = await cut_down(one, seed, plan, outcome, tries=120)
                    _, found = await attempt(one, seed, small)
                    return len(plan), len(small), what_broke(outcome), what_broke(str(found))
        raise AssertionError(f"no seed noticed that {name} is gone")

    return on_a_stage(look)


@pytest.fixture(scope="module")
def at_once() -> dict[str, Found | None]:
    return _apart(_look_for, *QUICK)


@pytest.mark.parametrize("name", QUICK)
def test_a_protection_that_is_gone_is_missed_at_once_and_by_name(
    name: str, at_once: dict[str, Found | None]
) -> None:
    _check(name, at_once[name])


@pytest.mark.faults(long=True)
@pytest.mark.parametrize("name", [name for name in PLANTED if name not in QUICK])
def test_a_protection_that_is_gone_is_missed_by_name(name: str) -> None:
    _check(name, _apart(_look_for, name)[name])


def _check(name: str, found: Found | None) -> None:
    planted = PLANTED[name]
    assert found is not None, f"no seed from 1 to {planted.within} noticed that {name} is gone"
    print(f"{name}: seed {found.seed} broke {', '.join(sorted(found.invariants))}")
    assert found.invariants & planted.noticed_by, found.violation


@pytest.mark.faults(long=True)
def test_a_seed_that_fails_is_cut_down_to_fewer_decisions_that_break_the_same_promise() -> None:
    before, after, broke, still_breaks = _apart(_shorten, "cursor after acknowledgement")
    assert still_breaks == broke
    assert after < before / 4
