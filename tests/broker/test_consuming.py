"""Taking events in from a real broker: twice, malformed, poisoned, by two members, over a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from uuid_utils.compat import uuid7

from contracts import confirmation
from contracts.catalogue import EVENTS
from contracts.envelope import Envelope
from deploy.local.databases import DatabaseLogin
from services.chassis import parked
from services.chassis.consuming import Consumers, Handler
from services.chassis.db import Database, UnitOfWork
from tests.support.eventually import eventually
from tests.support.kafka import TestKafka
from tests.support.streams import NOON, TOPIC, confirmed, consuming, database, make_tables, note

pytestmark = pytest.mark.broker


def wire(
    key: UUID, sequence: int, event_id: UUID | None = None
) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    event = confirmed(key)
    envelope = Envelope(
        event_id=event_id or uuid7(),
        type=event.type,
        source=event.source,
        subject=event.key,
        time=NOON,
        dataschema=EVENTS[event.type].dataschema(),
        sequence=sequence,
        correlation_id="chain-0001",
    )
    return event.key.encode(), event.model_dump_json().encode(), envelope.headers()


def consumers(db: Database, handler: Handler = note) -> Consumers:
    return Consumers({confirmation.Confirmed: handler}, database=db, service="test")


async def effects(db: Database) -> list[tuple[str, int]]:
    async with db.reading() as uow:
        rows = await uow.sql("select key, sequence from effects order by n")
    return [(row.key, row.sequence) for row in rows]


async def waiting(db: Database) -> list[parked.Parked]:
    async with db.reading() as uow:
        return await parked.list_parked(uow)


async def test_an_event_delivered_three_times_has_one_effect(
    blank_database: DatabaseLogin, kafka: TestKafka
) -> None:
    await make_tables(blank_database)
    await kafka.fresh({TOPIC: 4})
    db, key = database(blank_database), uuid4()
    first, second = wire(key, 1), wire(key, 2)
    await kafka.produce(TOPIC, [first, first, second, first, second])
    taking = consumers(db)
    async with consuming(taking, kafka.bootstrap, kafka.name("group")):

        async def both() -> bool:
            return len(await effects(db)) == 2

        await eventually(both)
    async with consuming(consumers(db), kafka.bootstrap, kafka.name("group")):  # from the beginning
        await asyncio.sleep(1)
    assert await effects(db) == [(str(key), 1), (str(key), 2)]
    await db.dispose()


async def test_a_cluster_is_named_by_several_brokers_and_one_of_them_may_be_away(
    blank_database: DatabaseLogin, kafka: TestKafka
) -> None:
    await make_tables(blank_database)
    await kafka.fresh({TOPIC: 4})
    db, key = database(blank_database), uuid4()
    await kafka.produce(TOPIC, [wire(key, 1)])
    async with consuming(consumers(db), f"127.0.0.1:1, {kafka.bootstrap}", kafka.name("group")):

        async def taken() -> bool:
            return await effects(db) == [(str(key), 1)]

        await eventually(taken)
    await db.dispose()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda k, v, h: (k, b"\xff\xfe", h), "malformed-event"),
        (lambda k, v, h: (k, v[: len(v) // 2], h), "malformed-event"),
        (lambda k, v, h: (k, v, [x for x in h if x[0] != "ce_id"]), "malformed-envelope"),
        (lambda k, v, h: (k, v, [*h, ("ce_causationid", b"\xff")]), "malformed-envelope"),
        (
            lambda k, v, h: (
                k,
                v,
                [(n, b"kaowu.confirmation.confirmed.v99" if n == "ce_type" else x) for n, x in h],
            ),
            "unknown-major",
        ),
        (lambda k, v, h: (str(uuid4()).encode(), v, h), "key-differs-from-event"),
    ],
)
async def test_a_record_that_cannot_be_read_is_parked_and_its_partition_moves_on(
    blank_database: DatabaseLogin, kafka: TestKafka, spoil: Any, reason: str
) -> None:
    await make_tables(blank_database)
    await kafka.fresh({TOPIC: 1})
    db, bad, good = database(blank_database), uuid4(), uuid4()
    await kafka.produce(TOPIC, [spoil(*wire(bad, 1)), wire(good, 1)])
    async with consuming(consumers(db), kafka.bootstrap, kafka.name("group")):

        async def moved_on() -> bool:
            return bool(await effects(db))

        await eventually(moved_on)
    assert await effects(db) == [(str(good), 1)]
    (found,) = await waiting(db)
    assert found.reason.startswith(reason)
    assert found.offset == 0
    await db.dispose()


async def test_a_type_that_nobody_knows_is_skipped_not_parked(
    blank_database: DatabaseLogin, kafka: TestKafka
) -> None:
    await make_tables(blank_database)
    await kafka.fresh({TOPIC: 1})
    db, key = database(blank_database), uuid4()
    k, v, h = wire(key, 1)
    foreign = [(n, b"kaowu.examination.seat-assigned.v1" if n == "ce_type" else x) for n, x in h]
    await kafka.produce(TOPIC, [(k, v, foreign), wire(key, 2)])
    async with consuming(consumers(db), kafka.bootstrap, kafka.name("group")):

        async def moved_on() -> bool:
            return bool(await effects(db))

        await eventually(moved_on)
    assert await effects(db) == [(str(key), 2)]
    assert await waiting(db) == []
    await db.dispose()


async def test_events_behind_a_poisoned_one_wait_for_it_and_other_keys_flow(
    blank_database: DatabaseLogin, kafka: TestKafka
) -> None:
    await make_tables(blank_database)
    await kafka.fresh({TOPIC: 1})
    db, sick, well = database(blank_database), uuid4(), uuid4()
    cured = False

    async def picky(uow: UnitOfWork, events: Sequence[confirmation.Confirmed]) -> None:
        if not cured and any(e.registration_id == sick and e.envelope.sequence == 2 for e in events):
            raise ValueError("this one never works")
        await note(uow, events)

    await kafka.produce(
        TOPIC, [wire(sick, 1), wire(well, 1), wire(sick, 2), wire(well, 2), wire(sick, 3), wire(well, 3)]
    )
    taking = consumers(db, picky)
    async with consuming(taking, kafka.bootstrap, kafka.name("group")):

        async def all_decided() -> bool:
            return len(await effects(db)) == 4 and len(await waiting(db)) == 2

        await eventually(all_decided, within=20)
    assert await effects(db) == [(str(sick), 1), (str(well), 1), (str(well), 2), (str(well), 3)]
    poisoned, behind = await waiting(db)
    assert (poisoned.reason, behind.reason) == ("failed: ValueError", "behind-parked")

    with pytest.raises(parked.CannotReplay, match="waits behind"):
        await parked.replay(db, taking, behind.id)
    with pytest.raises(parked.CannotReplay, match="failed again"):
        await parked.replay(db, taking, poisoned.id)
    cured = True
    await parked.replay(db, taking, poisoned.id)
    await parked.replay(db, taking, behind.id)
    with pytest.raises(parked.CannotReplay, match="already"):
        await parked.replay(db, taking, behind.id)
    assert [s for k, s in await effects(db) if k == str(sick)] == [1, 2, 3]
    assert await waiting(db) == []
    await db.dispose()


async def test_a_database_that_is_away_blocks_and_parks_nothing(
    blank_database: DatabaseLogin, kafka: TestKafka
) -> None:
    await make_tables(blank_database)
    await kafka.fresh({TOPIC: 1})
    db, key = database(blank_database), uuid4()
    away = 3

    async def unreachable(uow: UnitOfWork, events: Sequence[confirmation.Confirmed]) -> None:
        nonlocal away
        if away:
            away -= 1
            raise ConnectionRefusedError
        await note(uow, events)

    await kafka.produce(TOPIC, [wire(key, 1), wire(key, 2)])
    async with consuming(consumers(db, unreachable), kafka.bootstrap, kafka.name("group")):

        async def both() -> bool:
            return len(await effects(db)) == 2

        await eventually(both, within=20)
    assert await effects(db) == [(str(key), 1), (str(key), 2)]
    assert await waiting(db) == []
    await db.dispose()


async def test_two_members_share_the_work_and_each_effect_is_once(
    blank_database: DatabaseLogin, kafka: TestKafka
) -> None:
    await make_tables(blank_database)
    await kafka.fresh({TOPIC: 4})
    db, keys, group = database(blank_database), [uuid4() for _ in range(40)], kafka.name("group")
    first, second = consumers(db), consumers(db)
    async with consuming(first, kafka.bootstrap, group):
        await kafka.produce(TOPIC, [wire(key, n) for n in (1, 2, 3) for key in keys])
        async with consuming(second, kafka.bootstrap, group):
            await asyncio.sleep(4)  # a rebalance: heartbeats tell the first member within three seconds
            await kafka.produce(TOPIC, [wire(key, 4) for key in keys])
        await kafka.produce(TOPIC, [wire(key, 5) for key in keys])

        async def all_in() -> bool:
            return len(await effects(db)) == 200

        await eventually(all_in, within=20)
    assert first.handled > 0
    assert second.handled > 0
    found = await effects(db)
    assert {key: [s for k, s in found if k == str(key)] for key in keys} == {
        key: [1, 2, 3, 4, 5] for key in keys
    }
    await db.dispose()
