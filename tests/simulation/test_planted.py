"""A protection that is taken away is missed: the simulation finds the bug, and an invariant or the rules say which.

Without this nobody knew whether seeds are green because nothing is wrong or because nothing is looked at. Those that are found
at once are looked for in test_seeds.py.
"""

from __future__ import annotations

import pytest

from tests.simulation.finding import Found, first
from tests.simulation.planted import PLANTED, QUICK
from tests.simulation.playing import attempt, on_a_stage
from tests.simulation.runner import cut_down, what_broke
from tests.simulation.stage import Stage
from tests.support.plays import apart


def _look_for(name: str) -> Found | None:
    planted = PLANTED[name]
    return on_a_stage(lambda one: first(one, planted.mutation, planted.seeds))


def _shorten(name: str) -> tuple[int, int, str, str]:
    planted = PLANTED[name]

    async def look(one: Stage) -> tuple[int, int, str, str]:
        with planted.mutation():
            for seed in planted.seeds:
                run, outcome = await attempt(one, seed)
                if isinstance(outcome, str):
                    plan = run.chance.plan
                    small = await cut_down(one, seed, plan, outcome, tries=120)
                    _, found = await attempt(one, seed, small)
                    return len(plan), len(small), what_broke(outcome), what_broke(str(found))
        raise AssertionError(f"no seed noticed that {name} is gone")

    return on_a_stage(look)


@pytest.mark.faults(long=True)
@pytest.mark.parametrize("name", [name for name in PLANTED if name not in QUICK])
def test_a_protection_that_is_gone_is_missed_by_name(name: str) -> None:
    PLANTED[name].check(apart(_look_for, name))


@pytest.mark.faults(long=True)
def test_a_seed_that_fails_is_cut_down_to_fewer_decisions_that_break_the_same_promise() -> None:
    before, after, broke, still_breaks = apart(_shorten, "cursor after acknowledgement")
    assert still_breaks == broke
    assert after < before / 4
