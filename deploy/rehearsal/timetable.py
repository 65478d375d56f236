"""When people of a crowd come: days, hours and desks of one cycle, with the peaks that offices know."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, time, timedelta
from itertools import accumulate
from typing import ClassVar, Generic, TypeVar
from zoneinfo import ZoneInfo

from contracts.cycle import Cycle, Site, Specialty, Window

DESK_HOURS = (
    time(9),
    time(9, 30),
    time(10),
    time(10, 30),
    time(11),
    time(11, 30),
    time(14),
    time(14, 30),
    time(15),
    time(15, 30),
    time(16),
    time(16, 30),
)
# Share of a day's visits by hour, at home or at work: desk hours and the evening.
HOUR_WEIGHTS = {
    8: 3,
    9: 9,
    10: 10,
    11: 6,
    12: 4,
    13: 3,
    14: 7,
    15: 8,
    16: 7,
    17: 4,
    18: 3,
    19: 6,
    20: 9,
    21: 8,
    22: 4,
    23: 1,
}
LEVEL_SHARES = {"junior-assistant": 0.22, "junior": 0.4, "intermediate": 0.38}
POPULAR = {
    "护理": 14.0,
    "药学": 4.0,
    "中药": 3.0,
    "检验": 3.0,
    "全科": 4.0,
    "内科": 3.0,
    "中医": 2.0,
    "口腔": 2.0,
}


T = TypeVar("T")


class Calendar:
    QUARTER: ClassVar[timedelta] = timedelta(minutes=15)

    def __init__(self, cycle: Cycle) -> None:
        self.cycle = cycle
        self.zone = ZoneInfo(cycle.time_zone)
        self.opens = cycle.windows.pre_registration.opens
        self._sites = _Shares(
            cycle.sites, [_site_weight(site, first=not n) for n, site in enumerate(cycle.sites)]
        )
        offered = [one for one in cycle.specialties if one.code and one.level in LEVEL_SHARES]
        self._specialties = _Shares(tuple(offered), _specialty_weights(offered))
        self._arrivals: dict[tuple[datetime, datetime], _Shares[datetime]] = {}

    def site(self, chance: random.Random) -> Site:
        return self._sites.draw(chance)

    def specialty(self, chance: random.Random) -> Specialty:
        return self._specialties.draw(chance)

    def local(self, at: datetime) -> datetime:
        return at.astimezone(self.zone)

    def grid(self, at: datetime) -> datetime:
        at = self.local(at)
        return at.replace(minute=at.minute // 15 * 15, second=0, microsecond=0)

    def end_of_day(self, at: datetime) -> datetime:
        day = self.local(at).date() + timedelta(days=1)
        return datetime.combine(day, time(), self.zone)

    def before(self, window: Window, chance: random.Random) -> datetime:
        """Too early: the evening before the opening."""
        return self.local(window.opens - self.QUARTER * chance.randint(1, 16))

    def after(self, window: Window, chance: random.Random) -> datetime:
        return self.local(window.closes + self.QUARTER * chance.randint(0, 60))

    def arrival(
        self, window: Window, chance: random.Random, closes: datetime, not_before: datetime | None = None
    ) -> datetime:
        """A quarter hour inside the window: many on the first day, more on the last ones, in the hours people have."""
        opens = window.opens if not_before is None else max(window.opens, not_before + timedelta(hours=2))
        closes = min(closes, window.closes)
        key = (opens, closes)
        if key not in self._arrivals:
            self._arrivals[key] = self._slots(opens, closes)
        return self._arrivals[key].draw(chance)

    def _slots(self, opens: datetime, closes: datetime) -> _Shares[datetime]:
        days = max(1, (self.local(closes - self.QUARTER).date() - self.local(opens).date()).days + 1)
        slots, weights = [], []
        at = self.grid(opens) if self.grid(opens) >= opens else self.grid(opens) + self.QUARTER
        first_day = self.local(opens).date()
        while at < closes:
            if at.hour not in HOUR_WEIGHTS:
                at += self.QUARTER
                continue
            day = (at.date() - first_day).days
            first, last = (
                1.8 * (day == 0) + 0.5 * (day == 1),
                1.6 * (day == days - 1) + 0.9 * (day == days - 2),
            )
            weekend = 0.75 if at.weekday() >= 5 else 1.0
            weight = HOUR_WEIGHTS[at.hour] * (1 + first + last) * weekend
            # The hour will do on ordinary days; the rush of the first and the last one is told by the quarter.
            if weight and (at.minute == 0 or day in (0, days - 1)):
                slots.append(at)
                weights.append(weight)
            at += self.QUARTER
        return _Shares(tuple(slots), weights)

    # Desks

    def desk_window(self, site: Site) -> tuple[datetime, datetime]:
        if site.window is None:
            return self.late_window()
        return site.window.opens, site.window.closes

    def window_named_at(self) -> datetime:
        window = self.cycle.windows.confirmation
        middle = self.grid(window.opens + (window.closes - window.opens) / 2)
        return middle.replace(hour=17, minute=0)

    def late_window(self) -> tuple[datetime, datetime]:
        """What an undated desk is given: from the second day after the naming to a day before the overall close."""
        opens = self.end_of_day(self.window_named_at() + timedelta(days=1))
        return opens, self.end_of_day(self.cycle.windows.confirmation.closes - timedelta(days=1, hours=1))

    def before_named(self, chance: random.Random) -> datetime:
        return self.window_named_at().replace(hour=chance.choice((9, 10, 11, 15)))

    def is_dead_end(self, site: Site) -> bool:
        return self.desk_window(site)[1] < self.cycle.windows.pre_registration.closes

    def reachable(self, site: Site, at: datetime) -> bool:
        return at < self.desk_window(site)[1]

    def last_useful(self, site: Site) -> datetime:
        """People who know their desk's days register by the last morning."""
        return self.desk_window(site)[1] - timedelta(hours=14)

    def after_desk(self, site: Site, chance: random.Random) -> datetime:
        closes, end = (
            self.desk_window(site)[1],
            self.cycle.windows.pre_registration.closes - timedelta(minutes=45),
        )
        slots = max(1, int((end - closes) / self.QUARTER))
        return min(self.local(closes + self.QUARTER * chance.randrange(slots)), self.local(end))

    def desk_visit(self, site: Site, ready_at: datetime, chance: random.Random) -> datetime | None:
        hours = self._desk_hours(site, ready_at + timedelta(hours=2))
        if not hours:
            return None
        return chance.choices(hours, weights=[1.6 if hour.hour < 12 else 1.0 for hour in hours])[0]

    def next_visit(self, site: Site, at: datetime) -> datetime | None:
        return next(iter(self._desk_hours(site, at + timedelta(minutes=1))), None)

    def desk_hour_after(self, at: datetime, closes: datetime) -> datetime | None:
        return next(iter(self._hours(at + timedelta(minutes=90), closes)), None)

    def _desk_hours(self, site: Site, since: datetime) -> list[datetime]:
        opens, closes = self.desk_window(site)
        return self._hours(max(opens, since), closes)

    def _hours(self, since: datetime, closes: datetime) -> list[datetime]:
        day = self.local(since).date()
        hours: list[datetime] = []
        while datetime.combine(day, time(), self.zone) < closes:
            moments = (datetime.combine(day, hour, self.zone) for hour in DESK_HOURS)
            hours.extend(at for at in moments if since <= at < closes)
            day += timedelta(days=1)
        return hours

    # Reviewers

    def review(self, level: int, chance: random.Random, late: bool = False) -> datetime:
        """Reviewers decide in batches, mornings and afternoons, one level after the other between the stages."""
        confirmed = self.cycle.windows.confirmation.closes
        payment = self.cycle.windows.payment
        if late:
            return self._office_hour(payment.opens + timedelta(days=chance.randint(1, 5)), chance)
        levels = max(1, len(self.cycle.review_levels) - 1)
        span = (payment.opens - confirmed - timedelta(days=8)) / levels
        days = max(1, min(10, span.days - 1))
        return self._office_hour(
            confirmed + timedelta(days=6) + span * level + timedelta(days=chance.randrange(days)), chance
        )

    def review_after(self, at: datetime) -> datetime:
        return self.grid(at + timedelta(days=1)).replace(hour=15, minute=30)

    def _office_hour(self, at: datetime, chance: random.Random) -> datetime:
        return self.grid(at).replace(hour=chance.choice((10, 15)), minute=30)

    def first_evening(self, chance: random.Random) -> datetime:
        return self.grid(self.cycle.windows.payment.opens).replace(hour=chance.choice((19, 20, 21)))


class _Shares(Generic[T]):
    """Draws one of several by weight; the sums are made once, not once per person."""

    def __init__(self, items: Sequence[T], weights: Sequence[float]) -> None:
        if not items:
            raise ValueError("the cycle leaves no moment, desk or specialty to choose from")
        self._items = items
        self._sums = list(accumulate(weights))

    def draw(self, chance: random.Random) -> T:
        return self._items[
            min(bisect_right(self._sums, chance.random() * self._sums[-1]), len(self._items) - 1)
        ]


def _site_weight(site: Site, first: bool) -> float:
    drawn = random.Random(f"site:{site.id}").uniform(0.5, 1.6)
    return 3.0 if first else drawn


def _specialty_weights(offered: list[Specialty]) -> list[float]:
    raw = [
        max((weight for word, weight in POPULAR.items() if word in one.name), default=1.0) for one in offered
    ]
    totals: dict[str, float] = {}
    for one, weight in zip(offered, raw, strict=True):
        totals[one.level] = totals.get(one.level, 0.0) + weight
    return [
        LEVEL_SHARES[one.level] * weight / totals[one.level] for one, weight in zip(offered, raw, strict=True)
    ]
