"""How far each person has come in a rehearsal: what they hold, what was refused, what comes next."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from deploy.rehearsal.identity import Identity
from deploy.rehearsal.people import Person, Step


@dataclass(frozen=True, slots=True)
class Refusal:
    step: int
    code: str


@dataclass(frozen=True, slots=True)
class Done:
    """One step as it went, for the person's story."""

    at: datetime
    verb: str
    fields: Mapping[str, Any]
    code: str | None


@dataclass(slots=True)
class Standing:
    person: Person
    identity: Identity
    site: str
    registration_id: str | None = None
    registrations: list[str] = field(default_factory=list)
    form_version: int = 1
    orders: list[tuple[str, str]] = field(default_factory=list)
    """(channel, order number), oldest first."""
    refused: list[Refusal] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)

    def note(self, step: Step, code: str | None) -> None:
        if code is not None:
            self.refused.append(Refusal(step.index, code))
        self.done.append(Done(step.at, step.verb.value, step.fields, code))


@dataclass(frozen=True, slots=True)
class Turn:
    """A step of a person that waits for its moment."""

    at: datetime
    line: int
    step: Step
    standing: Standing
    human: Human


@dataclass(slots=True, eq=False)
class Human:
    """Lines of one identity share it: their steps run one after the other, in the order of moment and file."""

    turns: deque[Turn] = field(default_factory=deque)
    needs: int = 0
    """Hops of the streams that must be complete before the next step."""
    held_until: datetime | None = None
    """When a service that the person found stopped comes back."""
