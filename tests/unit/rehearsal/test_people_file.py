"""A people file says every mistake at once, with its line and what to do about it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.rehearsal import people_file
from deploy.rehearsal.people import Verb, WorldVerb
from deploy.rehearsal.people_file import PeopleFileInvalid, callbacks, dump, parse

PERSON = {
    "person": "p1",
    "site": "shizhong",
    "specialty": "203",
    "subjects": [1, 2, 3, 4],
    "returning": False,
    "steps": [{"at": "2023-12-03T10:00:00+08:00", "do": "pre-register"}],
}


def line(**changes: object) -> str:
    return json.dumps({**PERSON, **changes}, ensure_ascii=False)


def step(**fields: object) -> str:
    return line(steps=[{"at": "2023-12-03T10:00:00+08:00", **fields}])


def problems(text: str) -> list[str]:
    with pytest.raises(PeopleFileInvalid) as refused:
        parse(text)
    return [str(problem) for problem in refused.value.problems]


def test_a_person_is_read_as_written() -> None:
    people = parse(line(employer="云溪镇中心卫生院"))
    person = people.persons[0]
    assert (person.name, person.site, person.subjects) == ("p1", "shizhong", (1, 2, 3, 4))
    assert person.given == {"employer": "云溪镇中心卫生院"}
    assert person.steps[0].verb is Verb.PRE_REGISTER
    assert person.steps[0].at == datetime(2023, 12, 3, 2, tzinfo=UTC)


def test_world_events_and_people_may_stand_in_any_order() -> None:
    world = json.dumps({"world": [{"at": "2024-02-08T23:30:00+08:00", "do": "gateway-down", "for": 7200}]})
    people = parse(f"{world}\n\n{line()}\n")
    assert people.world[0].verb is WorldVerb.GATEWAY_DOWN
    assert people.persons[0].line == 3


def test_a_file_that_is_written_reads_back_the_same() -> None:
    world = '{"world": [{"at": "2024-02-08T23:30:00+08:00", "do": "kill", "service": "payment"}]}'
    text = "\n".join([line(), world, line(person="p2", same_person_as="p1")])
    people = parse(text)
    assert parse(dump(people)) == people


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "people.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line().encode())
    assert people_file.read(path).persons[0].name == "p1"


def test_other_encodings_are_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "people.jsonl"
    path.write_bytes(line().encode() + b"\n" + line(person="王").encode("gbk"))
    path.write_bytes(line().encode() + b'\n{"person": "\xcd\xf5"}')
    with pytest.raises(PeopleFileInvalid, match="line 2: bytes that are not UTF-8"):
        people_file.read(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1: not JSON"),
        ("[]", "line 1: a list, not an object"),
        ('{"who": 1}', 'neither "person" nor "world"'),
        (line(person=7), '"person" is not a name'),
        (line(site=None), '"site" is missing'),
        (line(subjects="1234"), '"subjects" is text'),
        (line(subjects=[True]), '"subjects" is a list'),
        (line(returning="no"), '"returning" is text'),
        (line(colour="red"), 'unknown key "colour"'),
        (line(same_person_as="p9"), 'same_person_as names "p9", who is not in the file'),
        (line(steps="none"), '"steps" is text'),
        (line(steps=["x"]), "step 0 is text"),
        (step(do="fly"), "\"do\" is 'fly'"),
        (line(steps=[{"do": "confirm"}]), '"at" is missing'),
        (line(steps=[{"at": "2023-12-03T10:00:00", "do": "confirm"}]), "has no time zone"),
        (line(steps=[{"at": "soon", "do": "confirm"}]), "is no moment"),
        (step(do="approve"), '"approve" lacks "level"'),
        (step(do="confirm", colour="red"), '"confirm" has no "colour"'),
        (step(do="confirm", missing="education"), '"missing" is text'),
        (step(do="return", fix_until="later"), '"later" is no moment'),
        (step(do="pay", callback="soon"), "\"callback\" has 'soon'"),
        (step(do="pay", callback=-1), '"callback" has -1'),
        (step(do="pay", order="last"), '"order" is text'),
        ('{"world": 1}', '"world" is a number'),
        ('{"world": [{"at": "2024-01-01T00:00:00Z", "do": "kill", "service": "mail"}]}', "unknown service"),
        ('{"world": [{"at": "2024-01-01T00:00:00Z", "do": "freeze"}]}', '"freeze" lacks "service"'),
        (
            '{"world": [{"at": "2024-01-01T00:00:00Z", "do": "broker-down", "for": "long"}]}',
            "\"for\" is 'long'",
        ),
        (
            '{"world": [{"at": "2024-01-01T00:00:00Z", "do": "extend", "window": "payment"}]}',
            'lacks "closes"',
        ),
        (
            '{"world": [{"at": "2024-01-01T00:00:00Z", "do": "revive", "person": "p9", "reason": "ill"}]}',
            "\"revive\" names 'p9', who is not in the file",
        ),
        (
            '{"world": [{"at": "2024-01-01T00:00:00Z", "do": "revive", "person": "p9"}]}',
            '"revive" lacks "reason"',
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, said: str) -> None:
    found = problems(text)
    assert any(said in problem for problem in found), found
    assert all(problem.startswith("line 1: ") and "; " in problem for problem in found)


def test_every_mistake_is_said_at_once() -> None:
    text = "\n".join([line(site=1), line(), step(do="fly"), "no JSON"])
    lines = [problem.split(":")[0] for problem in problems(text)]
    assert list(dict.fromkeys(lines)) == ["line 1", "line 3", "line 4"]


@pytest.mark.parametrize("text", ["", "\n\n", '{"world": []}'])
def test_a_file_with_nobody_in_it_is_refused(text: str) -> None:
    with pytest.raises(PeopleFileInvalid, match="nobody is in the file"):
        parse(text)


def test_whoever_is_the_same_person_in_a_circle_is_refused() -> None:
    text = "\n".join([line(same_person_as="p2"), line(person="p2", same_person_as="p1")])
    assert "goes in a circle" in problems(text)[0]


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"callback": 3}, (3.0,)),
        ({"callback": [3, 180]}, (3.0, 180.0)),
        ({"callback": "never"}, ()),
        ({}, (1.0,)),
    ],
)
def test_callbacks_are_one_several_or_none(fields: dict[str, object], seconds: tuple[float, ...]) -> None:
    assert callbacks(fields) == seconds


def test_what_is_wrong_by_the_rules_is_left_for_the_system_to_refuse() -> None:
    """A wrong site, subject or phone is what people try; only the file's own form is checked here."""
    people = parse(line(site="nowhere", subjects=[9], phone="123"))
    assert people.persons[0].site == "nowhere"
