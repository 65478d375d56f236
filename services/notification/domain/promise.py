"""The delivery promise: whoever is reminded on the last day has it confirmed six hours before the close.

Counted per person and close, however many reminders of that day they got: it is confirmed once a receipt came, or the
mailbox took the mail. How fast the error budget burns is judged over a long and a short window together: the long one says
that it matters, the short one that it is still going on (Google SRE Workbook, chapter 5, its factors 14.4 and 6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.notification.domain.life import ASK_AFTER
from services.notification.domain.urgency import LAST_DAY

CONFIRMED_BEFORE: Final = timedelta(hours=6)  # the moment itself is still in time
REMINDED_WITHIN: Final = LAST_DAY
# So long after it could go, a reminder that nothing confirms counts as lost until something does.
PATIENCE: Final = ASK_AFTER[0]


@dataclass(frozen=True, slots=True)
class Pace:
    """A speed at which the budget must not burn. `factor` 1 spends exactly all of it."""

    name: str
    long: timedelta
    short: timedelta
    factor: float


PACES: Final = (
    Pace("fast", timedelta(hours=1), timedelta(minutes=5), 14.4),
    Pace("slow", timedelta(hours=6), timedelta(minutes=30), 6.0),
)
WINDOWS: Final = tuple(sorted({window for pace in PACES for window in (pace.long, pace.short)}))


@dataclass(frozen=True, slots=True)
class Close:
    """How the people stand who were reminded of one close on its last day."""

    closes_at: datetime
    confirmed: int  # six hours before, or earlier
    by_sms: int  # of those, by an SMS's receipt
    late: int
    failed: int  # by neither channel, and none is left or it is too late
    waiting: int
    moved: int  # their close is another one by now: nothing is owed for this one

    @property
    def people(self) -> int:
        """To whom the promise is owed."""
        return self.confirmed + self.late + self.failed + self.waiting

    @property
    def promised_for(self) -> datetime:
        return self.closes_at - CONFIRMED_BEFORE

    @property
    def share(self) -> float | None:
        """Confirmed so far; None: nobody was to be reminded."""
        return self.confirmed / self.people if self.people else None

    def kept(self, goal: float) -> bool | None:
        """Whether the promise was kept; None: those who wait decide it, or there was none to keep."""
        if self.share is None:
            return None
        if self.share >= goal:
            return True
        return None if self.waiting and (self.confirmed + self.waiting) / self.people >= goal else False


@dataclass(frozen=True, slots=True)
class Count:
    """Reminders whose fate was decided within a window."""

    good: int = 0
    bad: int = 0


@dataclass(frozen=True, slots=True)
class Burn:
    """How fast the budget burns at one pace's two windows."""

    pace: Pace
    long: float
    short: float

    @property
    def burning(self) -> bool:
        return self.long >= self.pace.factor and self.short >= self.pace.factor


def burn_rate(count: Count, goal: float) -> float:
    """1 spends the budget exactly; nothing decided burns nothing."""
    decided = count.good + count.bad
    # Rounded, so that a rate that is exactly a pace's factor is not less for how a computer writes 0.99.
    return round(count.bad / decided / (1 - goal), 9) if decided else 0.0


def burns(counts: Mapping[timedelta, Count], goal: float) -> Sequence[Burn]:
    """Each pace over what was counted in its windows."""
    return [
        Burn(pace, burn_rate(counts[pace.long], goal), burn_rate(counts[pace.short], goal)) for pace in PACES
    ]
