"""Whose turn it is: a poll's records in the order of their keys' versions, and the fewest calls of handlers that keep it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from aiokafka import ConsumerRecord

from contracts.envelope import Envelope
from contracts.event import Event
from services.chassis.parked import as_text

Record: TypeAlias = ConsumerRecord[bytes | None, bytes | None]


Where: TypeAlias = tuple[str, str | None]
"""A topic and a key on it: what comes there comes in order."""


class Taken(NamedTuple):
    """A record that has a handler here. A tuple, as its envelope is, and what is asked of it more than once is kept."""

    record: Record
    event: Event
    envelope: Envelope
    handler: str
    where: Where


class Unfit(NamedTuple):
    """A record that can only be parked, and why."""

    record: Record
    reason: str
    envelope: Envelope | None

    @property
    def where(self) -> Where:
        return self.record.topic, None if self.record.key is None else as_text(self.record.key)


def in_turn(found: Sequence[Taken | Unfit]) -> list[Taken | Unfit]:
    """The same, each key's events in the order of their versions on the places that they came on (decision 0018).

    Nothing passes what cannot be read: what comes behind that waits for it.
    """
    if len({one.where for one in found}) == len(found):
        return list(found)
    turns: dict[Where, list[tuple[int, Taken]]] = {}
    ended: list[list[tuple[int, Taken]]] = []
    for place, one in enumerate(found):
        if isinstance(one, Taken):
            turns.setdefault(one.where, []).append((place, one))
        elif one.where in turns:
            ended.append(turns.pop(one.where))
    done = list(found)
    for together in (*ended, *turns.values()):
        in_order = sorted((one for _, one in together), key=_version)
        for (place, _), one in zip(together, in_order, strict=True):
            done[place] = one
    return done


def _version(one: Taken) -> int:
    return one.envelope.sequence


def runs(taken: Sequence[Taken]) -> list[tuple[str, list[Event]]]:
    """Split into runs of one type each, as few as keep the order of every key.

    Keys are independent, so an event joins the earliest run of its type that does not come before an event of its
    own key.
    """
    if len({one.event.type for one in taken}) == 1:
        return [(taken[0].handler, [one.event for one in taken])]
    done: list[tuple[str, list[Event]]] = []
    latest: dict[Where, int] = {}
    of_type: dict[str, list[int]] = {}
    for one in taken:
        kind = one.event.type
        at_least = latest.get(one.where, -1)
        place = next((i for i in of_type.get(kind, ()) if i >= at_least), None)
        if place is None:
            place = len(done)
            done.append((one.handler, []))
            of_type.setdefault(kind, []).append(place)
        done[place][1].append(one.event)
        latest[one.where] = place
    return done
