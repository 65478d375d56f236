"""When bills are fetched, which day a moment is of, and when money balances: no database, no gateway."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from services.payment.domain.reconciling import (
    KEPT,
    Balance,
    ask_again_after,
    day_of,
    days_due,
    fetched_from,
    looked_at_again,
    next_fetch,
    none_is_final,
)

OPENS, CLOSES = datetime(2024, 1, 28, 16, tzinfo=UTC), datetime(2024, 2, 8, 16, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
FIRST = date(2024, 1, 29)


def test_midnight_in_beijing_begins_the_next_day() -> None:
    assert (day_of(OPENS - MICROSECOND), day_of(OPENS)) == (date(2024, 1, 28), FIRST)


def test_the_first_bill_is_due_at_half_past_ten_after_the_first_day() -> None:
    due = datetime(2024, 1, 30, 2, 30, tzinfo=UTC)
    assert fetched_from(FIRST) == due
    assert days_due(OPENS, CLOSES, due - MICROSECOND, ()) == []
    assert days_due(OPENS, CLOSES, due, ()) == [FIRST]
    assert next_fetch(OPENS, CLOSES, OPENS - timedelta(days=9)) == due
    assert next_fetch(OPENS, CLOSES, due - MICROSECOND) == due
    assert next_fetch(OPENS, CLOSES, due) == due + timedelta(days=1)


def test_days_that_were_missed_are_due_oldest_first_and_settled_ones_are_not() -> None:
    at = datetime(2024, 2, 1, 3, tzinfo=UTC)
    assert days_due(OPENS, CLOSES, at, {date(2024, 1, 30)}) == [FIRST, date(2024, 1, 31)]


def test_bills_are_asked_for_until_refunds_are_long_done() -> None:
    last = day_of(CLOSES + KEPT)
    end = fetched_from(last)
    assert days_due(OPENS, CLOSES, end + timedelta(days=50), ())[-1] == last
    assert next_fetch(OPENS, CLOSES, end - MICROSECOND) == end
    assert next_fetch(OPENS, CLOSES, end) is None


def test_there_is_none_counts_a_day_later() -> None:
    final = fetched_from(FIRST) + timedelta(days=1)
    assert not none_is_final(FIRST, final - MICROSECOND)
    assert none_is_final(FIRST, final)


def test_a_bill_is_looked_at_again_after_one_two_three_and_seven_days() -> None:
    at, found = fetched_from(FIRST), []
    while (again := looked_at_again(FIRST, at)) is not None:
        assert looked_at_again(FIRST, again - MICROSECOND) == again
        at = again
        found.append((again - fetched_from(FIRST)).days)
    assert found == [1, 2, 3, 7]


def test_the_wait_grows_and_then_stays() -> None:
    waits = [ask_again_after(attempts).total_seconds() / 60 for attempts in range(8)]
    assert waits == [30, 30, 30, 60, 120, 240, 240, 240]


@pytest.mark.parametrize("field", ["received", "fees", "refunded", "due", "held", "owed"])
def test_a_fen_too_many_anywhere_and_it_does_not_balance(field: str) -> None:
    even = Balance(received=100_000, fees=60_000, refunded=20_000, due=15_000, held=5_000, owed=60_000)
    assert even.closes
    assert (even + even).closes
    assert not replace(even, **{field: getattr(even, field) + 1}).closes
