"""Shrinking keeps what breaks the rule and lets go of the rest."""

from __future__ import annotations

import random
from collections.abc import Mapping

from tests.simulation.shrink import shrunk


async def test_what_the_failure_does_not_need_goes() -> None:
    noise = random.Random(7)
    plan = {position: noise.randrange(1, 9) for position in range(0, 900, 3)}

    async def fails(shorter: Mapping[int, int]) -> bool:
        return {90, 300, 303} <= shorter.keys()

    small = await shrunk(plan, fails)
    assert small == {position: plan[position] for position in (90, 300, 303)}


async def test_what_comes_back_always_failed_even_when_tries_run_out() -> None:
    """Failing is not monotonous here, and there is no time to look for the shortest."""
    failed = [dict.fromkeys(range(40), 1)]

    async def fails(shorter: Mapping[int, int]) -> bool:
        verdict = {2, 5} <= shorter.keys() and len(shorter) % 2 == 0
        failed.extend([dict(shorter)] * verdict)
        return verdict

    for tries in range(12):
        assert await shrunk(failed[0], fails, tries=tries) in failed
