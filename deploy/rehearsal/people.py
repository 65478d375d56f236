"""The people of a rehearsal and the world around them: who does what, when. Knows no system and no rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

Fields = Mapping[str, Any]


class Verb(StrEnum):
    PRE_REGISTER = "pre-register"
    AMEND = "amend"
    WITHDRAW = "withdraw"
    CONFIRM = "confirm"
    RETURN = "return"
    APPROVE = "approve"
    REJECT = "reject"
    ORDER = "order"
    PAY = "pay"


class WorldVerb(StrEnum):
    GATEWAY_DOWN = "gateway-down"
    CARRIER_DOWN = "carrier-down"
    KILL = "kill"
    FREEZE = "freeze"
    BROKER_DOWN = "broker-down"
    DATABASE_RESTART = "database-restart"
    CALLBACK_REPLAY = "callback-replay"
    SET_DESK_WINDOW = "set-desk-window"
    EXTEND = "extend"
    REVIVE = "revive"


@dataclass(frozen=True, slots=True)
class Step:
    index: int
    """Place in the person's `steps` as written; a refusal is recorded with it."""
    at: datetime
    verb: Verb
    fields: Fields


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    site: str
    specialty: str
    subjects: tuple[int, ...]
    returning: bool
    steps: tuple[Step, ...]
    same_person_as: str | None = None
    given: Fields = field(default_factory=dict)
    """Identity fields the file gives instead of letting them be invented."""
    line: int = 0


@dataclass(frozen=True, slots=True)
class WorldEvent:
    at: datetime
    verb: WorldVerb
    fields: Fields
    line: int = 0
    index: int = 0


@dataclass(frozen=True)
class People:
    persons: tuple[Person, ...]
    world: tuple[WorldEvent, ...] = ()

    @cached_property
    def _named(self) -> dict[str, Person]:
        return {one.name: one for one in self.persons}

    def first_of(self, person: Person) -> str:
        """The line whose identity this one carries: `same_person_as` followed to its end."""
        seen = {person.name}
        while person.same_person_as is not None and person.same_person_as not in seen:
            seen.add(person.same_person_as)
            person = self._named[person.same_person_as]
        return person.name
