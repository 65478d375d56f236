"""Which carrier gets the next message: shares fall when one fails, and come back by themselves, step by step."""

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
    LONGEST_PAUSE,
    PAUSE,
    REST,
    STEP,
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


def test_a_dead_carrier_loses_all_but_the_floor_at_once_and_is_left_alone_for_a_while() -> None:
    fell = WELL.judged(Tally(5, 5), AT)
    assert fell is not None
    assert fell.share_at(AT) == 0
    assert fell.share_at(AT + PAUSE - TICK) == 0
    assert fell.share_at(AT + PAUSE) == FLOOR


def test_four_failures_are_not_enough_to_judge_by_but_a_single_one_keeps_it_on_the_floor() -> None:
    assert WELL.judged(Tally(4, 4), AT) is None
    fell = WELL.judged(Tally(5, 5), AT)
    assert fell is not None
    again = fell.judged(Tally(1, 1), AT + PAUSE)
    assert again is not None
    assert again.share_at(AT + PAUSE + 2 * PAUSE - TICK) == 0, "twice as long as the first time"


def test_pauses_grow_to_an_end() -> None:
    one, at = WELL, AT
    pauses = []
    for _ in range(8):
        fallen = one.judged(Tally(5, 5), at)
        assert fallen is not None
        assert fallen.paused_until is not None
        pauses.append(fallen.paused_until - at)
        one, at = fallen, fallen.paused_until
    assert pauses[:3] == [PAUSE, 2 * PAUSE, 4 * PAUSE]
    assert pauses[-1] == LONGEST_PAUSE


@pytest.mark.parametrize("tally", [Tally(8, 2), Tally(8, 0, 2), Tally(8, 1, 1)])
def test_errors_and_slow_answers_both_halve_a_share(tally: Tally) -> None:
    fell = WELL.judged(tally, AT)
    assert fell is not None
    assert fell.share_at(AT) == 30.0
    assert WELL.judged(Tally(8, 1), AT) is None, "one of eight is not poor"


def test_after_a_rest_the_share_drifts_back_in_steps_and_ends_where_it_was_configured() -> None:
    fell = WELL.judged(Tally(8, 4), AT)
    assert fell is not None
    assert fell.share_at(AT + REST - TICK) == 30
    assert fell.share_at(AT + REST) == 30 + STEP
    assert fell.share_at(AT + REST + EVERY - TICK) == 30 + STEP
    assert fell.share_at(AT + REST + EVERY) == 30 + 2 * STEP
    assert fell.share_at(AT + REST + 4 * EVERY) == 55
    assert fell.share_at(AT + REST + 5 * EVERY) == 60
    assert fell.share_at(AT + timedelta(days=9)) == 60


def test_who_fails_while_drifting_back_falls_from_where_it_is() -> None:
    fell = WELL.judged(Tally(8, 4), AT)
    assert fell is not None
    at = AT + REST + 2 * EVERY
    assert fell.share_at(at) == 45
    again = fell.judged(Tally(8, 4), at)
    assert again is not None
    assert (again.share_at(at), again.share_at(at + REST - TICK)) == (22.5, 22.5)


def test_one_that_works_again_forgets_its_strikes() -> None:
    fell = WELL.judged(Tally(9, 9), AT)
    assert fell is not None
    works = fell.judged(Tally(1, 0), AT + PAUSE)
    assert works is not None
    assert works.strikes == 0
    assert works.share_at(AT + PAUSE) == FLOOR, "its share comes back by drifting only"
    assert works.judged(Tally(3, 0), AT + PAUSE) is None


def test_a_carrier_that_is_alone_is_never_left_out() -> None:
    fell = replace(WELL, share=2.0, fell_at=AT, paused_until=AT + PAUSE)
    assert order_of_choice(Turns(), [fell], AT, "aliyun") == (["aliyun"], None)


def test_whoever_surely_did_not_take_a_message_is_tried_last() -> None:
    turns = Turns()
    for _ in range(20):
        assert order_of_choice(turns, [WELL, OTHER], AT, "aliyun") == (["tencent", "aliyun"], None)


def test_while_one_is_paused_everything_goes_to_the_other_and_if_both_are_nothing_goes() -> None:
    paused = replace(WELL, share=FLOOR, fell_at=AT, paused_until=AT + PAUSE)
    turns = Turns()
    assert order_of_choice(turns, [paused, OTHER], AT, None) == (["tencent"], None)
    assert order_of_choice(turns, [paused, OTHER], AT, "tencent") == (["tencent"], None), "it or nobody"
    both = [paused, replace(OTHER, fell_at=AT, paused_until=AT + 2 * PAUSE)]
    assert order_of_choice(turns, both, AT, None) == ([], AT + PAUSE)


def test_what_is_remembered_of_a_carrier_that_is_used_no_more_changes_nothing() -> None:
    known = [replace(WELL, share=30.0, fell_at=AT), Health("gone", 1.0, 1.0, fell_at=AT)]
    found = shares_of({"aliyun": 50.0, "tencent": 50.0}, known)
    assert [(one.name, one.share_at(AT)) for one in found] == [("aliyun", 30.0), ("tencent", 50.0)]
    assert found[0].share_at(AT + timedelta(days=1)) == 50.0, "configured anew"
