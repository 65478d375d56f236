"""Which moments matter, and in what order things happen at one."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from contracts.cycle import Cycle
from deploy.rehearsal.acts import is_bulk, note_of, reason_codes
from deploy.rehearsal.agenda import Agenda, edges, mornings
from deploy.rehearsal.identity import invent_all
from deploy.rehearsal.people import Step, Verb
from deploy.rehearsal.people_file import parse
from deploy.rehearsal.standing import Standing

CYCLE = Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml"


@cache
def cycle() -> Cycle:
    return Cycle.read(CYCLE)


def person(name: str, *steps: tuple[str, str], **more: Any) -> str:
    data = {
        "person": name,
        "site": "shizhong",
        "specialty": "203",
        "subjects": [1],
        "returning": True,
        **more,
    }
    return json.dumps({**data, "steps": [{"at": at, "do": verb} for at, verb in steps]})


def agenda(*lines: str) -> Agenda:
    people = parse("\n".join(lines))
    identities = invent_all(people, 1)
    return Agenda(
        people, cycle(), {one.name: Standing(one, identities[one.name], one.site) for one in people.persons}
    )


NOON = "2023-12-03T12:00:00+08:00"


def test_steps_of_one_moment_stand_in_the_order_of_the_file() -> None:
    found = agenda(
        person("b", (NOON, "amend"), (NOON, "withdraw")),
        person("a", (NOON, "pre-register"), ("2023-12-02T12:00:00+08:00", "pre-register")),
    )
    at = datetime.fromisoformat(NOON)
    turns, _, _ = found.take(at)
    assert [(turn.standing.person.name, turn.step.index) for turn in turns] == [("b", 0), ("b", 1), ("a", 0)]


def test_moments_come_in_order_and_once() -> None:
    found = agenda(person("a", (NOON, "pre-register")), person("b", (NOON, "pre-register")))
    seen = []
    while (at := found.next_at) is not None:
        seen.append(at)
        found.take(at)
    assert seen == sorted(set(seen))
    assert datetime.fromisoformat(NOON) in seen


def test_lines_of_one_identity_are_one_human() -> None:
    found = agenda(
        person("a", (NOON, "pre-register")), person("b", (NOON, "pre-register"), same_person_as="a")
    )
    turns, _, _ = found.take(datetime.fromisoformat(NOON))
    assert turns[0].human is turns[1].human
    assert len(found.humans) == 1


def test_everything_that_ends_for_many_is_an_edge() -> None:
    found = edges(cycle())
    close = datetime(2024, 2, 8, 16, tzinfo=UTC)
    assert {
        close,
        close - timedelta(minutes=2),
        close - timedelta(hours=2),
        close - timedelta(days=7),
    } <= found
    assert datetime(2023, 12, 14, 4, tzinfo=UTC) in found  # “14日上午”


def test_the_end_of_a_return_and_a_window_the_office_sets_are_edges() -> None:
    until = "2023-12-17T18:00:00+08:00"
    data = json.loads(person("a", (NOON, "return")))
    data["steps"][0]["fix_until"] = until
    world = {"at": NOON, "do": "set-desk-window", "site": "municipal", "opens": "2023-12-12T00:00:00+08:00"}
    found = agenda(
        json.dumps(data), json.dumps({"world": [{**world, "closes": "2023-12-13T09:30:00+08:00"}]})
    )
    for moment in (until, NOON, "2023-12-12T00:00:00+08:00", "2023-12-13T09:30:00+08:00"):
        assert found.is_edge(datetime.fromisoformat(moment))


def test_whoever_comes_before_the_opening_makes_the_clock_start_earlier() -> None:
    early = "2023-11-30T20:00:00+08:00"
    assert agenda(person("a", (early, "pre-register"))).first_at == datetime.fromisoformat(early)
    assert agenda(person("a", (NOON, "pre-register"))).first_at == cycle().windows.pre_registration.opens


def step(verb: Verb, **fields: Any) -> Step:
    return Step(0, datetime(2024, 1, 1, tzinfo=UTC), verb, fields)


@pytest.mark.parametrize(
    ("given", "codes", "note"),
    [
        (["education"], ["education"], None),
        (["学历", "年限"], ["education", "years"], None),
        (["表格非最新", "form-outdated"], ["form-outdated"], None),
        (["字迹不清"], ["other"], "字迹不清"),
        ([], ["documents"], None),
    ],
)
def test_reasons_may_be_codes_or_words(given: list[str], codes: list[str], note: str | None) -> None:
    turned_away = step(Verb.REJECT, reasons=given)
    assert reason_codes(turned_away) == codes
    assert note_of(turned_away) == note


def test_reviewers_decide_together_and_desks_one_by_one() -> None:
    assert is_bulk(step(Verb.APPROVE, level="site"))
    assert is_bulk(step(Verb.REJECT, level="district"))
    assert not is_bulk(step(Verb.REJECT, level="desk"))
    assert not is_bulk(step(Verb.RETURN))
    assert not is_bulk(step(Verb.CONFIRM))


def test_a_crowd_stops_at_the_end_of_every_night() -> None:
    found = agenda(person("a", ("2023-12-03T07:59:59+08:00", "pre-register")))
    end = datetime.fromisoformat("2023-12-04T08:00:00+08:00")
    assert not found.is_edge(end)
    found.add_mornings()
    assert found.is_edge(end)
    assert not found.is_edge(end - timedelta(days=200))
    seen = []
    while (at := found.next_at) is not None:
        seen.append(at)
        found.take(at)
    assert end in seen
    assert seen[-1] == found.last_at


def test_mornings_are_those_between_first_and_last() -> None:
    first = datetime.fromisoformat("2023-12-04T08:00:00+08:00")
    day, moment = timedelta(days=1), timedelta(microseconds=1)
    assert mornings(cycle(), first, first + day) == [first]
    assert mornings(cycle(), first, first + day + moment) == [first, first + day]
    assert mornings(cycle(), first + moment, first + day + moment) == [first + day]
    assert mornings(cycle(), first.astimezone(UTC), first) == []
