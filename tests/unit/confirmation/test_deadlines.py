"""Until when a candidate may confirm, at each desk and after each return, to the microsecond."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, time

import pytest

from contracts.cycle import DailyHours, Interval, Window
from contracts.refusals import Code
from services.confirmation.domain import (
    Case,
    State,
)
from tests.unit.confirmation.cases import (
    DURING,
    TINY,
    case,
    check,
    desk,
    form,
    leshan,
    moment,
    refusal,
    window,
)

LATER = moment("2023-12-20 09:00")
LEVELS = ("desk", "site", "district")
DATED = [site.id for site in leshan().sites if not site.undated]


@pytest.mark.parametrize(
    ("site", "opens", "closes"),
    [
        ("shizhong", "2023-12-08", "2023-12-14 12:00"),  # “14日上午” ends at noon
        ("wutongqiao", "2023-12-13", "2023-12-16"),
        ("shawan", "2023-12-13", "2023-12-16"),
        ("qianwei", "2023-12-11", "2023-12-15"),
        ("jingyan", "2023-12-11", "2023-12-14"),
        ("jiajiang", "2023-12-12", "2023-12-15"),
        ("emeishan", "2023-12-13", "2023-12-16"),
        ("mabian", "2023-12-12", "2023-12-15"),
        ("jinkouhe", "2023-12-12", "2023-12-15"),
        ("ebian", "2023-12-11", "2023-12-13"),
        ("muchuan", "2023-12-11", "2023-12-14"),
        ("gaoxin", "2023-12-11", "2023-12-13"),
    ],
)
def test_a_desk_confirms_from_its_first_to_its_last_microsecond(site: str, opens: str, closes: str) -> None:
    waiting = case(form=form(site))

    def confirm(at: datetime) -> Case:
        return waiting.confirmed(at, desk(site), check(), leshan())

    assert refusal(lambda: confirm(moment(opens) - TINY)) is Code.WINDOW_NOT_OPEN
    assert confirm(moment(opens)).state is State.CONFIRMED
    assert confirm(moment(closes) - TINY).state is State.CONFIRMED
    assert refusal(lambda: confirm(moment(closes))) is Code.WINDOW_CLOSED
    assert not waiting.is_overdue(moment(closes) - TINY, desk(site))
    assert waiting.is_overdue(moment(closes), desk(site))


def test_every_dated_desk_of_the_notice_is_in_that_table() -> None:
    assert len(DATED) == 12


def test_nobody_is_confirmed_at_a_desk_without_days() -> None:
    waiting = case(form=form("municipal"))
    for at in (DURING, LATER):
        assert (
            refusal(lambda at: waiting.confirmed(at, desk("municipal"), check(), leshan()), at)
            is Code.DESK_UNDATED
        )


def test_whoever_waits_for_a_desk_without_days_lapses_with_the_overall_window() -> None:
    waiting = case(form=form("municipal"))
    closes = moment("2023-12-16")
    assert refusal(lambda: waiting.lapsed(closes - TINY, desk("municipal"))) is Code.NOT_ALLOWED
    assert waiting.lapsed(closes, desk("municipal")).state is State.LAPSED


def test_a_window_that_the_office_set_counts_instead_of_the_notice() -> None:
    moved = desk("shizhong", window("2023-12-12 00:00", "2023-12-18 12:00"))
    waiting = case()
    assert refusal(lambda: waiting.confirmed(moment("2023-12-11 23:59"), moved, check(), leshan())) is (
        Code.WINDOW_NOT_OPEN
    )
    assert waiting.confirmed(moment("2023-12-18 12:00") - TINY, moved, check(), leshan()).passed == 1
    assert refusal(lambda: waiting.confirmed(moment("2023-12-18 12:00"), moved, check(), leshan())) is (
        Code.WINDOW_CLOSED
    )


def test_a_desk_with_hours_is_shut_at_night_and_between_its_days() -> None:
    intervals = (
        Interval(opens=moment("2023-12-08"), closes=moment("2023-12-09")),
        Interval(opens=moment("2023-12-11"), closes=moment("2023-12-12")),
    )
    open_at_nine = Window.model_validate(
        {"intervals": intervals, "daily": DailyHours(opens=time(9), closes=time(17))},
        context={"zone": leshan().zone},
    )
    shut = desk("shizhong", open_at_nine)
    waiting = case()
    assert waiting.confirmed(moment("2023-12-08 09:00"), shut, check(), leshan()).passed == 1
    for at in ("2023-12-08 08:59", "2023-12-08 17:00", "2023-12-10 12:00", "2023-12-11 08:59"):
        assert refusal(lambda at: waiting.confirmed(moment(at), shut, check(), leshan()), at) is (
            Code.WINDOW_NOT_OPEN
        )
    assert refusal(lambda: waiting.confirmed(moment("2023-12-11 17:00"), shut, check(), leshan())) is (
        Code.WINDOW_CLOSED
    )
    # sent back with time beyond the desk's days: then its hours bind no longer
    sent_back = replace(waiting, state=State.RETURNED, fix_until=moment("2023-12-13"))
    assert sent_back.confirmed(moment("2023-12-12 20:00"), shut, check(), leshan()).passed == 1
    assert refusal(lambda: sent_back.confirmed(moment("2023-12-10 12:00"), shut, check(), leshan())) is (
        Code.WINDOW_NOT_OPEN
    )


@pytest.mark.parametrize(
    ("until", "too_late"),
    [
        ("2023-12-10 18:00", Code.NOT_ALLOWED),  # the desk is open, but not for this candidate any more
        ("2023-12-14 12:00", Code.WINDOW_CLOSED),
        ("2023-12-22 18:00", Code.WINDOW_CLOSED),
    ],
)
def test_a_returned_candidate_has_until_the_moment_named_and_not_a_microsecond_more(
    until: str, too_late: Code
) -> None:
    waiting = case(State.RETURNED, fix_until=moment(until))
    confirmed = waiting.confirmed(moment(until) - TINY, desk("shizhong"), check(), leshan())
    assert (confirmed.state, confirmed.fix_until) == (State.CONFIRMED, None)
    assert refusal(lambda: waiting.confirmed(moment(until), desk("shizhong"), check(), leshan())) is too_late
    assert refusal(lambda: waiting.lapsed(moment(until) - TINY, desk("shizhong"))) is Code.NOT_ALLOWED
    lapsed = waiting.lapsed(moment(until), desk("shizhong"))
    assert lapsed.state is State.LAPSED
    # the same answer before and after the job has come round
    assert refusal(lambda: lapsed.confirmed(moment(until), desk("shizhong"), check(), leshan())) is too_late


def test_the_time_of_a_return_is_over_with_the_return() -> None:
    gone = case(State.RETURNED, fix_until=moment("2023-12-22 18:00")).withdrawn()
    at = moment("2023-12-20 09:00")
    assert refusal(lambda: gone.confirmed(at, desk("shizhong"), check(), leshan())) is Code.WINDOW_CLOSED


def test_a_candidate_returned_without_a_moment_has_until_the_desk_closes() -> None:
    waiting = case(State.RETURNED)
    assert waiting.deadline(desk("shizhong")) == moment("2023-12-14 12:00")
