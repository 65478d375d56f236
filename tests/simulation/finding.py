"""Does the simulation find a bug? A mutation takes one protection away, seeds are played until an invariant names it.

    from tests.simulation.finding import find

    found = find(mutation, range(1, 301))

`mutation` makes a context manager that takes the protection away while it is entered (`unittest.mock.patch.object(...)`,
or a function under `contextlib.contextmanager`). It is entered once for all seeds, in this process, after the services
were put together: patch what they look up when they run (`services.chassis.inbox.claim`, a statement of a module), not
what was bound before. Returns None when no seed broke anything. `find` starts a PostgreSQL of its own and an event loop: call
it from a plain test, not from an async one. Several mutations share a stage through `find_each`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.simulation.playing import attempt, on_a_stage
from tests.simulation.stage import Stage
from tests.support.switched_off import Mutation

_NAME = re.compile(r"(I\d+|model)\b")


@dataclass(frozen=True, slots=True)
class Found:
    """The first seed that broke something."""

    seed: int
    played: int
    """How many seeds it took."""
    invariants: frozenset[str]
    """The names of all that it broke: I1 to I17, or `model`. Empty when a service raised where it must not."""
    violation: str


def find(mutation: Mutation, seeds: Iterable[int]) -> Found | None:
    """The first of these seeds that breaks an invariant, once this protection is gone."""
    return find_each({"": mutation}, seeds)[""]


def find_each(mutations: Mapping[str, Mutation], seeds: Iterable[int]) -> dict[str, Found | None]:
    """The same for several, one after the other."""
    every = tuple(seeds)

    async def look(stage: Stage) -> dict[str, Found | None]:
        return {name: await first(stage, mutation, every) for name, mutation in mutations.items()}

    return on_a_stage(look)


async def first(stage: Stage, mutation: Mutation, seeds: Iterable[int]) -> Found | None:
    """As `find`, on a stage that is there."""
    with mutation():
        for played, seed in enumerate(seeds, start=1):
            _, outcome = await attempt(stage, seed)
            if isinstance(outcome, str):
                named = (_NAME.match(line) for line in outcome.splitlines())
                return Found(seed, played, frozenset(one[1] for one in named if one), outcome)
    return None
