"""How often the relay asks its database when there is nothing to publish."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import asyncpg
from aiokafka import AIOKafkaProducer

from services.chassis import relay
from services.chassis.relay import Relay


class Empty:
    """A database without anything to publish. `held`: something is written, and another writer holds it back."""

    def __init__(self, *, held: bool) -> None:
        self.held = held
        self.asked = 0

    async def fetchrow(self, statement: str, *_: object) -> dict[str, Any]:
        if statement == relay._CURSOR:
            return {"lower": "1", "upper": None, "last_id": 0}
        self.asked += 1
        return {"upper": "9", "first_id": None, "beyond": self.held}


def idling(database: Empty) -> tuple[Relay, asyncio.Task[None]]:
    one = Relay("postgresql://nowhere", "nowhere:1", service="payment")
    connection = cast("asyncpg.Connection[Any]", database)
    return one, asyncio.create_task(one._publish_all(connection, cast("AIOKafkaProducer", None)))


async def test_what_a_writer_holds_back_is_looked_for_soon_and_nothing_is_not() -> None:
    """Whoever commits wakes the relay: only what is written already and not yet to be read is worth asking for."""
    held, empty = Empty(held=True), Empty(held=False)
    relays = [idling(held), idling(empty)]
    while held.asked < 6:
        await asyncio.sleep(0.002)
    assert empty.asked <= 2
    before = empty.asked
    relays[1][0].wake()
    await asyncio.sleep(0)
    while empty.asked == before:
        await asyncio.sleep(0.001)
    for one, task in relays:
        one.stop()
        await task
