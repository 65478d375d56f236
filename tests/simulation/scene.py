"""What every part of a run shares: who plays, when it is, what is to come, what has gone wrong so far."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from tests.simulation.broker import SimulatedMember
from tests.simulation.chance import Chance
from tests.simulation.mood import Mood
from tests.simulation.stage import Stage
from tests.support.plays import Violation

MOST_ACTIONS: Final = 6000

Do = Callable[[], Awaitable[None]]


@dataclass
class Scene:
    stage: Stage
    seed: int
    chance: Chance
    mood: Mood = field(default_factory=Mood)
    late: bool = False
    """Whether time passed over work that waited: then the rules alone do not say what becomes of people."""
    members: dict[str, SimulatedMember] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    """Services in which an event waits to be replayed, perhaps."""
    before_replay: Callable[[str], Awaitable[None]] | None = None
    """A last look at what is parked in a service."""
    excused: int = 0
    """Records on topics that may be copies: sent, and not known to have arrived or not written down in time."""
    actions: int = 0
    trace: list[str] = field(default_factory=list)
    agenda: list[tuple[datetime, int, str, Do]] = field(default_factory=list)
    """What the outside has still to do: moment, number, name, and how."""
    _numbers: Any = field(default_factory=itertools.count)

    def now(self) -> datetime:
        """The true time."""
        return self.stage.control.now()

    def later(self, at: datetime, what: str, do: Do) -> None:
        heapq.heappush(self.agenda, (at, next(self._numbers), what, do))

    def note(self, what: str) -> None:
        """One more action."""
        self.actions += 1
        self.trace.append(f"{self.now():%m-%d %H:%M:%S} {what}")
        if self.actions > MOST_ACTIONS:
            raise Violation("I11: the streams do not come to rest")
