"""The dead-end guard: nobody pre-registers for, or moves to, a desk that can no longer confirm them."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.refusals import Code, Refused
from services.registration.domain.desks import Desks, Hours
from tests.unit.registration.samples import MICROSECOND, cycle

CYCLE = cycle()
BEIJING = ZoneInfo("Asia/Shanghai")
DESKS = Desks(CYCLE, {})
DATED = [site.id for site in CYCLE.sites if site.window]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BEIJING)


@pytest.mark.parametrize(
    ("site", "ends"),
    [
        ("shizhong", at("2023-12-14T12:00")),  # 「8日-14日上午」
        ("wutongqiao", at("2023-12-16T00:00")),
        ("shawan", at("2023-12-16T00:00")),
        ("qianwei", at("2023-12-15T00:00")),
        ("jingyan", at("2023-12-14T00:00")),
        ("jiajiang", at("2023-12-15T00:00")),
        ("emeishan", at("2023-12-16T00:00")),
        ("mabian", at("2023-12-15T00:00")),
        ("jinkouhe", at("2023-12-15T00:00")),
        ("ebian", at("2023-12-13T00:00")),
        ("muchuan", at("2023-12-14T00:00")),
        ("gaoxin", at("2023-12-13T00:00")),
        ("municipal", at("2023-12-16T00:00")),  # undated: lapses with the overall window
    ],
)
def test_a_desk_can_be_reached_until_its_last_microsecond(site: str, ends: datetime) -> None:
    DESKS.refuse_dead_end(site, ends - MICROSECOND)
    with pytest.raises(Refused) as refusal:
        DESKS.refuse_dead_end(site, ends)
    assert refusal.value.code is Code.DESK_CLOSED


def test_who_meets_a_dead_end_is_shown_every_desk_that_is_left_the_earliest_end_first() -> None:
    with pytest.raises(Refused) as refusal:
        DESKS.refuse_dead_end("gaoxin", at("2023-12-13T00:00"))
    left = refusal.value.hints["desks"]
    assert isinstance(left, list)
    assert [desk["id"] for desk in left][:3] == ["jingyan", "muchuan", "shizhong"]
    assert {desk["id"] for desk in left} == {site.id for site in CYCLE.sites} - {"gaoxin", "ebian"}
    assert left[-1] == {
        "id": "municipal",
        "name": CYCLE.site("municipal").name,
        "closes": None,
    }
    assert left[2] == {"id": "shizhong", "name": "市中区", "closes": "2023-12-14T04:00:00+00:00"}


def test_when_no_desk_is_left_the_candidate_is_told_whom_to_call() -> None:
    with pytest.raises(Refused, match=CYCLE.contact_phone) as refusal:
        DESKS.refuse_dead_end("shizhong", at("2023-12-16T00:00"))
    assert refusal.value.hints == {"desks": []}


def test_what_the_office_set_holds_in_place_of_the_cycle_file() -> None:
    moved = Desks(CYCLE, {"gaoxin": Hours(at("2023-12-11T00:00"), at("2023-12-14T00:00"))})
    moved.refuse_dead_end("gaoxin", at("2023-12-14T00:00") - MICROSECOND)
    with pytest.raises(Refused):
        moved.refuse_dead_end("gaoxin", at("2023-12-14T00:00"))


def test_an_undated_desk_that_was_given_a_window_ends_with_it() -> None:
    dated = Desks(CYCLE, {"municipal": Hours(at("2023-12-09T00:00"), at("2023-12-11T00:00"))})
    dated.refuse_dead_end("municipal", at("2023-12-11T00:00") - MICROSECOND)
    with pytest.raises(Refused) as refusal:
        dated.refuse_dead_end("municipal", at("2023-12-11T00:00"))
    left = refusal.value.hints["desks"]
    assert isinstance(left, list)
    assert "municipal" not in [desk["id"] for desk in left]


def test_a_desk_that_does_not_exist_is_no_desk() -> None:
    with pytest.raises(KeyError):
        DESKS.desk("chengdu")


@given(st.sampled_from(DATED), st.integers(-(10**12), 10**12))
def test_a_dead_end_is_exactly_what_is_not_before_the_close(site: str, off: int) -> None:
    desk = DESKS.desk(site)
    assert desk.hours is not None
    moment = desk.hours.closes + timedelta(microseconds=off)
    assert desk.has_ended(CYCLE, moment) == (off >= 0)
    assert (desk in DESKS.reachable(moment)) == (off < 0)
