"""Whatever bytes come over the wire: a reason is kept, and the partition moves on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest

from contracts import confirmation
from contracts.event import Event
from deploy.local.databases import DatabaseLogin
from services.chassis.consuming import Consumers, Handler
from services.chassis.db import Database, UnitOfWork
from tests.broker.test_consuming import consumers, effects, waiting, wire
from tests.faults.spoiling import SKIPPED, WAYS, Content, Spoilt, of_type, planting, spoilt
from tests.support.eventually import eventually
from tests.support.kafka import TestKafka
from tests.support.streams import CYCLE, TOPIC, consuming, database, make_tables, note

pytestmark = pytest.mark.broker

EACH = 20


async def test_fuzzed_records_between_good_ones_are_parked_each_with_its_reason(
    blank_database: DatabaseLogin, kafka: TestKafka
) -> None:
    """Row 19, without the rest of the system: many of each kind, between events that must all have their effect."""
    await make_tables(blank_database)
    await kafka.fresh({TOPIC: 1})
    db, chance = database(blank_database), random.Random(19)
    ways = [how for how in WAYS for _ in range(EACH)]
    chance.shuffle(ways)
    good = [wire(uuid4(), 1) for _ in ways]
    async with planting(kafka.bootstrap) as planter:
        for how, (key, value, headers) in zip(ways, good, strict=True):
            await planter.plant(TOPIC, 0, spoilt(chance, Content(*wire(uuid4(), 1)), how))
            await planter.plant(TOPIC, 0, Spoilt("good", Content(key, value, headers), SKIPPED))
    async with consuming(consumers(db), kafka.bootstrap, kafka.name("group")):

        async def all_decided() -> bool:
            return len(await effects(db)) >= len(good)

        await eventually(all_decided, within=60)
    assert sorted(key for key, _ in await effects(db)) == sorted(key.decode() for key, _, _ in good)
    expected = {one.offset: one.spoilt for one in planter.planted if one.spoilt.reason}
    async with db.reading() as uow:
        rows = await uow.sql('select "offset", reason, payload, headers from parked')
    assert {row.offset for row in rows} == expected.keys()
    for row in rows:
        one = expected[row.offset]
        assert row.reason.startswith(one.reason), f"{one.how}: {row.reason}"
        assert bytes(row.payload) == (one.content.value or b"")
        assert len(row.headers) == len(one.content.headers)
    await db.dispose()


async def test_a_header_whose_name_is_no_text_costs_no_other_record(
    blank_database: DatabaseLogin, kafka: TestKafka
) -> None:
    """Before anybody sees the record the client fails on it, with what the same poll brought of other partitions."""
    await make_tables(blank_database)
    await kafka.fresh({TOPIC: 4})
    db, keys = database(blank_database), [uuid4() for _ in range(40)]
    odd, good = Content(*wire(uuid4(), 1)), [Content(*wire(key, 1)) for key in keys]
    async with planting(kafka.bootstrap) as planter:
        for number, content in enumerate(good):
            await planter.plant(TOPIC, number % 4, Spoilt("good", content, SKIPPED))
            if number in (5, 22):
                await planter.plant_named(
                    TOPIC, number % 4, Spoilt("odd name", odd, SKIPPED), b"\xff\xfe\x00\x80"
                )
        no_envelope = Spoilt("odd name only", Content(b"k", b"{}", []), "malformed-envelope")
        await planter.plant_named(TOPIC, 1, no_envelope, b"\xff\xff\xff\xff")
    async with consuming(consumers(db), kafka.bootstrap, kafka.name()):

        async def all_taken() -> bool:
            return len(await effects(db)) >= len(keys) + 1 and len(await waiting(db)) == 1

        await eventually(all_taken, within=30)
    # The odd ones are whole but for that one name, so they are events; the same one twice is one.
    assert sorted(key for key, _ in await effects(db)) == sorted(
        [str(key) for key in keys] + [(odd.key or b"").decode()]
    )
    (parked,) = await waiting(db)
    assert parked.reason.startswith("malformed-envelope")
    await db.dispose()


async def test_a_newer_major_is_parked_where_its_fact_is_handled_and_blocks_nobody_elsewhere(
    blank_database: DatabaseLogin, kafka: TestKafka
) -> None:
    """A service that never reacted to a fact must not stop a candidate because somebody says it in a new form."""
    await make_tables(blank_database)
    await kafka.fresh({TOPIC: 1})
    db, key = database(blank_database), uuid4()
    newer = of_type(Content(*wire(key, 1)), "kaowu.confirmation.confirmed.v99")
    foreign = of_type(Content(*wire(key, 2)), "kaowu.examination.seat-assigned.v1")
    async with planting(kafka.bootstrap) as planter:
        for content in (foreign, newer, approved(key, 3)):
            await planter.plant(TOPIC, 0, Spoilt("newer", content, SKIPPED))

    async with consuming(
        taking(db, confirmation.Confirmed, confirmation.Approved), kafka.bootstrap, kafka.name()
    ):

        async def both_wait() -> bool:
            return [one.reason for one in await waiting(db)] == ["unknown-major", "behind-parked"]

        await eventually(both_wait)
    assert await effects(db) == []
    async with db.unit_of_work() as uow:
        await uow.sql("delete from parked")
    async with consuming(taking(db, confirmation.Approved), kafka.bootstrap, kafka.name()):

        async def approved_flowed() -> bool:
            return await effects(db) == [(str(key), 3)]

        await eventually(approved_flowed)
    assert await waiting(db) == []
    await db.dispose()


def taking(db: Database, *events: type[Event]) -> Consumers:
    """A service that notes these and no others."""

    async def note_also(uow: UnitOfWork, found: Sequence[confirmation.Confirmed]) -> None:
        await note(uow, found)

    handlers: tuple[Handler, ...] = (note, note_also)
    return Consumers(dict(zip(events, handlers, strict=False)), database=db, service="test")


def approved(key: UUID, sequence: int) -> Content:
    event = confirmation.Approved(
        cycle_id=CYCLE, registration_id=key, level="junior", subjects=(1, 2), specialty_code="101"
    )
    headers = of_type(Content(*wire(key, sequence)), event.type).headers
    return Content(str(key).encode(), event.model_dump_json().encode(), headers)
