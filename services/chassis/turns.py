"""Whose turn it is: a poll's records in the order of their keys' versions, and the fewest calls of handlers that keep it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from aiokafka import ConsumerRecord

from contracts.envelope import Envelope
from contracts.event import Event
from services.chassis.parked import as_text

Record: TypeAlias = ConsumerRecord[bytes | None, bytes | None]


@dataclass(frozen=True, slots=True)
class Taken:
    """A record that has a handler here."""

    record: Record
    event: Event
    handler: str

    @property
    def key(self) -> str | None:
        return _key(self.record)


@dataclass(frozen=True, slots=True)
class Unfit:
    """A record that can only be parked, and why."""

    record: Record
    reason: str
    envelope: Envelope | None

    @property
    def key(self) -> str | None:
        return _key(self.record)


def _key(record: Record) -> str | None:
    return None if record.key is None else as_text(record.key)


def in_turn(found: Sequence[Taken | Unfit]) -> list[Taken | Unfit]:
    """The same, each key's events in the order of their versions on the places that they came on (decision 0018).

    Nothing passes what cannot be read: what comes behind that waits for it.
    """
    turns: dict[tuple[str, str | None], list[tuple[int, Taken]]] = {}
    ended: list[list[tuple[int, Taken]]] = []
    for place, one in enumerate(found):
        where = (one.record.topic, one.key)
        if isinstance(one, Taken):
            turns.setdefault(where, []).append((place, one))
        elif where in turns:
            ended.append(turns.pop(where))
    done = list(found)
    for together in (*ended, *turns.values()):
        in_order = sorted((one for _, one in together), key=_version)
        for (place, _), one in zip(together, in_order, strict=True):
            done[place] = one
    return done


def _version(one: Taken) -> int:
    return one.event.envelope.sequence


def runs(taken: Iterable[Taken]) -> list[tuple[str, list[Event]]]:
    """Split into runs of one type each, as few as keep the order of every key.

    Keys are independent, so an event joins the earliest run of its type that does not come before an event of its
    own key.
    """
    done: list[tuple[str, str, list[Event]]] = []
    latest: dict[tuple[str, str], int] = {}
    of_type: dict[str, list[int]] = {}
    for one in taken:
        kind, where = one.event.type, (one.record.topic, one.event.key)
        at_least = latest.get(where, -1)
        place = next((i for i in of_type.get(kind, ()) if i >= at_least), None)
        if place is None:
            place = len(done)
            done.append((kind, one.handler, []))
            of_type.setdefault(kind, []).append(place)
        done[place][2].append(one.event)
        latest[where] = place
    return [(handler, events) for _, handler, events in done]
