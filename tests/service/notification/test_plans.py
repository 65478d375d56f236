"""A storm begins on tables that were empty a minute ago: what a connection learned then must not make it read all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from uuid import UUID, uuid4

import asyncpg
import pytest

from contracts.reasons import Carrier
from services.chassis.clock import SystemClock
from services.chassis.db import Database, Row, UnitOfWork
from services.notification.domain.life import State
from services.notification.domain.occasions import Occasion
from services.notification.domain.told import Told
from services.notification.domain.urgency import Urgency
from services.notification.repository import drafts, limits, messages, recipients
from services.notification.repository.drafts import Alike, Draft, Shared
from services.notification.repository.messages import Claim, Outcome, Result
from services.notification.repository.recipients import News
from tests.conftest import ServiceDatabase
from tests.service.notification.system import System, due

AT = datetime(2024, 2, 9, 4, tzinfo=UTC)
MANY = 4_000
FEW = 5
BEFORE = 12  # the driver's sixth execution of a statement is the first that could keep a plan
PEOPLE = """
insert into recipients (registration_id, cycle_id, contact_try_at, contact_known, tail)
select lpad(to_hex(n), 32, '0')::uuid, 'c', $1, 1, '0000' from generate_series(0, $2 - 1) n
on conflict do nothing
"""
MESSAGES = """
insert into messages (message_id, registration_id, occasion, variant, instance, channel, state, facts, created_at, state_at,
    not_before, due_at, template_version, correlation_id, caused_by, claims, body)
select lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(n), 32, '0')::uuid, 'expired', '', 'payment-2', 'sms', $3, '{}', $1, $1,
    $1, $4, 1, 'c', gen_random_uuid(), 1, 'text' from generate_series(0, $2 - 1) n
