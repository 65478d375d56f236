"""A database that has forgotten what its service said, on a real broker: such a service does not work, and says what to do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from contracts.envelope import Envelope
from deploy.local.databases import DatabaseLogin
from services.chassis.db import driver_url
from services.chassis.forgetting import Forgotten, require_memory
from services.chassis.relay import Relay
from tests.support.eventually import eventually
from tests.support.kafka import TestKafka
from tests.support.streams import TOPIC, confirmed, database, make_tables, relaying, say

pytestmark = pytest.mark.broker

YEARS = timedelta(days=730)


class Said:
    """A service that has said three versions each of a few registrations."""

    def __init__(self, login: DatabaseLogin, kafka: TestKafka) -> None:
        self.login, self.kafka = login, kafka
        self.people = [uuid4() for _ in range(6)]

    async def begin(self) -> None:
        await make_tables(self.login)
        await self.kafka.fresh({TOPIC: 4})
        db = database(self.login)
        async with relaying(self.login, self.kafka.bootstrap) as relay:
            for _ in range(3):
                for person in self.people:
                    async with db.unit_of_work() as uow:
                        await say(uow, person)

            async def all_out() -> bool:
                return relay.published == 18

            await eventually(all_out, within=15)
        await db.dispose()

    async def require_memory(self, now: datetime | None = None) -> None:
        await require_memory(
            "confirmation", self.login.url, self.kafka.bootstrap, now=now or datetime.now(UTC), kept=YEARS
        )

    async def forget(self, person: UUID, sequence: int) -> None:
        connection = await asyncpg.connect(driver_url(self.login.url))
        await connection.execute("delete from outbox where key = $1 and sequence = $2", str(person), sequence)
        await connection.close()


@pytest.fixture
async def said(blank_database: DatabaseLogin, kafka: TestKafka) -> Said:
    found = Said(blank_database, kafka)
    await found.begin()
    return found


async def test_a_database_that_knows_what_was_said_may_be_worked_on(said: Said) -> None:
    await said.require_memory()


@pytest.mark.parametrize("sequence", [1, 3], ids=["in between", "the last"])
async def test_one_forgotten_event_is_enough_and_is_named(said: Said, sequence: int) -> None:
    """A standby that lagged by one commit lacks one event."""
    await said.forget(said.people[2], sequence)
    with pytest.raises(Forgotten, match=rf"version {sequence} of {said.people[2]} .*kaowu catch-up"):
        await said.require_memory()


async def test_another_event_under_the_same_version_is_no_memory_of_it(said: Said) -> None:
    connection = await asyncpg.connect(driver_url(said.login.url))
    await connection.execute(
        "update outbox set event_id = $1 where key = $2 and sequence = 3", uuid7(), str(said.people[0])
    )
    await connection.close()
    with pytest.raises(Forgotten, match="version 3"):
        await said.require_memory()


async def test_events_that_the_log_no_longer_keeps_are_not_asked_for(said: Said) -> None:
    await said.forget(said.people[0], 3)
    await said.require_memory(now=datetime.now(UTC) + YEARS + timedelta(days=1))


async def test_what_others_put_on_the_topic_is_no_word_of_the_service(said: Said) -> None:
    stranger = confirmed(uuid4())
    envelope = Envelope(
        event_id=uuid7(),
        type=stranger.type,
        source=stranger.source,
        subject=stranger.key,
        time=datetime.now(UTC),
        dataschema=stranger.dataschema(),
        sequence=1,
        correlation_id="chain",
    )
    headers: list[tuple[str, bytes]] = list(envelope.headers())
    spoilt: list[tuple[bytes | None, bytes, Any]] = [
        (stranger.key.encode(), b"\xff", headers),
        (b"another", stranger.model_dump_json().encode(), headers),
        (None, b"", []),
        (stranger.key.encode(), b"{}", [("ce_type", b"kaowu.confirmation.confirmed.v99")]),
    ]
    await said.kafka.produce(TOPIC, spoilt)
    await said.require_memory()


async def test_where_nothing_was_said_nothing_is_forgotten(
    blank_database: DatabaseLogin, kafka: TestKafka
) -> None:
    await make_tables(blank_database)
    await kafka.fresh({TOPIC: 4})
    for service in ("confirmation", "examination"):
        await require_memory(service, blank_database.url, kafka.bootstrap, now=datetime.now(UTC), kept=YEARS)


async def test_a_relay_publishes_nothing_from_such_a_database_and_ends(said: Said) -> None:
    db = database(said.login)
    async with db.unit_of_work() as uow:
        await say(uow, said.people[0])
    await db.dispose()
    await said.forget(said.people[1], 3)
    relay = Relay(
        said.login.url, said.kafka.bootstrap, service="confirmation", before_leading=said.require_memory
    )
    with pytest.raises(Forgotten):
        await asyncio.wait_for(relay.run(), 20)
    assert relay.published == 0
    assert len(await said.kafka.read(TOPIC)) == 18
