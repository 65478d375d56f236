"""Windows to the microsecond: half-open, in intervals, at certain hours."""

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.cycle import Interval, PaymentWindow, QuietHours, Window

SHANGHAI = ZoneInfo("Asia/Shanghai")
TICK = timedelta(microseconds=1)
OPENS = datetime(2024, 1, 29, tzinfo=SHANGHAI)
CLOSES = datetime(2024, 2, 9, tzinfo=SHANGHAI)


def window(*intervals: tuple[datetime, datetime], **more: Any) -> Window:
    data = {"intervals": [{"opens": opens, "closes": closes} for opens, closes in intervals], **more}
    return Window.model_validate(data, context={"zone": SHANGHAI})


def day(number: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2023, 12, number, hour, minute, tzinfo=SHANGHAI)


def test_a_window_opens_at_its_first_moment_and_is_closed_at_its_last() -> None:
    payment = window((OPENS, CLOSES))
    assert not payment.is_open(OPENS - TICK)
    assert payment.is_open(OPENS)
    assert payment.is_open(CLOSES - TICK)
    assert not payment.is_open(CLOSES)
    assert payment.not_yet_open(OPENS - TICK)
    assert not payment.not_yet_open(OPENS)
    assert not payment.has_closed(CLOSES - TICK)
    assert payment.has_closed(CLOSES)


@given(st.datetimes(min_value=datetime(2024, 1, 1), max_value=datetime(2024, 3, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_at_any_moment_one_of_three_is_true(at: datetime) -> None:
    payment = window((OPENS, CLOSES))
    assert [payment.not_yet_open(at), payment.is_open(at), payment.has_closed(at)].count(True) == 1


def test_between_two_intervals_it_is_neither_unopened_nor_over() -> None:
    twice = window((day(1), day(3)), (day(5), day(6)))
    assert (twice.opens, twice.closes) == (day(1), day(6))
    assert twice.is_open(day(3) - TICK)
    assert not twice.is_open(day(3))
    assert not twice.is_open(day(5) - TICK)
    assert twice.is_open(day(5))
    assert not twice.not_yet_open(day(4))
    assert not twice.has_closed(day(4))


def test_adjacent_intervals_are_allowed_and_overlapping_or_unsorted_ones_are_not() -> None:
    assert window((day(1), day(3)), (day(3), day(4))).is_open(day(3))
    for second in ((day(3) - TICK, day(4)), (day(1), day(2))):
        with pytest.raises(ValidationError, match="overlap or are not in order"):
            window((day(2), day(3)), second)


def test_daily_hours_are_cut_out_of_every_day() -> None:
    office = window((day(8), day(14, 12)), daily={"opens": time(9), "closes": time(17, 30)})
    assert office.opens == day(8, 9)
    assert office.closes == day(14, 12)
    assert len(office.spans) == 7
    assert not office.is_open(day(9, 9) - TICK)
    assert office.is_open(day(9, 9))
    assert office.is_open(day(9, 17, 30) - TICK)
    assert not office.is_open(day(9, 17, 30))
    assert not office.is_open(day(12, 23))
    assert not office.has_closed(day(13, 20))
    assert office.is_open(day(14, 12) - TICK)
    assert not office.is_open(day(14, 12))


def test_daily_hours_are_those_of_the_cycle_not_of_the_offset_a_moment_was_written_in() -> None:
    in_utc = window(
        (day(8).astimezone(UTC), day(9).astimezone(UTC)), daily={"opens": time(9), "closes": time(12)}
    )
    assert in_utc.spans == ((day(8, 9), day(8, 12)),)


def test_a_window_that_is_never_open_is_refused() -> None:
    with pytest.raises(ValidationError, match="leave no moment"):
        window((day(8, 18), day(9, 8)), daily={"opens": time(9), "closes": time(17)})


def test_a_window_ends_after_it_opens() -> None:
    for closes in (day(8), day(8) - TICK):
        with pytest.raises(ValidationError, match="closes at or before it opens"):
            Interval(opens=day(8), closes=closes)
    assert Interval(opens=day(8), closes=day(8) + TICK).closes == day(8) + TICK


def test_the_told_close_is_the_enforced_one_unless_it_is_given() -> None:
    assert window((OPENS, CLOSES)).told_closes == CLOSES
    told = CLOSES - timedelta(minutes=10)
    graced = window((OPENS, CLOSES), told_closes=told)
    assert (graced.told_closes, graced.closes) == (told, CLOSES)
    with pytest.raises(ValidationError, match="told_closes is at or before"):
        window((OPENS, CLOSES), told_closes=OPENS)


def test_a_window_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        window((OPENS, CLOSES)).intervals = ()  # type: ignore[misc]  # that it cannot is what is tested


def payment_window(**more: Any) -> PaymentWindow:
    return PaymentWindow.model_validate(
        {
            "intervals": [{"opens": OPENS, "closes": CLOSES}],
            "no_orders_before_close": "2m",
            "reminders": ["7d", "2h"],
            **more,
        }
    )


def test_spans_are_written_as_people_write_them() -> None:
    payment = payment_window()
    assert payment.reminders == (timedelta(days=7), timedelta(hours=2))
    assert payment.last_order_at == CLOSES - timedelta(minutes=2)


@pytest.mark.parametrize("span", ["", "7", "d", "7 d", "-1d", "0h", "1w", "1.5h", 7, None, "123456d", "7天"])
def test_what_is_no_span_is_refused(span: object) -> None:
    with pytest.raises(ValidationError, match="not a span of time"):
        payment_window(no_orders_before_close=span)


@pytest.mark.parametrize("reminders", [["2h", "7d"], ["2h", "2h"], ["24h", "1d"]])
def test_reminders_come_longest_first_and_once(reminders: list[str]) -> None:
    with pytest.raises(ValidationError, match="longest to the shortest"):
        payment_window(reminders=reminders)


@pytest.mark.parametrize(
    ("starts", "ends", "clock", "quiet"),
    [
        (time(22), time(8), time(21, 59, 59, 999999), False),
        (time(22), time(8), time(22), True),
        (time(22), time(8), time(0), True),
        (time(22), time(8), time(7, 59, 59, 999999), True),
        (time(22), time(8), time(8), False),
        (time(12), time(14), time(12), True),
        (time(12), time(14), time(14), False),
        (time(12), time(14), time(0), False),
    ],
)
def test_quiet_hours_may_run_over_midnight(starts: time, ends: time, clock: time, quiet: bool) -> None:
    assert QuietHours(starts=starts, ends=ends).cover(clock) is quiet
