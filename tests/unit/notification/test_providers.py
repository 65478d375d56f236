"""Which carrier gets the next message: shares fall when one fails, and rise by what is answered, step by step."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notification.domain.providers import (
    EVERY,
    FLOOR,
    GOOD,
    LONGEST_PAUSE,
    PAUSE,
    PROBES,
    PROBING,
    REST,
    Circuit,
    Health,
    Tally,
    Turns,
    order_of_choice,
    shares_of,
)

AT = datetime(2024, 2, 8, 4, tzinfo=UTC)
WELL = Health("aliyun", 60.0, 60.0)
OTHER = Health("tencent", 40.0, 40.0)
TICK = timedelta(microseconds=1)


def test_of_a_hundred_messages_each_carrier_gets_its_share() -> None:
    turns = Turns()
    got = Counter(turns.next({"aliyun": 60.0, "tencent": 40.0}) for _ in range(100))
    assert got == {"aliyun": 60, "tencent": 40}


@given(st.floats(1, 99), st.integers(1, 300))
def test_at_any_moment_nobody_is_more_than_one_message_from_its_share(share: float, many: int) -> None:
    turns = Turns()
    got = Counter(turns.next({"a": share, "b": 100 - share}) for _ in range(many))
    assert abs(got["a"] - many * share / 100) <= 1


def fallen(share: float = 60.0) -> Health:
    """Found dead once."""
    fell = Health("aliyun", share, share).judged(Tally(5, 5), AT)
    assert fell is not None
    return fell


def judged(one: Health, tally: Tally, at: datetime) -> Health:
    found = one.judged(tally, at)
    assert found is not None
    return found


def test_a_dead_carrier_gets_nothing_from_then_on_however_long_it_is_quiet() -> None:
    fell = fallen()
    assert fell.circuit(AT) is Circuit.PAUSED
    assert fell.circuit(AT + PAUSE - TICK) is Circuit.PAUSED
    for later in (PAUSE, REST, timedelta(days=9)):
        assert fell.circuit(AT + later) is Circuit.WAITING
    assert fell.share_now == 0
    assert fell.judged(Tally(), AT + timedelta(days=9)) is None, "time alone is no evidence"


def test_when_to_look_again_at_one_that_takes_nothing() -> None:
    fell = fallen()
    assert fell.free_at(AT + TICK) == AT + PAUSE
    assert fell.free_at(AT + PAUSE) == AT + PAUSE + PROBING, "its pause is over and nobody could try it"


def test_four_failures_are_not_enough_to_judge_by_and_a_single_probe_is() -> None:
    assert WELL.judged(Tally(4, 4), AT) is None
    again = judged(fallen(), Tally(3, 1), AT + PAUSE)
    assert again.circuit(AT + PAUSE + 2 * PAUSE - TICK) is Circuit.PAUSED, "twice as long as the first time"
    assert again.circuit(AT + PAUSE + 2 * PAUSE) is Circuit.WAITING
    slow = judged(fallen(), Tally(3, 0, 1), AT + PAUSE)
    assert slow.circuit(AT + PAUSE) is Circuit.PAUSED, "late answers are none to come back by"


def test_pauses_grow_to_an_end() -> None:
    one, at = WELL, AT
    pauses = []
    for _ in range(8):
        one = judged(one, Tally(5, 5), at)
        assert one.paused_until is not None
        pauses.append(one.paused_until - at)
        at = one.paused_until
    assert pauses[:3] == [PAUSE, 2 * PAUSE, 4 * PAUSE]
    assert pauses[-1] == LONGEST_PAUSE


@pytest.mark.parametrize("tally", [Tally(8, 2), Tally(8, 0, 2), Tally(8, 1, 1)])
def test_errors_and_slow_answers_both_halve_a_share(tally: Tally) -> None:
    fell = judged(WELL, tally, AT)
    assert (fell.share_now, fell.circuit(AT)) == (30.0, Circuit.RISING)
    assert WELL.judged(Tally(8, 1), AT) is None, "one of eight is not poor"


def test_from_answered_probes_on_a_share_doubles_with_each_minute_that_went_well_and_ends_as_configured() -> (
    None
):
    at = AT + PAUSE
    one = judged(fallen(), Tally(PROBES), at)
    shares = [one.share_now]
    while one.circuit(at) is not Circuit.WELL:
        assert one.judged(Tally(9), at + EVERY - TICK) is None, "not sooner"
        at += EVERY
        one = judged(one, Tally(1), at)
        shares.append(one.share_now)
    assert shares == [FLOOR, 4, 8, 16, 32, 60]
    assert at == AT + PAUSE + 5 * EVERY
    assert one == WELL, "and nothing is held against it"


def test_a_rise_needs_what_went_well_and_bears_one_failure_in_ten() -> None:
    at = AT + PAUSE
    one = judged(fallen(), Tally(1), at)
    one = judged(one, Tally(2), at + EVERY)
    at += 2 * EVERY
    assert one.judged(Tally(), at) is None
    assert one.judged(Tally(9, 1), at) is None
    assert judged(one, Tally(10, 1), at).share_now == 8


def test_a_poor_one_rests_before_its_share_rises() -> None:
    fell = judged(WELL, Tally(8, 4), AT)
    assert fell.judged(Tally(9), AT + REST - TICK) is None
    assert judged(fell, Tally(9), AT + REST) == WELL


def test_who_fails_while_its_share_rises_falls_from_where_it_is() -> None:
    at = AT + PAUSE
    one = judged(fallen(), Tally(3), at)
    for _ in range(3):
        at += EVERY
        one = judged(one, Tally(3), at)
    assert one.share_now == 16
    poor = judged(one, Tally(8, 4), at + TICK)
    assert (poor.share_now, poor.judged(Tally(9), at + EVERY)) == (8, None)
    dead = judged(one, Tally(5, 5), at + TICK)
    assert (dead.share_now, dead.strikes) == (0, 2)
    first = judged(judged(fallen(), Tally(3), AT + PAUSE), Tally(1, 1), at)
    assert first.circuit(at) is Circuit.PAUSED, "on the lowest share one failure is enough"


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 400)), max_size=40))
def test_whatever_comes_a_share_rises_by_good_answers_only(story: list[tuple[int, int, int]]) -> None:
    one, at = WELL, AT
    for tries, failed, seconds in story:
        at += timedelta(seconds=seconds)
        tally = Tally(tries, min(failed, tries))
        after = one.judged(tally, at) or one
        if after.share_now > one.share_now:
            assert tally.tries
            assert tally.bad <= GOOD
            assert after.share_now <= max(FLOOR, 2 * one.share_now)
        assert 0 <= after.share_now <= 60
        one = after


def test_one_with_a_share_below_the_lowest_is_judged_as_any_other() -> None:
    small = Health("tencent", 1.0, 1.0)
    assert small.judged(Tally(4, 4), AT) is None
    assert judged(judged(small, Tally(5, 5), AT), Tally(1), AT + PAUSE) == small


def test_a_carrier_that_is_alone_is_never_left_out() -> None:
    (alone,) = shares_of({"aliyun": 100.0}, [fallen()])
    assert (alone.share_now, order_of_choice(Turns(), [alone], "aliyun")) == (100.0, ["aliyun"])


def test_whoever_surely_did_not_take_a_message_is_tried_last() -> None:
    turns = Turns()
    for _ in range(20):
        assert order_of_choice(turns, [WELL, OTHER], "aliyun") == ["tencent", "aliyun"]


def test_while_one_is_paused_everything_goes_to_the_other_and_if_both_are_nothing_goes() -> None:
    paused, turns = fallen(), Turns()
    assert order_of_choice(turns, [paused, OTHER], None) == ["tencent"]
    assert order_of_choice(turns, [paused, OTHER], "tencent") == ["tencent"], "it or nobody"
    both = [paused, replace(OTHER, fell_at=AT, paused_until=AT + 2 * PAUSE)]
    assert order_of_choice(turns, both, None) == []


def test_what_is_remembered_of_a_carrier_that_is_used_no_more_changes_nothing() -> None:
    known = [replace(WELL, share=30.0, fell_at=AT), Health("gone", 1.0, 1.0, fell_at=AT)]
    found = shares_of({"aliyun": 20.0, "tencent": 80.0}, known)
    assert [(one.name, one.share_now) for one in found] == [("aliyun", 20.0), ("tencent", 80.0)], "set anew"
