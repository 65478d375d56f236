"""Reads and writes people files (JSON Lines). Checks their form and says every problem at once; whether a step
is *allowed* is for the system to say, so a wrong site, a wrong subject or a bad phone passes through untouched."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from deploy.rehearsal.people import People, Person, Step, Verb, WorldEvent, WorldVerb

IDENTITY_FIELDS = frozenset(
    {"name", "id_type", "id_number", "phone", "email", "employer", "employer_code", "photo"}
)
CHOICE_FIELDS = frozenset({"site", "specialty", "subjects", "returning"})
PERSON_FIELDS = frozenset({"person", "steps", "same_person_as"}) | IDENTITY_FIELDS | CHOICE_FIELDS

STEP_FIELDS: Mapping[Verb, frozenset[str]] = {
    Verb.PRE_REGISTER: IDENTITY_FIELDS | CHOICE_FIELDS,
    Verb.AMEND: IDENTITY_FIELDS | CHOICE_FIELDS,
    Verb.WITHDRAW: frozenset({"reason"}),
    Verb.CONFIRM: frozenset({"form_version", "missing", "desk", "identity_seen", "stamped"}),
    Verb.RETURN: frozenset({"reasons", "fix_until", "level", "desk", "note"}),
    Verb.APPROVE: frozenset({"level", "reasons", "note"}),
    Verb.REJECT: frozenset({"level", "reasons", "desk", "note"}),
    Verb.ORDER: frozenset({"channel"}),
    Verb.PAY: frozenset({"callback", "order"}),
}
STEP_NEEDS: Mapping[Verb, frozenset[str]] = {Verb.APPROVE: frozenset({"level"})}

WORLD_FIELDS: Mapping[WorldVerb, frozenset[str]] = {
    WorldVerb.GATEWAY_DOWN: frozenset({"channel", "for"}),
    WorldVerb.CARRIER_DOWN: frozenset({"channel", "for"}),
    WorldVerb.KILL: frozenset({"service", "for"}),
    WorldVerb.FREEZE: frozenset({"service", "for", "seconds"}),
    WorldVerb.BROKER_DOWN: frozenset({"for"}),
    WorldVerb.DATABASE_RESTART: frozenset({"for"}),
    WorldVerb.CALLBACK_REPLAY: frozenset({"person"}),
    WorldVerb.SET_DESK_WINDOW: frozenset({"site", "opens", "closes", "reason"}),
    WorldVerb.EXTEND: frozenset({"window", "opens", "closes", "reason"}),
    WorldVerb.REVIVE: frozenset({"person", "closes", "reason"}),
}
WORLD_NEEDS: Mapping[WorldVerb, frozenset[str]] = {
    WorldVerb.GATEWAY_DOWN: frozenset({"for"}),
    WorldVerb.CARRIER_DOWN: frozenset({"for"}),
    WorldVerb.KILL: frozenset({"service"}),
    WorldVerb.FREEZE: frozenset({"service"}),
    WorldVerb.BROKER_DOWN: frozenset({"for"}),
    WorldVerb.SET_DESK_WINDOW: frozenset({"site", "opens", "closes"}),
    WorldVerb.EXTEND: frozenset({"window", "closes"}),
    WorldVerb.REVIVE: frozenset({"person", "reason"}),
}
V = TypeVar("V", Verb, WorldVerb)

SERVICES = ("registration", "confirmation", "payment", "notification")
MOMENT_FIELDS = frozenset({"opens", "closes", "fix_until"})


@dataclass(frozen=True, slots=True)
class Problem:
    line: int
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}; {self.remedy}"


class PeopleFileInvalid(Exception):
    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def read(path: Path) -> People:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise PeopleFileInvalid(
            [Problem(line, "bytes that are not UTF-8", "save the file as UTF-8")]
        ) from error
    return parse(text)


def parse(text: str) -> People:
    reader = _Reader()
    # Not splitlines(): a name may hold U+2028 or U+0085, which JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            reader.take(number, line)
    return reader.finish()


class _Reader:
    def __init__(self) -> None:
        self.persons: dict[str, Person] = {}
        self.world: list[WorldEvent] = []
        self.problems: list[Problem] = []
        self.number = 0

    def wrong(self, what: str, remedy: str) -> None:
        self.problems.append(Problem(self.number, what, remedy))

    def take(self, number: int, line: str) -> None:
        self.number = number
        try:
            data = json.loads(line)
        except json.JSONDecodeError as error:
            self.wrong(
                f"not JSON at column {error.colno}: {error.msg}", "write one complete JSON object per line"
            )
            return
        if not isinstance(data, dict):
            self.wrong(f"{_kind(data)}, not an object", 'write {"person": …} or {"world": […]}')
        elif "world" in data:
            self.take_world(data)
        elif "person" in data:
            self.take_person(data)
        else:
            self.wrong('neither "person" nor "world"', 'write {"person": …} or {"world": […]}')

    def take_person(self, data: dict[str, Any]) -> None:
        name = data["person"]
        if not isinstance(name, str) or not name:
            self.wrong('"person" is not a name', 'give it text, such as "p0001"')
            return
        before = len(self.problems)
        for key in sorted(data.keys() - PERSON_FIELDS):
            self.wrong(f'{name}: unknown key "{key}"', f"use {_listed(PERSON_FIELDS)}")
        if name in self.persons:
            self.wrong(
                f"{name} is written twice, first on line {self.persons[name].line}",
                "give each line its own name",
            )
        site = self.text(data, "site", name)
        specialty = self.text(data, "specialty", name)
        subjects = data.get("subjects")
        if not _is_numbers(subjects):
            self.wrong(
                f'{name}: "subjects" is {_kind(subjects)}', "write a list of numbers, such as [1, 2, 3, 4]"
            )
        returning = data.get("returning", False)
        if not isinstance(returning, bool):
            self.wrong(f'{name}: "returning" is {_kind(returning)}', "write true or false")
        other = data.get("same_person_as")
        if other is not None and not isinstance(other, str):
            self.wrong(f'{name}: "same_person_as" is {_kind(other)}', "write the name of another line")
        steps = self.steps(name, data.get("steps"))
        if len(self.problems) == before:
            given = {key: data[key] for key in data.keys() & IDENTITY_FIELDS}
            self.persons[name] = Person(
                name, site, specialty, tuple(subjects or ()), returning, steps, other, given, self.number
            )

    def steps(self, name: str, data: object) -> tuple[Step, ...]:
        if not isinstance(data, list):
            self.wrong(f'{name}: "steps" is {_kind(data)}', "write a list of steps, which may be empty")
            return ()
        steps = []
        for index, one in enumerate(data):
            where = f"{name}, step {index}"
            if not isinstance(one, dict):
                self.wrong(f"{where} is {_kind(one)}", 'write {"at": …, "do": …}')
                continue
            verb = self.verb(where, one.get("do"), Verb)
            at = self.moment(where, "at", one.get("at"))
            if verb is None or at is None:
                continue
            fields = {key: value for key, value in one.items() if key not in ("at", "do")}
            self.check_fields(where, verb, fields, STEP_FIELDS[verb], STEP_NEEDS.get(verb, frozenset()))
            self.check_step(where, verb, fields)
            steps.append(Step(index, at, verb, fields))
        return tuple(steps)

    def check_step(self, where: str, verb: Verb, fields: dict[str, Any]) -> None:
        for key in ("missing", "reasons"):
            value = fields.get(key, [])
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                self.wrong(f'{where}: "{key}" is {_kind(value)}', "write a list of words")
        if "fix_until" in fields and fields["fix_until"] is not None:
            self.moment(where, "fix_until", fields["fix_until"])
        if verb is Verb.PAY:
            try:
                callbacks(fields)
            except ValueError as error:
                self.wrong(f"{where}: {error}", 'write seconds, "never", or a list of seconds')
            if not isinstance(fields.get("order", 0), int):
                self.wrong(f'{where}: "order" is {_kind(fields["order"])}', "write its index, counted from 0")

    def take_world(self, data: dict[str, Any]) -> None:
        for key in sorted(data.keys() - {"world"}):
            self.wrong(f'unknown key "{key}" beside "world"', "give people lines of their own")
        if not isinstance(data["world"], list):
            self.wrong(f'"world" is {_kind(data["world"])}', "write a list of events")
            return
        for index, one in enumerate(data["world"]):
            where = f"world event {index}"
            if not isinstance(one, dict):
                self.wrong(f"{where} is {_kind(one)}", 'write {"at": …, "do": …}')
                continue
            verb = self.verb(where, one.get("do"), WorldVerb)
            at = self.moment(where, "at", one.get("at"))
            if verb is None or at is None:
                continue
            fields = {key: value for key, value in one.items() if key not in ("at", "do")}
            self.check_fields(where, verb, fields, WORLD_FIELDS[verb], WORLD_NEEDS.get(verb, frozenset()))
            self.check_world(where, fields)
            self.world.append(WorldEvent(at, verb, fields, self.number, index))

    def check_world(self, where: str, fields: dict[str, Any]) -> None:
        for key in ("for", "seconds"):
            value = fields.get(key, 0)
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                self.wrong(f'{where}: "{key}" is {value!r}', "write how many seconds it lasts")
        for key in MOMENT_FIELDS & fields.keys():
            self.moment(where, key, fields[key])
        if "service" in fields and fields["service"] not in SERVICES:
            self.wrong(f'{where}: unknown service "{fields["service"]}"', f"use {_listed(SERVICES)}")

    def check_fields(
        self,
        where: str,
        verb: Verb | WorldVerb,
        fields: dict[str, Any],
        known: frozenset[str],
        needs: frozenset[str],
    ) -> None:
        for key in sorted(fields.keys() - known):
            takes = _listed(known) if known else "nothing beside at and do"
            self.wrong(f'{where}: "{verb}" has no "{key}"', f"it takes {takes}")
        for key in sorted(needs - fields.keys()):
            self.wrong(f'{where}: "{verb}" lacks "{key}"', f'add "{key}"')

    def text(self, data: dict[str, Any], key: str, name: str) -> str:
        value = data.get(key)
        if not isinstance(value, str):
            self.wrong(f'{name}: "{key}" is {_kind(value)}', "write its id as text")
            return ""
        return value

    def verb(self, where: str, value: object, verbs: type[V]) -> V | None:
        try:
            return verbs(str(value))
        except ValueError:
            self.wrong(f'{where}: "do" is {value!r}', f"use {_listed(verb.value for verb in verbs)}")
            return None

    def moment(self, where: str, key: str, value: object) -> datetime | None:
        remedy = "write it like 2023-12-03T10:00:00+08:00"
        if not isinstance(value, str):
            self.wrong(f'{where}: "{key}" is {_kind(value)}', remedy)
            return None
        try:
            at = moment(value)
        except ValueError as error:
            self.wrong(f'{where}: "{key}" {error}', remedy)
            return None
        return at

    def finish(self) -> People:
        for person in self.persons.values():
            self.number = person.line
            if person.same_person_as is not None and person.same_person_as not in self.persons:
                self.wrong(
                    f'{person.name}: same_person_as names "{person.same_person_as}", who is not in the file',
                    "name another line of this file",
                )
        for event in self.world:
            self.number = event.line
            if event.verb is WorldVerb.REVIVE and event.fields.get("person") not in self.persons:
                self.wrong(
                    f'"revive" names {event.fields.get("person")!r}, who is not in the file',
                    "name a line of this file",
                )
        if self.problems:
            raise PeopleFileInvalid(self.problems)
        if not self.persons:
            self.number = max(self.number, 1)
            self.wrong("nobody is in the file", 'write at least one line {"person": …}')
            raise PeopleFileInvalid(self.problems)
        people = People(tuple(self.persons.values()), tuple(self.world))
        for person in people.persons:
            # Following the names from somebody who stands alone ends there; in a circle it ends in the circle.
            if self.persons[people.first_of(person)].same_person_as is not None:
                self.number = person.line
                self.wrong(f"{person.name}: same_person_as goes in a circle", "let one line stand alone")
        if self.problems:
            raise PeopleFileInvalid(self.problems)
        return people


def moment(value: str) -> datetime:
    """An instant with its offset. A time without one would mean another moment on another machine."""
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f'"{value}" is no moment') from None
    if at.tzinfo is None:
        raise ValueError(f'"{value}" has no time zone')
    return at


def callbacks(fields: Mapping[str, Any]) -> tuple[float, ...]:
    """After how many seconds the gateway calls back: none for "never", one, or several."""
    value = fields.get("callback", 1)
    if value == "never":
        return ()
    several = value if isinstance(value, list) else [value]
    for one in several:
        if isinstance(one, bool) or not isinstance(one, int | float) or one < 0:
            raise ValueError(f'"callback" has {one!r}')
    return tuple(float(one) for one in several)


def write(people: People, path: Path) -> None:
    path.write_text(dump(people), encoding="utf-8")


def dump(people: People) -> str:
    lines: list[tuple[int, str]] = []
    for person in people.persons:
        data: dict[str, Any] = {
            "person": person.name,
            "site": person.site,
            "specialty": person.specialty,
            "subjects": list(person.subjects),
            "returning": person.returning,
        }
        if person.same_person_as is not None:
            data["same_person_as"] = person.same_person_as
        data.update(sorted(person.given.items()))
        data["steps"] = [
            {"at": step.at.isoformat(), "do": step.verb.value, **step.fields} for step in person.steps
        ]
        lines.append((person.line, json.dumps(data, ensure_ascii=False)))
    by_line: dict[int, list[dict[str, Any]]] = {}
    for event in people.world:
        by_line.setdefault(event.line, []).append(
            {"at": event.at.isoformat(), "do": event.verb.value, **event.fields}
        )
    lines.extend(
        (line, json.dumps({"world": events}, ensure_ascii=False)) for line, events in by_line.items()
    )
    # The order of a file is part of its meaning: steps at one moment run in it.
    lines.sort(key=lambda one: one[0])
    return "".join(line + "\n" for _, line in lines)


def _is_numbers(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, int) and not isinstance(one, bool) for one in value
    )


def _kind(value: object) -> str:
    if value is None:
        return "missing"
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))
