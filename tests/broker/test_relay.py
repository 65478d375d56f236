"""The relay on a real broker and a real database: nothing lost, order per key, whatever transactions overlap."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from deploy.local.databases import DatabaseLogin
from services.chassis.db import driver_url
from tests.support.eventually import eventually
from tests.support.kafka import TestKafka
from tests.support.streams import TOPIC, confirmed, database, make_tables, relaying, say, sequences

pytestmark = pytest.mark.broker


async def test_what_was_committed_is_published_once_and_in_order(
    blank_database: DatabaseLogin, kafka: TestKafka
) -> None:
    await make_tables(blank_database)
    await kafka.fresh({TOPIC: 4})
    people = [uuid4() for _ in range(20)]
    db = database(blank_database)
    async with relaying(blank_database, kafka.bootstrap) as relay:
        db.on_events = relay.wake
        for _ in range(10):
            for person in people:
                async with db.unit_of_work() as uow:
                    await say(uow, person)

        async def all_out() -> bool:
            return relay.published == 200

        await eventually(all_out, within=15)
    await db.dispose()
    records = await kafka.read(TOPIC)
    assert len(records) == 200
    assert sequences(records) == {str(person): list(range(1, 11)) for person in people}


async def test_what_was_rolled_back_is_never_published(
    blank_database: DatabaseLogin, kafka: TestKafka
) -> None:
    await make_tables(blank_database)
    await kafka.fresh({TOPIC: 4})
    db, person = database(blank_database), uuid4()
    async with relaying(blank_database, kafka.bootstrap) as relay:
        db.on_events = relay.wake

        async def say_and_fail() -> None:
            async with db.unit_of_work() as uow:
                await say(uow, person)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await say_and_fail()
        async with db.unit_of_work() as uow:
            await say(uow, person)

        async def one_out() -> bool:
            return relay.published == 1

        await eventually(one_out)
    await db.dispose()
    assert sequences(await kafka.read(TOPIC)) == {str(person): [1]}


async def test_a_backlog_of_many_pages_goes_out_whole(
    blank_database: DatabaseLogin, kafka: TestKafka
) -> None:
    await make_tables(blank_database)
    await kafka.fresh({TOPIC: 4})
    people = [uuid4() for _ in range(500)]
    db = database(blank_database)
    for _ in range(7):
        async with db.unit_of_work() as uow:
            for person in people:
                await say(uow, person)
    async with relaying(blank_database, kafka.bootstrap) as relay:

        async def all_out() -> bool:
            return relay.published == 3500

        await eventually(all_out, within=20)
    await db.dispose()
    records = await kafka.read(TOPIC)
    assert len(records) == 3500
    assert all(found == list(range(1, 8)) for found in sequences(records).values())


async def test_a_late_commit_with_an_early_xid_is_neither_skipped_nor_overtaken(
    blank_database: DatabaseLogin, kafka: TestKafka
) -> None:
    """The case that crosses ranges: see services/chassis/relay.py.

    late draws its xid first and then waits for the row that early holds; between them a third one writes and
    stays open. When early and late have committed, only late is below the horizon.
    """
    await make_tables(blank_database)
    await kafka.fresh({TOPIC: 4})
    person, db = uuid4(), database(blank_database)
    third = await asyncpg.connect(driver_url(blank_database.url))
    async with db.unit_of_work() as uow:
        await say(uow, person)
    async with relaying(blank_database, kafka.bootstrap) as relay:

        async def first_out() -> bool:
            return relay.published >= 1

        await eventually(first_out)
        late_has_its_xid, early_has_the_row = asyncio.Event(), asyncio.Event()

        async def late() -> None:
            async with db.unit_of_work() as uow:
                await uow.sql("select pg_current_xact_id()")
                late_has_its_xid.set()
                await early_has_the_row.wait()
                assert await say(uow, person) == 3

        task = asyncio.create_task(late())
        await late_has_its_xid.wait()
        await third.execute("begin")
        await third.execute("select pg_current_xact_id()")
        async with db.unit_of_work() as uow:
            assert await say(uow, person) == 2
            early_has_the_row.set()
            await asyncio.sleep(0.1)
        await task
        relay.wake()

        async def late_out() -> bool:
            return len(await kafka.read(TOPIC)) >= 2

        await eventually(late_out)
        assert sequences(await kafka.read(TOPIC)) == {str(person): [1, 2, 3]}
        await third.execute("commit")

        async def all_out() -> bool:
            return relay.published == 3

        await eventually(all_out)
    await third.close()
    await db.dispose()
    assert sequences(await kafka.read(TOPIC)) == {str(person): [1, 2, 3]}


async def test_only_one_of_three_relays_leads_and_the_next_takes_over(
    blank_database: DatabaseLogin, kafka: TestKafka
) -> None:
    await make_tables(blank_database)
    await kafka.fresh({TOPIC: 4})
    db, person = database(blank_database), uuid4()
    async with (
        relaying(blank_database, kafka.bootstrap) as second,
        relaying(blank_database, kafka.bootstrap) as third,
    ):
        async with relaying(blank_database, kafka.bootstrap) as first:
            relays = (first, second, third)

            async def one_leads() -> bool:
                return sum(relay.leading for relay in relays) == 1

            await eventually(one_leads)
            async with db.unit_of_work() as uow:
                await say(uow, person)

            async def published_once() -> bool:
                return sum(relay.published for relay in relays) == 1

            await eventually(published_once)
        async with db.unit_of_work() as uow:
            await say(uow, person)

        async def both_out() -> bool:
            return len(await kafka.read(TOPIC)) == 2

        await eventually(both_out, within=15)
    await db.dispose()
    assert sequences(await kafka.read(TOPIC)) == {str(person): [1, 2]}


def test_an_event_of_this_file_is_one_of_the_contract() -> None:
    assert confirmed(uuid4()).topic == TOPIC
