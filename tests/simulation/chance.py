"""Every decision of a simulated run: drawn from a seed, or read from a plan, and kept.

The decision 0 is always the calm one (nothing bad happens, the first in line goes first), so a failing run is cut down by
turning decisions into 0 for as long as it still fails.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


class Chance:
    """`plan`: position → decision, 0 where it says nothing. Without a plan the seed decides."""

    def __init__(self, seed: int, plan: Mapping[int, int] | None = None) -> None:
        self._random = random.Random(seed)
        self._plan = plan
        self.taken: list[int] = []
        self.reached: Counter[str] = Counter()
        """How often each kind of fault really happened."""

    def below(self, many: int) -> int:
        """A number from 0 to many - 1."""
        if self._plan is None:
            choice = self._random.randrange(many) if many > 1 else 0
        else:
            choice = min(self._plan.get(len(self.taken), 0), many - 1)
        self.taken.append(choice)
        return choice

    def happens(self, fault: str, per_mille: float) -> bool:
        """Whether this fault happens now; counted. Without a name it is counted where it is met, if it is."""
        if per_mille <= 0:
            return False
        if self._plan is None:
            choice = int(self._random.random() * 1000 < per_mille)
        else:
            choice = min(self._plan.get(len(self.taken), 0), 1)
        self.taken.append(choice)
        if choice and fault:
            self.reached[fault] += 1
        return bool(choice)

    def pick(self, several: Sequence[T]) -> T:
        return several[self.below(len(several))]

    @property
    def plan(self) -> dict[int, int]:
        """What was decided otherwise than calmly: enough to run the same again."""
        return {position: choice for position, choice in enumerate(self.taken) if choice}
