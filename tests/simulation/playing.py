"""One seed on a stage, and what it came to."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tests.simulation.chance import Chance
from tests.simulation.run import Run, Told
from tests.simulation.stage import Stage, stage_of_its_own
from tests.support import plays

T = TypeVar("T")


def on_a_stage(work: Callable[[Stage], Awaitable[T]]) -> T:
    """Run it on a stage of its own, in this process."""
    return plays.played_on(stage_of_its_own(), work)


async def attempt(one: Stage, seed: int, plan: dict[int, int] | None = None) -> tuple[Run, Told | str]:
    """A run and what it came to: its outcome, or what was violated or went wrong."""
    run = Run(one, seed, Chance(seed, plan))
    return run, await plays.outcome_of(run.play())


def digest(run: Run, outcome: Told | str) -> str:
    """Of everything that happened in it."""
    told = outcome if isinstance(outcome, str) else outcome.digest
    return hashlib.sha256("\n".join((*run.trace, told)).encode()).hexdigest()