"""
LEFT = """
insert into sms_left (number, at, message_id, provider, template, text)
select int4send(n), $1, lpad(to_hex(n), 32, '0')::uuid, 'aliyun', 'T', 'x' from generate_series(0, $2 - 1) n
"""
# Of this connection alone, and of what it has not reported yet: a difference within one transaction is its own.
READ = """
select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int from pg_stat_xact_user_tables
where relname = any($1::text[])
"""
TABLES = ["messages", "recipients", "sms_left"]
Asking: TypeAlias = Callable[[UnitOfWork, range], Awaitable[object]]


def ids(numbers: range) -> list[UUID]:
    return [UUID(int=number) for number in numbers]


def places(numbers: range) -> list[bytes]:
    return [number.to_bytes(4) for number in numbers]


async def lately(uow: UnitOfWork, numbers: range) -> object:
    return await limits.lately(uow, places(numbers))


async def stayed(uow: UnitOfWork, numbers: range) -> None:
    await uow.sql(messages.PIN)  # as whoever records a try has done
    left = [(one, place, AT) for one, place in zip(ids(numbers), places(numbers), strict=True)]
    await limits.stayed(uow, left)


async def hold(uow: UnitOfWork, numbers: range) -> None:
    await uow.sql(messages.PIN)
    await limits.hold(uow, [(one, AT + timedelta(hours=2)) for one in ids(numbers)])


async def claim(uow: UnitOfWork, numbers: range) -> None:
    await messages.pick(uow, Carrier.SMS, FEW)  # nothing is due: it is made for what follows it
    claims = [Claim(one, 1, "", "text", 1, "aliyun") for one in ids(numbers)]
    await messages.claim(uow, claims, AT + timedelta(hours=1))


async def record(uow: UnitOfWork, numbers: range) -> None:
    results = [Result(one, 1, one, State.DELIVERED) for one in ids(numbers)]
    await messages.record(uow, results)


async def receive(uow: UnitOfWork, numbers: range) -> object:
    people = await messages.referred(uow, ids(numbers))
    outcomes = [Outcome(one, State.DELIVERED, None, "", None) for one in ids(numbers)]
    return await messages.receive(uow, outcomes, set(people.values()))


async def create(uow: UnitOfWork, numbers: range) -> None:
    said = Told(Occasion.DUE, {})
    shared = Shared(dict.fromkeys(Carrier, AT), dict.fromkeys(Carrier, 1), Urgency.ORDINARY, None)
    drafted = [Draft(0, one, "payment-1", "c", one) for one in ids(numbers)]
    references = {channel: [uuid4() for _ in numbers] for channel in Carrier}
    await recipients.keep(uow, "c", dict.fromkeys(ids(numbers), News()))
    await drafts.create(uow, [Alike(said, shared)], drafted, references)


@pytest.fixture
async def emptied(service_database: ServiceDatabase) -> AsyncIterator[Database]:
    """One connection to tables that PostgreSQL knows to be empty."""
    login = await service_database("notification")
    connection = await asyncpg.connect(login.dsn)
    await connection.execute("vacuum analyze")
    await connection.close()
    database = Database(login.url, clock=SystemClock(), pool_size=1)
    yield database
    await database.dispose()


async def test_a_batch_reads_its_own_rows_whatever_else_is_there_since(emptied: Database) -> None:
    asked = (lately, stayed, hold, claim, record, receive)
    for asking in asked * BEFORE:
        async with emptied.unit_of_work(AT) as uow:
            await asking(uow, range(FEW))
    async with emptied.unit_of_work(AT) as uow:
        await uow.sql(PEOPLE, AT, MANY)
        await uow.sql(MESSAGES, AT, MANY, "sending", AT + timedelta(hours=1))
        await uow.sql(LEFT, AT, MANY)
    read = {}
    for number, asking in enumerate(asked):
        async with emptied.unit_of_work(AT) as uow:
            before = (await uow.sql(READ, TABLES))[0]["sum"]
            await asking(uow, range(number * FEW, (number + 1) * FEW))
            read[asking.__name__] = (await uow.sql(READ, TABLES))[0]["sum"] - before
    assert all(FEW <= rows <= 5 * FEW for rows in read.values()), read


async def test_a_storm_finds_its_people_by_key_whatever_a_connection_planned_before(
    emptied: Database,
) -> None:
    for _ in range(BEFORE):
        async with emptied.unit_of_work(AT) as uow:
            await create(uow, range(FEW))
    async with emptied.unit_of_work(AT) as uow:
        await uow.sql(PEOPLE, AT, MANY)
    async with emptied.unit_of_work(AT) as uow:
        before = (await uow.sql(READ, TABLES))[0]["sum"]
        await create(uow, range(MANY - FEW, MANY))
        read = (await uow.sql(READ, TABLES))[0]["sum"] - before
        made = await uow.sql(
            "select 1 from messages where registration_id = any($1)", ids(range(MANY - FEW, MANY))
        )
    assert len(made) == 2 * FEW
    assert read <= 5 * FEW


async def _statements(system: System, monkeypatch: pytest.MonkeyPatch, people: list[UUID]) -> int:
    """Asked while all of these are told by SMS that they must pay, limits and budget looked at for each."""
    await system.deliver(*(due(one) for one in people))
    asked = 0
    really = UnitOfWork.sql

    async def counted(uow: UnitOfWork, statement: str, *args: object) -> Sequence[Row]:
        nonlocal asked
        asked += 1
        return await really(uow, statement, *args)

    with monkeypatch.context() as patched:
        patched.setattr(UnitOfWork, "sql", counted)
        await system.sms_job.run()
    assert all([(await system.states(one, "due"))["sms"] == "accepted" for one in people])
    return asked


async def test_no_message_of_a_batch_costs_a_statement_of_its_own(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = await system.registered(63)
    system.at("2024-02-01 10:00")
    few = await _statements(system, monkeypatch, people[:3])
    many = await _statements(system, monkeypatch, people[3:])
    # What comes back late on a busy machine is recorded apart: some more, by far not one for each.
    assert many < few + 30
