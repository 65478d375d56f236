"""Cuts a failing run down: decisions are made calm, in ever smaller groups, for as long as it still fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

Plan = Mapping[int, int]
Fails = Callable[[Plan], Awaitable[bool]]


async def shrunk(plan: Plan, fails: Fails, *, tries: int = 400) -> dict[int, int]:
    """The smallest plan found within so many runs that still fails. The plan given must fail."""
    best = dict(plan)
    size = max(1, len(best) // 2)
    while tries > 0:
        cut = False
        positions = sorted(best)
        for start in range(0, len(positions), size):
            gone = set(positions[start : start + size])
            candidate = {position: choice for position, choice in best.items() if position not in gone}
            tries -= 1
            if await fails(candidate):
                best, cut = candidate, True
            if tries <= 0:
                break
        if size == 1 and not cut:
            break
        size = max(1, size // 2)
    return best
