"""Lets one service live again through what it said and heard, in a database that is not its live one.

What others said goes through the service's own consumers. What it said itself is folded into its rows; where a consumer has
just said it again, the two must agree, and the log's own row takes the place of the new one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from contracts.catalogue import newest
from contracts.cycle import Cycle
from deploy.replay.folds import BOOKED, FOLDS
from deploy.replay.history import Said
from deploy.replay.order import Step
from deploy.replay.reactions import consumers_of
from services.chassis.db import Database, UnitOfWork

BATCH: Final = 500
_ANALYZED_AT: Final = frozenset(BATCH * 4**n for n in range(10))
_KNOWN: Final = """
select o.key, o.sequence, o.event_id, o.type, o.payload from outbox o
where (o.key, o.sequence) in (select * from unnest($1::text[], $2::bigint[]))
"""
# Said on a topic: whatever the relay's cursor is, it is out (see `relay.py`: what lies below `lower` is published).
_PUBLISHED: Final = "3"
_ADD: Final = """
insert into outbox (xid, event_id, topic, key, type, sequence, occurred_at, payload, correlation_id, causation_id,
                    traceparent)
select $11::text::xid8, * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::timestamptz[],
                         $7::text[], $8::text[], $9::text[], $10::text[])
"""
_TAKE_BACK: Final = """
delete from outbox o using unnest($1::text[], $2::bigint[]) as t(key, sequence)
where o.key = t.key and o.sequence = t.sequence
"""


class CannotReplay(Exception):
    """An event that the code of today cannot live through again; says which."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A consumer, given the same cause, says something else now than its service said then."""

    key: str
    sequence: int
    said_then: str
    says_now: str
    fields: tuple[str, ...]


@dataclass
class Replayed:
    """What a replay did."""

    heard: int = 0
    folded: int = 0
    reacted: int = 0
    known: int = 0
    contradictions: list[Contradiction] = field(default_factory=list)


async def replay(
    database: Database,
    service: str,
    cycle: Cycle,
    steps: Sequence[Step],
    *,
    book: bool = True,
    tick: Callable[[int], None] = lambda _: None,
) -> Replayed:
    """All steps in their order, `BATCH` in a transaction. `book`: money is booked from its event (comparisons only)."""
    consumers = consumers_of(service, database, cycle)
    levels = [level.id for level in cycle.review_levels]
    done = Replayed()
    for start in range(0, len(steps), BATCH):
        batch = steps[start : start + BATCH]
        async with database.unit_of_work(batch[0].at) as uow:
            for (at, own), together in groupby(batch, key=lambda step: (step.at, step.own)):
                uow.at = at
                events = [step.said for step in together]
                if own:
                    await _fold(uow, service, events, levels, done, book=book)
                    continue
                try:
                    await consumers.replay(uow, *(one.record() for one in events))
                except Exception as error:
                    raise CannotReplay(
                        f"{service} cannot take {len(events)} events of {at.isoformat()} in again, the first is "
                        f"{events[0].type} {events[0].event_id}: {type(error).__name__}"
                    ) from error
                done.heard += len(events)
            if start in _ANALYZED_AT:
                # Plans made while the tables were empty would read them whole for every batch.
                await uow.sql("analyze")
        tick(len(batch))
    return done


async def _fold(
    uow: UnitOfWork, service: str, events: Sequence[Said], levels: list[str], done: Replayed, *, book: bool
) -> None:
    keys, numbers = [one.key for one in events], [one.sequence for one in events]
    there = {(row.key, row.sequence): row for row in await uow.sql(_KNOWN, keys, numbers)}
    fresh, replaced = [], []
    for one in events:
        row = there.get((one.key, one.sequence))
        if row is None:
            fresh.append(one)
        elif row.event_id == one.event_id:
            done.known += 1
        else:
            replaced.append(one)
            _compare(one, row, done)
    if replaced:
        done.reacted += len(replaced)
        await uow.sql(_TAKE_BACK, [one.key for one in replaced], [one.sequence for one in replaced])
        await _add(uow, replaced)
    for turn in _turns(fresh):
        await _fold_one_type(uow, service, turn, levels, book=book)
    done.folded += len(fresh)
    await _add(uow, fresh)


async def _fold_one_type(
    uow: UnitOfWork, service: str, events: Sequence[Said], levels: list[str], *, book: bool
) -> None:
    word = events[0].word
    statements = FOLDS[service].get(word)
    if statements is None:
        raise CannotReplay(
            f"{service} said {events[0].type} {events[0].event_id} without the cause that makes it say so"
        )
    given = json.dumps(
        [
            {
                "key": one.key,
                "sequence": one.sequence,
                "at": one.occurred_at.isoformat(),
                "causation": one.causation_id,
                "p": one.facts,
            }
            for one in events
        ]
    )
    more: tuple[object, ...] = (levels,) if service == "confirmation" else ()
    for statement in (*statements, *((BOOKED,) if book and word == "paid" else ())):
        await uow.sql(statement, given, *more)


async def _add(uow: UnitOfWork, events: Sequence[Said]) -> None:
    if events:
        rows = [
            (
                one.event_id, one.topic, one.key, one.type, one.sequence, one.occurred_at, one.payload,
                one.correlation_id, one.causation_id, one.traceparent,
            )
            for one in events
        ]  # fmt: skip
        await uow.sql(_ADD, *[list(column) for column in zip(*rows, strict=True)], _PUBLISHED)


def _compare(then: Said, now: Any, done: Replayed) -> None:
    said: Mapping[str, Any] = json.loads(now.payload)
    fields = tuple(
        sorted(name for name in said.keys() | then.facts.keys() if said.get(name) != then.facts.get(name))
    )
    if now.type != then.type or fields:
        done.contradictions.append(Contradiction(then.key, then.sequence, then.type, now.type, fields))


def _turns(events: Sequence[Said]) -> Iterator[list[Said]]:
    """Groups of one type with each key once, in an order that keeps every key's own."""
    groups: list[list[Said]] = []
    latest: dict[str, int] = {}
    of_type: dict[str, list[int]] = {}
    for one in events:
        least = latest.get(one.key, -1)
        place = next((i for i in of_type.get(one.type, ()) if i > least), None)
        if place is None:
            place = len(groups)
            groups.append([])
            of_type.setdefault(one.type, []).append(place)
        groups[place].append(one)
        latest[one.key] = place
    yield from groups


def of_others(said: Mapping[str, Sequence[Said]], service: str, handled: frozenset[str]) -> dict[UUID, Said]:
    """What the other services said that this one has a handler for."""
    return {
        one.event_id: one
        for other, events in said.items()
        if other != service
        for one in events
        if newest(one.type) in handled
    }
