"""The delivery promise: when it is kept, and how fast its budget burns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.notification.domain.promise import PACES, WINDOWS, Close, Count, burn_rate, burns

CLOSE = datetime(2024, 2, 8, 16, tzinfo=UTC)


def close(confirmed: int = 0, late: int = 0, failed: int = 0, waiting: int = 0) -> Close:
    return Close(CLOSE, confirmed, confirmed, late, failed, waiting, 0)


def test_where_nobody_was_to_be_reminded_there_is_no_promise() -> None:
    assert (close().share, close().kept(0.99)) == (None, None)


@pytest.mark.parametrize(
    ("standing", "kept"),
    [
        (close(confirmed=99, failed=1), True),
        (close(confirmed=98, failed=2), False),
        (close(confirmed=98, late=2), False),
        (close(confirmed=99, waiting=1), True),  # whatever becomes of the last one
        (close(confirmed=98, failed=1, waiting=1), None),  # the last one decides
        (close(confirmed=97, failed=2, waiting=1), False),  # nothing can keep it any more
        (close(waiting=1), None),
    ],
)
def test_the_promise_is_decided_as_soon_as_nothing_can_change_it(standing: Close, kept: bool | None) -> None:
    assert standing.kept(0.99) is kept


def test_it_is_for_six_hours_before_the_close() -> None:
    assert close().promised_for == datetime(2024, 2, 8, 10, tzinfo=UTC)


def test_a_rate_of_one_spends_the_budget_exactly() -> None:
    assert burn_rate(Count(good=99, bad=1), 0.99) == pytest.approx(1)
    assert burn_rate(Count(good=0, bad=7), 0.99) == pytest.approx(100)
    assert burn_rate(Count(good=5), 0.99) == 0
    assert burn_rate(Count(), 0.99) == 0


def test_it_burns_only_while_both_windows_of_a_pace_say_so() -> None:
    fast = PACES[0]
    calm, hot = Count(good=1000), Count(good=800, bad=200)  # 20 times the budget of one per cent

    def burning(**counts: Count) -> list[str]:
        by_window = dict.fromkeys(WINDOWS, calm)
        by_window.update({getattr(fast, name): count for name, count in counts.items()})
        return [burn.pace.name for burn in burns(by_window, 0.99) if burn.burning]

    assert burning(long=hot, short=hot) == ["fast"]
    assert burning(long=hot) == [], "it is over"
    assert burning(short=hot) == [], "too little to matter"
    at_the_factor = Count(good=8560, bad=1440)
    assert burning(long=at_the_factor, short=at_the_factor) == ["fast"]
    assert burning(long=Count(good=8561, bad=1439), short=at_the_factor) == []


def test_the_short_window_of_each_pace_is_a_twelfth_of_the_long_one() -> None:
    assert [pace.long / pace.short for pace in PACES] == [12, 12]
    assert timedelta(hours=6) == max(WINDOWS)
