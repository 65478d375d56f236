"""Row 20 of the fault matrix: an event that the broker would never take is refused while it can still be taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from contracts import confirmation
from contracts.envelope import Envelope
from deploy.local.databases import DatabaseLogin
from services.chassis import outbox
from services.chassis.cause import Cause
from services.chassis.db import Database, UnitOfWork
from services.chassis.tables import MAX_PAYLOAD_BYTES
from tests.support.eventually import eventually
from tests.support.kafka import TestKafka
from tests.support.streams import (
    CYCLE,
    TOPIC,
    confirmed,
    database,
    make_tables,
    relaying,
    say,
    sequences,
)

# One to four bytes each, and those that JSON writes with a backslash.
CHARACTERS = ["x", "é", "考", "𠮷", '"', "\\", "\n", "\x01"]


def of(site: str) -> confirmation.Confirmed:
    """What no handler could say: the contract would refuse the site. The check must not rely on that."""
    return confirmation.Confirmed.model_construct(
        cycle_id=CYCLE, registration_id=uuid7(), site_id=site, form_version=1, desk="shizhong"
    )


def size(event: confirmation.Confirmed) -> int:
    return len(event.model_dump_json().encode())


def as_large_as(character: str, wanted: int) -> confirmation.Confirmed:
    """An event of exactly so many bytes, mostly of this character."""
    empty = size(of(""))
    each = size(of(character)) - empty
    times, rest = divmod(wanted - empty, each)
    event = of(character * times + "x" * rest)
    assert size(event) == wanted
    return event


async def say_by(way: str, uow: UnitOfWork, event: confirmation.Confirmed) -> int:
    """Write it down in one of the three ways there are; how many bytes it took there."""
    if way == "one":
        await outbox.add(uow, event, sequence=1)
    elif way == "many":
        await outbox.add_all(uow, [(confirmed(uuid7()), 1, None), (event, 1, None)])
    else:
        payload = {
            "cycle_id": f"'{CYCLE}'", "registration_id": "r.id", "site_id": "r.site", "form_version": "1",
            "desk": "'shizhong'",
        }  # fmt: skip
        statement = outbox.insert_select(
            confirmation.Confirmed, payload, source="(select $1::uuid as id, $2::text as site) r",
            key="r.id::text", sequence="1", occurred_at="now()",
        )  # fmt: skip
        pairs = ", ".join(f"'{name}', {expression}" for name, expression in payload.items())
        measure = f"select octet_length(json_build_object({pairs})::text) as n from (select $1::uuid as id, $2::text as site) r"
        found = await uow.sql(measure, event.registration_id, event.site_id)
        await uow.sql(statement, event.registration_id, event.site_id)
        return int(found[0].n)
    return size(event)


async def written(db: Database) -> tuple[int, int]:
    async with db.reading() as uow:
        found = await uow.sql(
            "select count(*) as events, coalesce(max(octet_length(payload)), 0) as largest from outbox"
        )
    return int(found[0].events), int(found[0].largest)


@pytest.fixture
async def db(blank_database: DatabaseLogin) -> AsyncIterator[Database]:
    await make_tables(blank_database)
    made = database(blank_database)
    yield made
    await made.dispose()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    way=st.sampled_from(["one", "many", "by statement"]),
    character=st.sampled_from(CHARACTERS),
    over=st.one_of(st.integers(-40, 40), st.sampled_from([-800_000, 1_000, 400_000])),
)
async def test_an_event_is_written_when_the_broker_takes_it_and_takes_its_transaction_down_when_not(
    db: Database, way: str, character: str, over: int
) -> None:
    event = as_large_as(character, MAX_PAYLOAD_BYTES + over)
    before, _ = await written(db)
    bytes_there = size(event)
    try:
        async with db.unit_of_work() as uow:
            await say(uow, uuid7())
            bytes_there = await say_by(way, uow, event)
    except (outbox.EventTooLarge, asyncpg.CheckViolationError):
        after, _ = await written(db)
        assert after == before, "what was said beside it stayed"
        # By statement the database writes JSON in its own way, a little larger.
        assert over > 0 if way != "by statement" else over > -1_000
    else:
        after, largest = await written(db)
        assert after == before + (3 if way == "many" else 2)
        assert bytes_there <= MAX_PAYLOAD_BYTES
        assert largest <= MAX_PAYLOAD_BYTES
        assert over <= 0


@pytest.mark.broker
async def test_the_largest_event_goes_out_with_all_its_headers_and_holds_nobody_up(
    blank_database: DatabaseLogin, db: Database, kafka: TestKafka
) -> None:
    await kafka.fresh({TOPIC: 1})
    long_chain = Cause("c" * 64, str(uuid7()), f"00-{'a' * 32}-{'b' * 16}-01")
    people = [uuid7() for _ in range(3)]
    largest = as_large_as("考", MAX_PAYLOAD_BYTES)
    async with relaying(blank_database, kafka.bootstrap) as relay:
        db.on_events = relay.wake
        async with db.unit_of_work(cause=long_chain) as uow:
            await say(uow, people[0])
            await outbox.add(uow, largest, sequence=1)
            await say(uow, people[1])
        async with db.unit_of_work() as uow:
            await say(uow, people[2])

        async def all_out() -> bool:
            return relay.published == 4

        await eventually(all_out, within=30)
    records = await kafka.read(TOPIC)
    assert [len(one.value or b"") == MAX_PAYLOAD_BYTES for one in records] == [False, True, False, False]
    assert Envelope.from_headers(records[1].headers).correlation_id == long_chain.correlation_id
    small = [one for one in records if one is not records[1]]
    assert sequences(small) == {str(person): [1] for person in people}
