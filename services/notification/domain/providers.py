"""Which of several carriers of SMS gets the next message: by shares, which fall at once when one fails and rise by evidence only.

    well ── fails ──► paused ── its pause is over ──► waiting ── its probes are answered ──► rising ──► well
      │                 ▲ ▲                              │                                    │ ▲
      │                 │ └───────── a probe fails ──────┘                                    │ │
      │                 └──────────────────────────── fails ──────────────────────────────────┤ │
      └── fails partly: half of its share goes elsewhere ─────────────────────────────────────┴─┘

No time that passes brings a message to a carrier that nothing is known of: while it is `waiting`, a few messages at a time
(of all processes together) are its test, and everybody else goes to the others. From then on its share doubles with each
minute in which it answered well. Every process comes to the same: what a carrier is lies in the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

FLOOR: Final = 2.0  # per cent: what one begins with whose probes were answered, and what a poor one keeps
PROBES: Final = 3  # messages at a time that try a fallen one
PROBING: Final = timedelta(seconds=30)  # their answers are awaited so long; then others may be sent
EVERY: Final = timedelta(minutes=1)  # between two steps of a rise, each of which doubles the share
REST: Final = timedelta(minutes=5)  # after a poor one's last fall, before the first step
ENOUGH: Final = 5  # tries to judge by
POOR: Final = 0.25  # of them failed or slow: half of its share goes elsewhere
DEAD: Final = 0.8  # of them: nothing goes there any more
GOOD: Final = 0.1  # at most so many of them, and its share may rise
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


class Circuit(StrEnum):
    """How a carrier stands."""

    WELL = "well"
    PAUSED = "paused"  # left alone, or its probes are out
    WAITING = "waiting"  # the next messages try it
    RISING = "rising"  # it carries less than its share


@dataclass(frozen=True, slots=True)
class Health:
    """One carrier as all processes know it.

    `share`: since it fell at `fell_at`, last raised at `rose_at`. `paused_until`: until its probes are answered nothing else
    goes there, and they not before then.
    """

    name: str
    configured: float
    share: float
    fell_at: datetime | None = None
    paused_until: datetime | None = None
    strikes: int = 0  # how often it was found dead since it was well
    rose_at: datetime | None = None

    @property
    def share_now(self) -> float:
        """Its share in per cent; nothing while it is paused or waits for its probes."""
        if self.fell_at is None:
            return self.configured
        return 0.0 if self.paused_until is not None else min(self.configured, self.share)

    @property
    def since(self) -> datetime | None:
        """What was sent there at that moment or before says nothing about it any more."""
        return self.rose_at or self.fell_at

    def circuit(self, at: datetime) -> Circuit:
        """How it stands at a moment."""
        if self.fell_at is None:
            return Circuit.WELL
        if self.paused_until is None:
            return Circuit.RISING
        return Circuit.PAUSED if at < self.paused_until else Circuit.WAITING

    def free_at(self, at: datetime) -> datetime:
        """When to look again for one that takes nothing now."""
        return max(self.paused_until or at, at) if self.circuit(at) is Circuit.PAUSED else at + PROBING

    def judged(self, tally: Tally, at: datetime) -> Health | None:
        """What it has become after these tries, all of them sent after `since`; None: as it was."""
        if not tally.tries:
            return None
        if self.fell_at is not None and self.paused_until is not None:
            return self._dead(at) if tally.bad else self._raised(FLOOR, at)
        at_floor = self.fell_at is not None and self.share <= FLOOR
        if tally.bad >= DEAD and (tally.tries >= ENOUGH or at_floor):
            return self._dead(at)
        if tally.bad >= POOR and tally.tries >= ENOUGH:
            half = max(self.share_now / 2, min(FLOOR, self.configured))
            return replace(self, share=half, fell_at=at, rose_at=None)
        if self.fell_at is not None and tally.bad <= GOOD and at >= self._step_at(self.fell_at):
            return self._raised(self.share * 2, at)
        return None

    def _step_at(self, fell_at: datetime) -> datetime:
        return fell_at + REST if self.rose_at is None else self.rose_at + EVERY

    def _dead(self, at: datetime) -> Health:
        pause = min(PAUSE * 2 ** min(self.strikes, 8), LONGEST_PAUSE)
        return replace(
            self,
            share=min(FLOOR, self.configured),
            fell_at=at,
            paused_until=at + pause,
            strikes=self.strikes + 1,
            rose_at=None,
        )

    def _raised(self, share: float, at: datetime) -> Health:
        if share >= self.configured:
            return Health(self.name, self.configured, self.configured)
        return replace(self, share=share, paused_until=None, rose_at=at)


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


def order_of_choice(turns: Turns, health: Sequence[Health], failed_at: str | None) -> list[str]:
    """The carriers that have a share now, the one whose turn it is first.

    `failed_at`: the one that surely did not take this message; it is tried last.
    """
    shares = {one.name: one.share_now for one in health}
    others = {name: share for name, share in shares.items() if name != failed_at}
    first = turns.next(others) or turns.next(shares)
    if first is None:
        return []
    rest = sorted(
        (name for name, share in shares.items() if share > 0 and name != first), key=lambda n: -shares[n]
    )
    return [
        first,
        *(name for name in rest if name != failed_at),
        *(name for name in rest if name == failed_at),
    ]


def shares_of(configured: Mapping[str, float], known: Iterable[Health]) -> list[Health]:
    """The carriers that there are now, each with what is known of it. One that is alone has everything, whatever it did."""
    remembered = {one.name: one for one in known} if len(configured) > 1 else {}
    return [
        replace(remembered[name], configured=share)
        if name in remembered
        else Health(name, configured=share, share=share)
        for name, share in configured.items()
    ]
