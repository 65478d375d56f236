"""Which of several carriers of SMS gets the next message: by shares, which fall when one fails and drift back by themselves.

Only a fall is written down; what a share is at some moment follows from it, so that every process comes to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

FLOOR: Final = 2.0  # per cent: enough to notice that it works again
STEP: Final = 5.0  # per cent that come back
EVERY: Final = timedelta(minutes=1)
REST: Final = timedelta(minutes=5)  # after the last failure, before anything comes back
ENOUGH: Final = 5  # tries to judge by
POOR: Final = 0.25  # of them failed or slow: half of its share goes elsewhere
DEAD: Final = 0.8  # of them: all but the floor
SLOW: Final = timedelta(seconds=2)
PAUSE: Final = timedelta(seconds=30)  # a dead one is left alone, every time twice as long
LONGEST_PAUSE: Final = timedelta(minutes=5)
FAILOVER_AFTER: Final = timedelta(seconds=1)  # it surely did not take the message: the other one is tried


@dataclass(frozen=True, slots=True)
class Tally:
    """Tries at one carrier and what came of them."""

    tries: int = 0
    failed: int = 0  # no answer, a fault of its own, throttled
    slow: int = 0  # an answer, but late

    @property
    def bad(self) -> float:
        return (self.failed + self.slow) / self.tries if self.tries else 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.tries + other.tries, self.failed + other.failed, self.slow + other.slow)


@dataclass(frozen=True, slots=True)
class Health:
    """One carrier as all processes know it. `share` is what it was left with when it last fell, at `fell_at`."""

    name: str
    configured: float
    share: float
    fell_at: datetime | None = None
    paused_until: datetime | None = None
    strikes: int = 0  # how often in a row it was found dead

    def share_at(self, at: datetime) -> float:
        """Its share at a moment, in per cent; nothing while it is paused."""
        if self.paused_until is not None and at < self.paused_until:
            return 0.0
        if self.fell_at is None:
            return self.configured
        since = max(self.fell_at, self.paused_until or self.fell_at)
        steps = max((at - since - REST) // EVERY + 1, 0) if at >= since + REST else 0
        return min(self.configured, self.share + STEP * steps)

    def judged(self, tally: Tally, at: datetime) -> Health | None:
        """What it has become after these tries; None: as it was."""
        share = self.share_at(at)
        at_floor = self.fell_at is not None and share <= FLOOR
        if tally.bad >= DEAD and (tally.tries >= ENOUGH or at_floor):
            pause = min(PAUSE * 2 ** min(self.strikes, 8), LONGEST_PAUSE)
            return replace(
                self,
                share=min(FLOOR, self.configured),
                fell_at=at,
                paused_until=at + pause,
                strikes=self.strikes + 1,
            )
        if tally.bad >= POOR and tally.tries >= ENOUGH:
            return replace(
                self, share=max(share / 2, min(FLOOR, self.configured)), fell_at=at, paused_until=None
            )
        if self.strikes and tally.tries and not tally.failed:
            return replace(self, strikes=0)
        return None


class Turns:
    """Whose turn it is: smooth and in proportion, so that of any hundred messages each carrier gets its share."""

    def __init__(self) -> None:
        self._owed: dict[str, float] = {}

    def next(self, shares: Mapping[str, float]) -> str | None:
        """The one that is owed most; None: nobody has a share."""
        open_ones = {name: share for name, share in shares.items() if share > 0}
        if not open_ones:
            return None
        for name, share in open_ones.items():
            self._owed[name] = self._owed.get(name, 0.0) + share
        chosen = max(open_ones, key=lambda name: self._owed[name])
        self._owed[chosen] -= sum(open_ones.values())
        return chosen


def order_of_choice(
    turns: Turns, health: Sequence[Health], at: datetime, failed_at: str | None
) -> tuple[list[str], datetime | None]:
    """The carriers that may be tried now, the one whose turn it is first. If none may: when one may again.

    `failed_at`: the one that surely did not take this message; it is tried last. A carrier that is alone is never paused.
    """
    if len(health) == 1:
        return [health[0].name], None
    shares = {one.name: one.share_at(at) for one in health}
    others = {name: share for name, share in shares.items() if name != failed_at}
    first = turns.next(others) or turns.next(shares)
    if first is None:
        return [], min(one.paused_until for one in health if one.paused_until is not None)
    rest = sorted(
        (name for name, share in shares.items() if share > 0 and name != first), key=lambda n: -shares[n]
    )
    return [
        first,
        *(name for name in rest if name != failed_at),
        *(name for name in rest if name == failed_at),
    ], None


def shares_of(configured: Mapping[str, float], known: Iterable[Health]) -> list[Health]:
    """The carriers that there are now, each with what is known of it."""
    remembered = {one.name: one for one in known}
    return [
        replace(remembered[name], configured=share)
        if name in remembered
        else Health(name, configured=share, share=share)
        for name, share in configured.items()
    ]
