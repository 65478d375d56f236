"""How a simulated outside fails when told to: for a while of clock time, in one of several ways."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from services.chassis.clock import Clock


class Outage(StrEnum):
    REFUSE = "refuse"  # nothing is done, 503
    LOSE = "lose"  # it is done, but the answer is lost: 502 instead
    HANG = "hang"  # no answer at all within anybody's patience
    # Carriers of SMS only
    SWALLOW = "swallow"  # it is done, then no answer at all
    SLOW = "slow"  # it is done, but the answer takes seconds


class Weather:
    """Whether it is down now, how, and until when."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: datetime | None = None
        self._how = Outage.REFUSE
        self.reached = 0
        """Calls that met the outage: the proof that a fault was really reached."""

    def bring(self, seconds: float, how: Outage) -> datetime:
        self._until = self._clock.now() + timedelta(seconds=seconds)
        self._how = how
        return self._until

    @property
    def until(self) -> datetime | None:
        """The end of an outage that lasts now."""
        if self._until is not None and self._clock.now() < self._until:
            return self._until
        return None

    def meet(self) -> Outage | None:
        """The outage that a call made now meets."""
        if self.until is None:
            return None
        self.reached += 1
        return self._how
