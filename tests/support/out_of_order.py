"""Row 18 of the fault matrix for first arrivals: what one topic says of a key, in every order in which it could come.

Each order has a person of its own, so that all of them are played in as many polls as a life has events.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import permutations
from typing import Any, Final
from uuid import UUID

import pytest

from contracts.event import Event
from services.chassis import consuming, parked
from services.chassis.heard import OVERTAKEN, Heard
from tests.support.under_test import ServiceUnderTest

Life = Callable[[UUID], Sequence[Event]]
"""What is said of somebody, in its order: versions 1, 2, 3, …"""
Order = tuple[int, ...]
NOTE: Final = "too late: later versions were taken in"


async def in_every_order(
    system: ServiceUnderTest,
    life: Life,
    somebody: Callable[[], Awaitable[UUID]],
    *,
    polls: bool,
) -> Mapping[Order, UUID]:
    """Who lived in which order. `polls`: an event a poll, and what was parked is then dealt with as an operator does;
    otherwise everything of everybody comes in one."""
    count = len(life(UUID(int=0)))
    people = {order: await somebody() for order in permutations(range(count))}
    said = {one: list(enumerate(life(one), start=1)) for one in people.values()}
    came = [
        [system.record(said[one][order[turn]][1], said[one][order[turn]][0]) for order, one in people.items()]
        for turn in range(count)
    ]
    with _parked_at_once():
        for poll in came if polls else [[record for turn in came for record in turn]]:
            await system.process.consumers.on_batch(poll)
        await _dealt_with(system)
    return people


@contextmanager
def _parked_at_once() -> Iterator[None]:
    """What a handler refuses is not tried three times first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consuming, "ATTEMPTS", 1)
        yield


async def _dealt_with(system: ServiceUnderTest) -> None:
    """Everything that can be is replayed; what was overtaken is refused, and discarded with a note."""
    waiting, before = await _waiting(system), -1
    while len(waiting) != before:
        before = len(waiting)
        for parked_id, reason in waiting:
            try:
                await parked.replay(system.database, system.process.consumers, parked_id)
                assert not reason.startswith(OVERTAKEN), (
                    "what was overtaken was applied over what overtook it"
                )
            except parked.CannotReplay:
                pass
        waiting = await _waiting(system)
    for parked_id, reason in waiting:
        assert reason.startswith(f"{OVERTAKEN}: by version "), f"waits for ever: {reason}"
        await parked.discard(system.database, parked_id, NOTE)


async def _waiting(system: ServiceUnderTest) -> list[tuple[int, str]]:
    rows = await system.rows("select id, reason from parked where status = 'parked' order by id")
    return [(row["id"], row["reason"]) for row in rows]


def otherwise(people: Mapping[Order, UUID], meaning: Callable[[UUID], Any]) -> dict[Order, tuple[Any, Any]]:
    """The orders that came to something else than the right one: (that, this)."""
    right = meaning(next(iter(people.values())))
    return {order: (right, found) for order, one in people.items() if (found := meaning(one)) != right}


async def nothing_lost(system: ServiceUnderTest, life: Life, people: Mapping[Order, UUID]) -> int:
    """Whatever has a handler was taken in, or an operator has decided about it. Returns how many were overtaken."""
    handled = sum(type(event).type in system.process.consumers._handlers for event in life(UUID(int=0)))
    (taken,) = await system.rows("select count(*) as n from inbox")
    (late,) = await system.rows("select count(*) as n from parked where status = 'discarded'")
    assert taken["n"] + late["n"] == handled * len(people)
    return int(late["n"])


@contextmanager
def nobody_remembers() -> Iterator[None]:
    """No process knows how far it has got with a key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Heard, "past", lambda *_: None)
        yield
