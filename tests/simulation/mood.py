"""How rough a run is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from tests.simulation.chance import Chance
from tests.simulation.gateway import Manners


@dataclass(frozen=True, slots=True)
class Mood:
    """Per mille of the occasions. A `late` run lets time pass over work that waits, so that people and rules may miss it."""

    late: bool = False
    people: int = 1
    delay: float = 0
    lost: float = 0
    commit_lost: float = 0
    again: float = 0
    crash: float = 0
    fail: float = 0
    refuse: float = 0
    meet: float = 0
    clocks: float = 0
    gateway: Manners = field(default_factory=Manners)
    carriers: Manners = field(default_factory=Manners)

    @classmethod
    def of(cls, chance: Chance) -> Self:
        """Some runs are calm in one respect or another, so that each kind of trouble is also met alone."""

        def rate(most: int) -> float:
            return (0, most // 4, most, most)[chance.below(4)]

        late = chance.below(4) == 3
        return cls(
            late=late,
            people=((1, 1, 1, 2), (1, 2, 3, 4))[late][chance.below(4)],
            delay=rate(150) if late else 0,
            lost=rate(80),
            commit_lost=rate(60),
            again=rate(40),
            crash=rate(40),
            fail=rate(40),
            refuse=rate(40),
            meet=rate(120),
            clocks=rate(20) if late else 0,
            gateway=Manners(away=rate(100), unheard=rate(100)) if late else Manners(unheard=rate(60)),
            carriers=Manners(rate(40), rate(40), rate(40), rate(30)) if chance.below(3) == 2 else Manners(),
        )
