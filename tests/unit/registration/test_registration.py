"""States, windows and what a candidate may do when: both sides of every boundary."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.cycle import DailyHours, Interval, Window
from contracts.refusals import Code, Refused
from services.registration.domain.desks import Desks, Hours
from services.registration.domain.form import Choice
from services.registration.domain.registration import (
    FREEING,
    NEXT,
    Act,
    Confirmation,
    Payment,
    Registration,
    State,
    combined,
    form_code,
    refuse_outside_window,
)
from tests.unit.registration.samples import DURING, MICROSECOND, cycle

CYCLE = cycle()
DESKS = Desks(CYCLE, {})
BEIJING = ZoneInfo("Asia/Shanghai")
OPENS = datetime(2023, 12, 1, tzinfo=BEIJING)
CLOSES = datetime(2023, 12, 15, tzinfo=BEIJING)
NOON = datetime(2023, 12, 14, 12, tzinfo=BEIJING)  # 市中区 「14日上午」
CHOICE = Choice("shizhong", "203", "junior", (1, 2, 3, 4), returning=False)
NEW = Registration.new(UUID(int=1), "202400000001", CHOICE)


def refused(code: Code, act: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as refusal:
        act()
    assert refusal.value.code is code
    return refusal.value


def test_pre_registration_is_open_from_its_first_to_its_last_microsecond() -> None:
    refused(Code.WINDOW_NOT_OPEN, lambda: refuse_outside_window(CYCLE, OPENS - MICROSECOND))
    refuse_outside_window(CYCLE, OPENS)
    refuse_outside_window(CYCLE, CLOSES - MICROSECOND)
    refused(Code.WINDOW_CLOSED, lambda: refuse_outside_window(CYCLE, CLOSES))


@given(st.integers(-(10**13), 10**13))
def test_the_window_is_half_open(off: int) -> None:
    moment = OPENS + timedelta(microseconds=off)
    if OPENS <= moment < CLOSES:
        refuse_outside_window(CYCLE, moment)
    else:
        expected = Code.WINDOW_NOT_OPEN if moment < OPENS else Code.WINDOW_CLOSED
        refused(expected, lambda: refuse_outside_window(CYCLE, moment))


def test_between_two_intervals_it_is_not_open_yet_and_says_when() -> None:
    later = datetime(2023, 12, 20, tzinfo=BEIJING)
    window = Window(
        intervals=(
            Interval(opens=OPENS, closes=CLOSES),
            Interval(opens=later, closes=later + timedelta(days=1)),
        )
    )
    two = CYCLE.model_copy(update={"windows": CYCLE.windows.model_copy(update={"pre_registration": window})})
    refuse_outside_window(two, CLOSES - MICROSECOND)
    between = refused(Code.WINDOW_NOT_OPEN, lambda: refuse_outside_window(two, CLOSES))
    assert between.hints == {"opens": later.isoformat()}
    refuse_outside_window(two, later)
    refused(Code.WINDOW_CLOSED, lambda: refuse_outside_window(two, later + timedelta(days=1)))


def test_daily_hours_are_part_of_the_window() -> None:
    hours = DailyHours(opens=datetime(2023, 1, 1, 9).time(), closes=datetime(2023, 1, 1, 17).time())  # noqa: DTZ001
    window = Window(intervals=(Interval(opens=OPENS, closes=CLOSES),), daily=hours)
    day = CYCLE.model_copy(update={"windows": CYCLE.windows.model_copy(update={"pre_registration": window})})
    nine = OPENS + timedelta(hours=9)
    refused(Code.WINDOW_NOT_OPEN, lambda: refuse_outside_window(day, nine - MICROSECOND))
    refuse_outside_window(day, nine)
    refused(Code.WINDOW_NOT_OPEN, lambda: refuse_outside_window(day, OPENS + timedelta(hours=17)))


ALL = list(itertools.product([False, True], Confirmation, Payment))


@pytest.mark.parametrize(
    ("confirmation", "payment", "state"),
    [
        (Confirmation.OPEN, Payment.NONE, State.PRE_REGISTERED),
        (Confirmation.RETURNED, Payment.NONE, State.PRE_REGISTERED),
        (Confirmation.CONFIRMED, Payment.NONE, State.CONFIRMED),
        (Confirmation.APPROVED, Payment.NONE, State.APPROVED),
        (Confirmation.APPROVED, Payment.AWAITING, State.APPROVED),
        (Confirmation.APPROVED, Payment.PAID, State.PAID),
        (Confirmation.APPROVED, Payment.EXPIRED, State.EXPIRED),
        (Confirmation.REJECTED, Payment.NONE, State.REJECTED),
        (Confirmation.REJECTED, Payment.AWAITING, State.REJECTED),
        (Confirmation.REJECTED, Payment.PAID, State.REJECTED),
        (Confirmation.LAPSED, Payment.NONE, State.LAPSED),
        # payment's stream was quicker than confirmation's
        (Confirmation.CONFIRMED, Payment.AWAITING, State.CONFIRMED),
        (Confirmation.CONFIRMED, Payment.PAID, State.PAID),
        (Confirmation.CONFIRMED, Payment.EXPIRED, State.EXPIRED),
    ],
)
def test_one_word_for_where_a_registration_stands(
    confirmation: Confirmation, payment: Payment, state: State
) -> None:
    assert combined(False, confirmation, payment) is state
    assert combined(True, confirmation, payment) is State.WITHDRAWN


@pytest.mark.parametrize(("withdrawn", "confirmation", "payment"), ALL)
def test_a_candidate_may_do_what_the_table_says_and_nothing_else(
    withdrawn: bool, confirmation: Confirmation, payment: Payment
) -> None:
    one = replace(NEW, withdrawn=withdrawn, confirmation=confirmation, payment=payment)
    for act, do in (
        (Act.AMEND, lambda: one.may_amend(DESKS, CYCLE, DURING)),
        (Act.AMEND, lambda: one.amended(CHOICE, DESKS, DURING, 1)),
        (Act.WITHDRAW, lambda: one.withdraw(DESKS, CYCLE, DURING)),
    ):
        if (one.state, act) in NEXT:
            do()
        else:
            refusal = refused(Code.NOT_ALLOWED, do)
            assert one.state.text in refusal.message
            assert refusal.hints == {"state": one.state.value}


def test_only_before_confirmation_is_anything_allowed() -> None:
    assert {state for state, _ in NEXT} == {State.PRE_REGISTERED}
    assert frozenset({State.WITHDRAWN, State.LAPSED}) == FREEING


def test_a_save_makes_the_next_form_and_the_next_versions() -> None:
    moved = replace(CHOICE, specialty_code="368", level="intermediate")
    saved = NEW.amended(moved, DESKS, DURING, facts=1)
    assert (saved.form_version, saved.version, saved.choice) == (2, 2, moved)
    again = saved.amended(moved, DESKS, DURING, facts=2)
    assert (again.form_version, again.version) == (3, 4)


def test_a_withdrawal_is_the_next_version() -> None:
    assert NEW.withdraw(DESKS, CYCLE, DURING).version == 2
    assert NEW.withdraw(DESKS, CYCLE, DURING).state is State.WITHDRAWN


def test_amending_ends_with_the_desk() -> None:
    NEW.may_amend(DESKS, CYCLE, NOON - MICROSECOND)
    refused(Code.WINDOW_CLOSED, lambda: NEW.may_amend(DESKS, CYCLE, NOON))


def test_amending_goes_on_after_the_pre_registration_window() -> None:
    late = replace(NEW, choice=replace(CHOICE, site_id="wutongqiao"))
    late.may_amend(DESKS, CYCLE, CLOSES)
    close = datetime(2023, 12, 16, tzinfo=BEIJING)
    late.may_amend(DESKS, CYCLE, close - MICROSECOND)
    refused(Code.WINDOW_CLOSED, lambda: late.may_amend(DESKS, CYCLE, close))


def test_after_a_return_the_deadline_is_the_one_that_was_named() -> None:
    until = NOON + timedelta(days=5)
    returned = replace(NEW, confirmation=Confirmation.RETURNED, fix_until=until)
    returned.may_amend(DESKS, CYCLE, until - MICROSECOND)
    refused(Code.WINDOW_CLOSED, lambda: returned.may_amend(DESKS, CYCLE, until))
    lapse = NOON - timedelta(days=1)
    sooner = replace(returned, fix_until=lapse)
    sooner.may_amend(DESKS, CYCLE, lapse - MICROSECOND)
    refused(Code.NOT_ALLOWED, lambda: sooner.may_amend(DESKS, CYCLE, lapse))
    refused(Code.WINDOW_CLOSED, lambda: sooner.may_amend(DESKS, CYCLE, NOON))
    unnamed = replace(returned, fix_until=None)
    unnamed.may_amend(DESKS, CYCLE, NOON - MICROSECOND)
    refused(Code.WINDOW_CLOSED, lambda: unnamed.may_amend(DESKS, CYCLE, NOON))


def test_whether_the_lapse_has_been_heard_of_changes_no_answer() -> None:
    lapse = NOON - timedelta(days=1)
    unheard = replace(NEW, confirmation=Confirmation.RETURNED, fix_until=lapse)
    heard = replace(unheard, confirmation=Confirmation.LAPSED)
    for at, code in (
        (lapse, Code.NOT_ALLOWED),
        (NOON - MICROSECOND, Code.NOT_ALLOWED),
        (NOON, Code.WINDOW_CLOSED),
    ):
        for one in (unheard, heard):
            refused(code, partial(one.may_amend, DESKS, CYCLE, at))


def test_a_deadline_of_an_earlier_return_no_longer_counts() -> None:
    confirmed = replace(NEW, confirmation=Confirmation.CONFIRMED, fix_until=NOON + timedelta(days=5))
    assert confirmed.deadline(DESKS, CYCLE) == NOON


def test_the_window_is_asked_before_the_state() -> None:
    confirmed = replace(NEW, confirmation=Confirmation.CONFIRMED)
    refused(Code.NOT_ALLOWED, lambda: confirmed.may_amend(DESKS, CYCLE, NOON - MICROSECOND))
    refused(Code.WINDOW_CLOSED, lambda: confirmed.may_amend(DESKS, CYCLE, NOON))


def test_the_undated_desk_holds_its_candidates_until_the_overall_close() -> None:
    undated = replace(NEW, choice=replace(CHOICE, site_id="municipal"))
    assert undated.deadline(DESKS, CYCLE) == CYCLE.windows.confirmation.closes
    dated = Desks(CYCLE, {"municipal": Hours(DURING, NOON)})
    assert undated.deadline(dated, CYCLE) == NOON


def test_moving_to_a_desk_that_has_ended_is_a_dead_end_staying_there_is_not() -> None:
    ended = datetime(2023, 12, 13, tzinfo=BEIJING)
    to_gaoxin = replace(CHOICE, site_id="gaoxin")
    NEW.amended(to_gaoxin, DESKS, ended - MICROSECOND, 1)
    refused(Code.DESK_CLOSED, lambda: NEW.amended(to_gaoxin, DESKS, ended, 1))
    staying = replace(
        NEW, choice=to_gaoxin, confirmation=Confirmation.RETURNED, fix_until=ended + timedelta(days=1)
    )
    staying.may_amend(DESKS, CYCLE, ended)
    assert staying.amended(to_gaoxin, DESKS, ended, 1).form_version == 2


def test_who_missed_the_last_moment_has_lapsed_and_cannot_withdraw() -> None:
    NEW.withdraw(DESKS, CYCLE, NOON - MICROSECOND)
    refusal = refused(Code.NOT_ALLOWED, lambda: NEW.withdraw(DESKS, CYCLE, NOON))
    assert refusal.hints == {"state": "lapsed"}


def test_every_state_has_words_for_people() -> None:
    assert len({state.text for state in State}) == len(State)
    assert "视为自动放弃考试" in State.EXPIRED.text


def test_a_form_code_shows_number_and_version_and_changes_with_the_key() -> None:
    code = form_code("202400000001", 3, bytes(range(32)))
    assert code == "202400000001-3-AAAQEAYE"
    assert form_code("202400000001", 3, bytes(range(1, 33))) != code
