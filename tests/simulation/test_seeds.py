"""Two hundred cycles by chance: no promise is broken, every kind of trouble is met, and a seed always plays out the same.

And where a protection is gone, somebody notices (the others are in test_planted.py).
"""

from __future__ import annotations

import io
from typing import Final

import pytest
from rich.console import Console

from tests.simulation import runner
from tests.simulation.planted import PLANTED, QUICK

SEEDS: Final = range(1, 201)
# Late ones and calm ones, with deaths, failures and several people at once among them; then after others than before.
TWICE: Final = (9, 30, 56, 119)


@pytest.fixture(scope="module")
def totals() -> runner.Totals:
    """On one stage a processor: to make one costs as much as fifteen seeds."""
    quiet = Console(file=io.StringIO())
    return runner.simulate([*SEEDS, *TWICE], planted=QUICK, workers=2, console=quiet, minutes=8)


@pytest.mark.slow
def test_whatever_goes_wrong_in_two_hundred_cycles_no_promise_to_candidates_or_offices_is_broken(
    totals: runner.Totals,
) -> None:
    said = io.StringIO()
    runner.show(totals, Console(file=said, width=120))
    print(f"seeds {SEEDS.start} to {SEEDS.stop - 1}")
    assert not totals.failures, said.getvalue()
    assert set(totals.traces) == set(SEEDS), f"only {len(totals.traces)} were played\n{said.getvalue()}"
    assert not totals.missed, said.getvalue()
    assert totals.late > totals.seeds / 8
    assert totals.looks > 3 * totals.seeds


def test_a_seed_plays_out_the_same_whatever_was_played_before_it(totals: runner.Totals) -> None:
    assert totals.seeds == len(SEEDS) + len(TWICE)
    differing = totals.differing
    assert not differing, f"these did not repeat: {differing}; make simulate SEED={differing[0]}"
    assert len({trace for seed in TWICE for trace in totals.traces[seed]}) == len(TWICE)


@pytest.mark.parametrize("name", QUICK)
def test_a_protection_that_is_gone_is_missed_at_once_and_by_name(name: str, totals: runner.Totals) -> None:
    PLANTED[name].check(totals.found[name])
