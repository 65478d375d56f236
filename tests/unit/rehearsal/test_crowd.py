"""The crowd is believable and its seed alone determines it."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest

from contracts.cycle import Cycle
from deploy.rehearsal.cast import PARTS
from deploy.rehearsal.crowd import crowd
from deploy.rehearsal.identity import check_digit, invent_all
from deploy.rehearsal.people import People, Verb
from deploy.rehearsal.people_file import dump
from tests.model.office import Predicted, predict

CYCLE = Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml"


@cache
def cycle() -> Cycle:
    return Cycle.read(CYCLE)


@cache
def people(seed: int = 7) -> People:
    return crowd(cycle(), 2000, seed)


@cache
def predicted() -> dict[str, Predicted]:
    return predict(dump(people()).split("\n"))


def share(state: str) -> float:
    return sum(one.state == state for one in predicted().values()) / len(predicted())


def test_the_same_seed_gives_the_same_people() -> None:
    assert dump(crowd(cycle(), 300, 7)) == dump(crowd(cycle(), 300, 7))
    assert dump(crowd(cycle(), 300, 7)) != dump(crowd(cycle(), 300, 8))


def test_a_larger_crowd_begins_with_the_same_people() -> None:
    assert crowd(cycle(), 300, 7).persons[:200] == crowd(cycle(), 200, 7).persons


def test_the_first_of_every_crowd_are_the_cast_whatever_the_seed() -> None:
    first = crowd(cycle(), 20, 7)
    assert first.persons[: len(PARTS)] == crowd(cycle(), 2000, 8).persons[: len(PARTS)]
    heard, held, forfeited, revived = (predicted()[name] for name in ("p0001", "p0002", "p0003", "p0004"))
    assert [one.state for one in (heard, held, forfeited, revived)] == ["paid", "paid", "expired", "paid"]
    assert [what for what, _ in revived.told if what in ("expired", "reinstated", "paid")] == [
        "expired",
        "reinstated",
        "paid",
    ]
    assert [event.verb for event in first.world if event.at > cycle().windows.payment.closes] == ["revive"]
    down = next(event for event in first.world if event.verb == "gateway-down")
    assert down.at < cycle().windows.payment.closes < down.at + timedelta(seconds=down.fields["for"])


def test_carriers_lose_what_goes_to_some_of_the_cast_and_one_is_reached_by_neither() -> None:
    """A dead number, one that never confirms, a full mailbox; each is told by the other channel, but for the last."""
    reached = {}
    for name in ("p0005", "p0006", "p0007", "p0008"):
        messages = predicted()[name].messages
        reached[name] = {
            channel: {state for _, other, state in messages if other == channel}
            for channel in ("sms", "email")
        }
    assert reached == {
        "p0005": {"sms": {"undelivered"}, "email": {"delivered"}},
        "p0006": {"sms": {"expired"}, "email": {"delivered"}},
        "p0007": {"sms": {"delivered"}, "email": {"undelivered"}},
        "p0008": {"sms": {"undelivered"}, "email": {"undelivered"}},
    }
    assert [predicted()[name].state for name in reached] == ["paid", "paid", "paid", "expired"]


def test_a_crowd_of_one_has_no_story_without_its_person() -> None:
    alone = crowd(cycle(), 1, 7)
    assert [one.name for one in alone.persons] == ["p0001"]
    assert {event.verb for event in alone.world} == {"set-desk-window", "callback-replay"}


def test_a_few_per_cent_never_confirm_never_pay_or_are_rejected() -> None:
    assert 0.02 < share("lapsed") < 0.06
    assert 0.02 < share("rejected") < 0.045
    assert 0.02 < share("expired") < 0.07
    assert 0.8 < share("paid") < 0.93


def test_every_kind_of_refusal_of_an_office_day_occurs() -> None:
    codes = {code for one in predicted().values() for _, code in one.refused}
    assert codes >= {
        "window-not-open",
        "window-closed",
        "desk-closed",
        "desk-undated",
        "already-registered",
        "form-outdated",
        "documents-missing",
        "other-site",
        "not-approved",
        "already-paid",
        "too-late-to-order",
        "invalid",
        "gateway-refused",
        "not-allowed",
    }


def test_people_come_in_peaks_on_the_first_and_last_days() -> None:
    days = Counter(
        step.at.astimezone(cycle().zone).date()
        for person in people().persons
        for step in person.steps
        if step.verb is Verb.PAY
    )
    first, last = (
        min(days),
        (cycle().windows.payment.closes - timedelta(hours=1)).astimezone(cycle().zone).date(),
    )
    middle = sum(days[first + timedelta(days=offset)] for offset in (3, 4, 5)) / 3
    assert days[first] > 1.5 * middle
    assert days[last] > 1.5 * middle


def test_some_pay_in_the_last_hour_and_some_callbacks_never_come() -> None:
    closes = cycle().windows.payment.closes
    pays = [step for person in people().persons for step in person.steps if step.verb is Verb.PAY]
    assert sum(closes - timedelta(hours=1) <= step.at < closes for step in pays) >= 10
    callbacks = [step.fields["callback"] for step in pays]
    assert "never" in callbacks
    assert any(isinstance(one, list) and len(one) > 1 for one in callbacks)
    assert any(isinstance(one, int) and one >= 600 for one in callbacks)


def test_the_crowd_acts_on_a_coarse_grid() -> None:
    """Four thousand people must make some thousand moments, or a rehearsal takes as long as the year."""
    moments = {step.at for person in crowd(cycle(), 4000, 7).persons for step in person.steps}
    assert len(moments) < 3000
    assert all(moment.second == 0 and moment.microsecond == 0 for moment in moments)


def test_an_undated_desk_is_given_its_days_by_the_office() -> None:
    events = [event for event in people().world if event.verb == "set-desk-window"]
    assert [event.fields["site"] for event in events] == ["municipal"]


def test_nobody_invented_can_be_anybody_and_no_two_are_one() -> None:
    identities = invent_all(people(), 7)
    own = [identities[one.name] for one in people().persons if one.same_person_as is None]
    for what in ("id_number", "phone", "email"):
        assert len({getattr(one, what) for one in own}) == len(own)
    for one in own:
        assert one.id_number.startswith("9990")
        assert one.id_number[17] == check_digit(one.id_number[:17])
        assert one.phone[0] == "1"
        assert one.phone[1] in "3456789"
        assert one.email.endswith(("example.cn", "example.com.cn"))


def test_names_have_rare_characters_and_middle_dots_too() -> None:
    names = [one.name for one in invent_all(people(), 7).values()]
    assert any("·" in name for name in names)
    assert any(ord(letter) > 0xFFFF for name in names for letter in name)


def test_a_second_line_of_one_person_has_the_same_identity() -> None:
    identities = invent_all(people(), 7)
    doubles = [one for one in people().persons if one.same_person_as is not None]
    assert doubles
    for double in doubles:
        assert double.same_person_as is not None
        assert identities[double.name] == identities[double.same_person_as]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_identities_depend_on_the_seed(seed: int) -> None:
    few = crowd(cycle(), 20, 5)
    assert invent_all(few, seed) == invent_all(few, seed)
    assert invent_all(few, seed) != invent_all(few, seed + 1)
