"""Windows of time: half-open, with offsets, in one or more intervals, perhaps only at hours of the day."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Annotated, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

_SPAN = re.compile(r"([1-9][0-9]{0,4})([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


def _utc_text(moment: datetime) -> str:
    # One spelling per instant: the fingerprint must not depend on the offset a moment was written with.
    return moment.astimezone(UTC).isoformat()


def _span(value: object) -> object:
    """7d, 6h, 2m: how people write a span, and how it stands in a cycle file."""
    if isinstance(value, timedelta):
        return value
    match = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise PydanticCustomError("span", "not a span of time such as 7d, 6h or 30m")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


Moment = Annotated[
    AwareDatetime, Field(strict=True), PlainSerializer(_utc_text, return_type=str, when_used="json")
]
Span = Annotated[timedelta, BeforeValidator(_span)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(Frozen):
    opens: Moment
    closes: Moment

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.closes <= self.opens:
            raise PydanticCustomError("interval_order", "closes at or before it opens")
        return self


class DailyHours(Frozen):
    """Within an interval, open only between these two clock times of each day."""

    opens: Annotated[time, Field(strict=True)]
    closes: Annotated[time, Field(strict=True)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.closes <= self.opens:
            raise PydanticCustomError("interval_order", "closes at or before it opens")
        return self


class Window(Frozen):
    """When something may be done. In a file `told_closes` is the close people read, if not the enforced one."""

    intervals: Annotated[tuple[Interval, ...], Field(min_length=1)]
    daily: DailyHours | None = None
    told: Annotated[Moment | None, Field(alias="told_closes")] = None

    # The intervals with the daily hours cut out; what every question below is answered from.
    _spans: tuple[tuple[datetime, datetime], ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _cut(self, info: ValidationInfo) -> Self:
        for earlier, later in zip(self.intervals, self.intervals[1:], strict=False):
            if later.opens < earlier.closes:
                raise PydanticCustomError("intervals_overlap", "the intervals overlap or are not in order")
        zone: tzinfo = (info.context or {}).get("zone") or self.intervals[0].opens.tzinfo or UTC
        # In one zone of the standard library: moments with Pydantic's own compare ten times slower.
        self._spans = tuple(
            (opens.astimezone(zone), closes.astimezone(zone)) for opens, closes in self._opened(zone)
        )
        if not self._spans:
            raise PydanticCustomError("never_open", "the daily hours leave no moment at which this is open")
        if self.told is not None and self.told <= self.opens:
            raise PydanticCustomError("interval_order", "told_closes is at or before the opening")
        return self

    def _opened(self, zone: tzinfo) -> Iterator[tuple[datetime, datetime]]:
        for interval in self.intervals:
            if self.daily is None:
                yield interval.opens, interval.closes
                continue
            day = interval.opens.astimezone(zone).date()
            while day <= interval.closes.astimezone(zone).date():
                opens = max(datetime.combine(day, self.daily.opens, zone), interval.opens)
                closes = min(datetime.combine(day, self.daily.closes, zone), interval.closes)
                if opens < closes:
                    yield opens, closes
                day += timedelta(days=1)

    @property
    def opens(self) -> datetime:
        """The first moment at which it is open."""
        return self._spans[0][0]

    @property
    def closes(self) -> datetime:
        """The first moment after which it is never open again: what is enforced."""
        return self._spans[-1][1]

    @property
    def told_closes(self) -> datetime:
        """The close that people read and reminders name."""
        return self.told or self.closes

    @property
    def spans(self) -> tuple[tuple[datetime, datetime], ...]:
        """Every [opens, closes) at which it is open, daily hours cut out."""
        return self._spans

    def is_open(self, at: datetime) -> bool:
        return any(opens <= at < closes for opens, closes in self._spans)

    def has_closed(self, at: datetime) -> bool:
        return at >= self.closes

    def not_yet_open(self, at: datetime) -> bool:
        return at < self.opens


MAY_COST_PER_MILLE = 10


class MovableWindow(Window):
    """A window that two people of the office may move."""

    # An earlier close is refused when it would cost more of its people their time. As the default it is not part of what
    # a file says: its fingerprint stays what it was.
    earlier_close_may_cost_per_mille: Annotated[
        int, Field(strict=True, ge=0, le=1000, exclude_if=lambda value: value == MAY_COST_PER_MILLE)
    ] = MAY_COST_PER_MILLE


class PaymentWindow(MovableWindow):
    no_orders_before_close: Span
    reminders: tuple[Span, ...]

    @model_validator(mode="after")
    def _reminders_in_order(self) -> Self:
        if list(self.reminders) != sorted(set(self.reminders), reverse=True):
            raise PydanticCustomError("reminders_order", "not from the longest to the shortest")
        return self

    @property
    def last_order_at(self) -> datetime:
        """From this moment on no new order is made."""
        return self.closes - self.no_orders_before_close


class Windows(Frozen):
    pre_registration: Window
    confirmation: MovableWindow
    payment: PaymentWindow
    results: Window


class QuietHours(Frozen):
    """Hours of the night in which nobody is sent an SMS. May run over midnight."""

    starts: Annotated[time, Field(strict=True)]
    ends: Annotated[time, Field(strict=True)]

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.starts == self.ends:
            raise PydanticCustomError("quiet_hours", "quiet hours start when they end")
        return self

    def cover(self, clock: time) -> bool:
        if self.starts < self.ends:
            return self.starts <= clock < self.ends
        return clock >= self.starts or clock < self.ends
