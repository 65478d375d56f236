"""How many SMS one number may get, so that a carrier never has to refuse one; and how many parts a day may cost.

Windows slide and are half-open: what left exactly a window ago is out of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

from services.notification.domain.urgency import Urgency

DAY: Final = timedelta(days=1)
# Whom the cap still lets through when it stops the rest: a share of it is kept for them.
_KEPT_FOR_URGENT: Final = 0.2

Number: TypeAlias = bytes  # a blind index, never the number


@dataclass(frozen=True, slots=True)
class NumberLimits:
    """What one carrier allows one number."""

    same_text: timedelta = timedelta(seconds=30)
    per_template: int = 50  # of one text, in sliding 24 hours
    per_number: int | None = None  # of all texts, in a day of the calendar


@dataclass(frozen=True, slots=True)
class Leaving:
    """An SMS about to leave, or one that left, as limits see it."""

    provider: str
    number: Number
    template: str
    text: bytes  # a digest
    at: datetime


class Windows:
    """What left to some numbers lately. Knows when one more may leave."""

    def __init__(self, limits: Mapping[str, NumberLimits], left: Iterable[Leaving], zone: ZoneInfo) -> None:
        self._limits, self._zone = limits, zone
        self._left: dict[tuple[str, Number], list[Leaving]] = defaultdict(list)
        for one in sorted(left, key=lambda one: one.at):
            self._left[one.provider, one.number].append(one)

    def free_at(self, one: Leaving) -> datetime:
        """The first moment, from its own on, at which it may leave."""
        limits = self._limits.get(one.provider)
        earlier = self._left.get((one.provider, one.number))
        if limits is None or not earlier:
            return one.at
        same_text = [x.at for x in earlier if x.text == one.text]
        same_template = [x.at for x in earlier if x.template == one.template]
        at = one.at
        while True:
            free = max(
                at,
                _room(same_text, 1, limits.same_text, at),
                _room(same_template, limits.per_template, DAY, at),
                self._next_day(earlier, limits, at),
            )
            if free == at:
                return at
            # What one limit puts off may come under another there: a day that is full too.
            at = free

    def leave(self, one: Leaving) -> None:
        """It leaves: it counts for those after it."""
        self._left[one.provider, one.number].append(one)

    def _next_day(self, earlier: Sequence[Leaving], limits: NumberLimits, at: datetime) -> datetime:
        if limits.per_number is None:
            return at
        start = start_of_day(at, self._zone)
        today = sum(start <= x.at < start + DAY for x in earlier)
        return at if today < limits.per_number else start_of_day(start + DAY, self._zone)


def start_of_day(at: datetime, zone: ZoneInfo) -> datetime:
    """Midnight before."""
    local = at.astimezone(zone)
    return datetime.combine(local.date(), time(), zone).astimezone(at.tzinfo)


def _room(moments: Sequence[datetime], most: int, window: timedelta, at: datetime) -> datetime:
    """When fewer than `most` of these, in order, lie in the window."""
    inside = [moment for moment in moments if moment > at - window]
    return at if len(inside) < most else inside[len(inside) - most] + window


@dataclass(slots=True)
class Budget:
    """Parts that may still be paid for today."""

    cap: int | None
    spent: int

    def allows(self, parts: int, urgency: int) -> bool:
        """What is not urgent stops first, so that the last part goes to whoever would lose something."""
        if self.cap is None:
            return True
        most = self.cap if urgency == Urgency.FINAL else int(self.cap * (1 - _KEPT_FOR_URGENT))
        return self.spent + parts <= most

    def spend(self, parts: int) -> None:
        self.spent += parts
