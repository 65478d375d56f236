"""How often a number may hear from us: the edges of each window, to the microsecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.notification.domain.limits import (
    DAY,
    Budget,
    Leaving,
    NumberLimits,
    Windows,
    start_of_day,
)
from services.notification.domain.urgency import Urgency

ZONE = ZoneInfo("Asia/Shanghai")
NOON = datetime(2024, 2, 8, 12, tzinfo=ZONE).astimezone(UTC)
LIMITS = {
    "aliyun": NumberLimits(),
    "tencent": NumberLimits(per_number=10),
}


def leaving(
    at: datetime, *, provider: str = "aliyun", number: bytes = b"n", template: str = "t", text: bytes = b"x"
) -> Leaving:
    return Leaving(provider, number, template, text, at)


def free_at(one: Leaving, *left: Leaving) -> datetime:
    return Windows(LIMITS, left, ZONE).free_at(one)


@pytest.mark.parametrize(
    ("ago", "waits"),
    [
        (timedelta(seconds=29, microseconds=999_999), timedelta(microseconds=1)),
        (timedelta(seconds=30), timedelta(0)),
        (timedelta(0), timedelta(seconds=30)),
    ],
)
def test_the_same_text_may_follow_after_thirty_seconds_not_a_microsecond_before(
    ago: timedelta, waits: timedelta
) -> None:
    assert free_at(leaving(NOON), leaving(NOON - ago)) == NOON + waits


def test_another_text_another_number_or_another_carrier_need_not_wait() -> None:
    before = leaving(NOON)
    for other in (
        leaving(NOON, text=b"y"),
        leaving(NOON, number=b"m"),
        leaving(NOON, provider="tencent"),
    ):
        assert free_at(other, before) == NOON


def test_the_fifty_first_of_one_text_waits_until_the_first_is_a_day_old() -> None:
    left = [leaving(NOON - DAY + timedelta(minutes=n + 1), text=str(n).encode()) for n in range(50)]
    assert free_at(leaving(NOON), *left) == NOON + timedelta(minutes=1)
    assert free_at(leaving(NOON), *left[1:]) == NOON
    exactly = [leaving(NOON - DAY, text=b"old"), *left[:49]]
    assert free_at(leaving(NOON), *exactly) == NOON, "what left exactly a day ago is out of the window"


def test_a_carrier_that_counts_days_of_the_calendar_is_free_again_at_midnight() -> None:
    texts = [str(n).encode() for n in range(10)]
    left = [leaving(NOON, provider="tencent", template=str(n), text=text) for n, text in enumerate(texts)]
    midnight = datetime(2024, 2, 9, tzinfo=ZONE)
    late = midnight - timedelta(microseconds=1)
    one = leaving(late.astimezone(UTC), provider="tencent")
    assert free_at(one, *left) == midnight
    assert free_at(leaving(midnight.astimezone(UTC), provider="tencent"), *left) == midnight
    assert free_at(one, *left[1:]) == late


def test_of_two_in_one_batch_the_second_waits_for_the_first() -> None:
    windows = Windows(LIMITS, (), ZONE)
    assert windows.free_at(leaving(NOON)) == NOON
    windows.leave(leaving(NOON))
    assert windows.free_at(leaving(NOON)) == NOON + timedelta(seconds=30)


@given(st.lists(st.integers(0, 200_000), max_size=80), st.integers(0, 200_000))
@example(before=[0] * 20, now=0).via("a day that was full led into another")
def test_whoever_waits_until_it_is_free_never_goes_over_a_limit(before: list[int], now: int) -> None:
    """Played as the service plays it: everything leaves when it is free, and no window ever holds too many."""
    gone: list[datetime] = []
    windows = Windows(LIMITS, (), ZONE)
    for second in sorted([*before, now]):
        one = leaving(NOON + timedelta(seconds=second), provider="tencent")
        free = windows.free_at(one)
        one = leaving(free, provider="tencent")
        if gone and free < gone[-1]:
            continue
        assert windows.free_at(one) == free, "free means free"
        windows.leave(one)
        gone.append(free)
    for moment in gone:
        same = [x for x in gone if moment - timedelta(seconds=30) < x <= moment]
        day = [x for x in gone if start_of_day(moment, ZONE) <= x <= moment]
        assert len(same) <= 1
        assert len(day) <= 10


def test_when_the_budget_is_nearly_spent_only_the_urgent_still_goes() -> None:
    budget = Budget(cap=100, spent=79)
    assert budget.allows(1, Urgency.ORDINARY)
    budget.spend(1)
    assert not budget.allows(1, Urgency.ORDINARY)
    assert not budget.allows(1, Urgency.RECORD)
    assert budget.allows(20, Urgency.FINAL)
    assert not budget.allows(21, Urgency.FINAL), "the cap is hard"
    assert Budget(cap=None, spent=10**9).allows(1, Urgency.RECORD)
