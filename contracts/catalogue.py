"""Every event class by its type string, and how a payload becomes an event.

Older majors of a fact are lifted step by step, so that readers only know the newest.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from contracts import confirmation, notification, payment, registration
from contracts.envelope import Envelope
from contracts.event import Event

_TYPE = re.compile(r"(kaowu\.[a-z]+\.[a-z]+(?:-[a-z]+)*)\.v([1-9][0-9]{0,3})")

# One step, from a major to the next: data of the old one in, data of the new one out. Pure.
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


class Unknown(Enum):
    """Verdict on a type nobody here reads: an unknown fact is skipped, another major of a known one parked."""

    TYPE = "unknown-type"
    MAJOR = "unknown-major"


class MalformedEvent(ValueError):
    """The payload is not what its type promises. `reason` names fields and rules, never values."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Catalogue:
    """Readers only ever see the newest class of a fact that the upcasters lead to."""

    def __init__(self, events: Iterable[type[Event]], upcasters: Mapping[str, Upcaster]) -> None:
        self.events: Mapping[str, type[Event]] = MappingProxyType({event.type: event for event in events})
        self._facts: set[str] = set()
        for type_ in (*self.events, *upcasters):
            self._facts.add(_split(type_)[0])
        self._routes: dict[str, tuple[type[Event], tuple[Upcaster, ...]]] = {
            type_: (event, ()) for type_, event in self.events.items()
        }
        for type_ in upcasters:
            fact, major = _split(type_)
            steps: list[Upcaster] = []
            while (step := upcasters.get(f"{fact}.v{major}")) is not None:
                steps.append(step)
                major += 1
            newest = self.events.get(f"{fact}.v{major}")
            if newest is None:
                raise ValueError(f"the upcasters of {type_} end at v{major}, which has no class")
            self._routes[type_] = (newest, tuple(steps))

    def look_up(self, type_: str) -> type[Event] | Unknown:
        """The class that a record of this type is read as, or why there is none."""
        route = self._routes.get(type_)
        if route is not None:
            return route[0]
        match = _TYPE.fullmatch(type_)
        if match is not None and match[1] in self._facts:
            return Unknown.MAJOR
        return Unknown.TYPE

    def parse(self, envelope: Envelope, payload: bytes) -> Event:
        """The event, with its envelope. MalformedEvent if the payload or the type is not in the catalogue."""
        route = self._routes.get(envelope.type)
        if route is None:
            raise MalformedEvent(f"no class reads this type: {self.look_up(envelope.type)}")
        event_class, steps = route
        try:
            # strict: what JSON Schema calls an integer is an integer, no "1" and no 1.0
            event: Event = event_class.__pydantic_validator__.validate_json(
                _lifted(payload, steps) if steps else payload, strict=True
            )
        except ValidationError as error:
            # `from None`: the error of the validator repeats the input
            raise MalformedEvent(_complaint(error)) from None
        event.carried_by(envelope)
        return event


def newest(type_: str) -> str:
    """The type that a record of this type is read as: its own, or the one that the upcasters lead to."""
    found = look_up(type_)
    return type_ if isinstance(found, Unknown) else found.type


def fact_of(type_: str) -> str:
    """A type without its major: what stays the same from one version to the next."""
    return type_.rpartition(".v")[0]


def _split(type_: str) -> tuple[str, int]:
    match = _TYPE.fullmatch(type_)
    if match is None:
        raise ValueError(f"{type_} is not kaowu.<service>.<fact>.v<major>")
    return match[1], int(match[2])


def _lifted(payload: bytes, steps: Iterable[Upcaster]) -> bytes:
    try:
        data = json.loads(payload)
        for step in steps:
            data = step(data)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedEvent(f"the old version could not be read: {type(error).__name__}") from None
    return json.dumps(data, ensure_ascii=False).encode()


def _complaint(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [
        f"{'.'.join(map(str, problem['loc'])) or 'payload'}: {problem['type']}" for problem in problems[:5]
    ]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    return "; ".join(shown)


UPCASTERS: Mapping[str, Upcaster] = MappingProxyType({})

_CATALOGUE = Catalogue(
    (
        registration.PreRegistered,
        registration.Amended,
        registration.ContactChanged,
        registration.Erased,
        registration.Withdrawn,
        confirmation.Confirmed,
        confirmation.Returned,
        confirmation.Reviewed,
        confirmation.Approved,
        confirmation.Rejected,
        confirmation.Lapsed,
        confirmation.WindowMoved,
        confirmation.DeskWindowSet,
        payment.Due,
        payment.ClosingSoon,
        payment.Paid,
        payment.Expired,
        payment.Reinstated,
        payment.Refunded,
        payment.WindowMoved,
        payment.SiteWindowSet,
        payment.WindowClosed,
        payment.ProofsPublished,
        payment.Reconciled,
        payment.BreakFound,
        payment.BreakClosed,
        notification.Delivered,
        notification.Undeliverable,
    ),
    UPCASTERS,
)

EVENTS: Mapping[str, type[Event]] = _CATALOGUE.events
look_up = _CATALOGUE.look_up
parse = _CATALOGUE.parse
