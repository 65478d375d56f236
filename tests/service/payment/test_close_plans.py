"""What the close, a reminder and a notice ask reads whom it is about: a million others owe or have paid behind each."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from deploy.bench import owing
from services.chassis.cause import current_cause
from services.chassis.db import Row, UnitOfWork
from services.payment.repository import closing, ledger, orders, reminders
from tests.conftest import ServiceDatabase

CLOSES_AT = datetime(2030, 2, 9, tzinfo=UTC)
OWE = 40_000
PAYING = 100  # and as many who are held while nobody answers about their order
CHUNK = 400
PAYERS = 2000


class Explaining:
    """A connection that lays open each statement's plan, as run with these values, before it runs it."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.plans: list[dict[str, Any]] = []

    async def _explain(self, statement: str, *args: object) -> None:
        trial = self.connection.transaction()
        await trial.start()
        answer = await self.connection.fetchval(
            f"explain (analyze, timing off, format json) {statement}", *args
        )
        await trial.rollback()
        self.plans.append(json.loads(answer)[0]["Plan"])

    async def fetch(self, statement: str, *args: object) -> Any:
        await self._explain(statement, *args)
        return await self.connection.fetch(statement, *args)

    async def execute(self, statement: str, *args: object) -> Any:
        await self._explain(statement, *args)
        return await self.connection.execute(statement, *args)

    def rows_read(self, table: str) -> int:
        """Of this table by the statements since the last look, rows that did not fit included."""
        read = sum(
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            for plan in self.plans
            for node in _nodes(plan)
            if node.get("Relation Name") == table and "Scan" in node["Node Type"]
        )
        self.plans.clear()
        return int(read)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


@pytest.fixture
async def asked(service_database: ServiceDatabase) -> AsyncIterator[Explaining]:
    """Forty thousand who owe, of one close; hundreds of orders that nobody has decided yet."""
    login = await service_database("payment")
    connection = await asyncpg.connect(login.dsn, record_class=Row)
    await owing.people(connection, "awaiting", OWE, CLOSES_AT, salt=0x0195)
    await owing.order(connection, "awaiting", PAYING, CLOSES_AT, salt=0x0196)
    await owing.order(connection, "held", PAYING, CLOSES_AT, salt=0x0194)
    await connection.execute("vacuum analyze")
    yield Explaining(connection)
    await connection.close()


async def test_a_chunk_of_the_sweep_reads_its_own_and_those_who_are_passed_by(asked: Explaining) -> None:
    uow = UnitOfWork(asked, CLOSES_AT, current_cause())
    for _ in range(3):
        assert await closing.sweep_chunk(uow, "fingerprint", chunk=CHUNK) == CHUNK
        assert asked.rows_read("obligations") <= 2 * PAYING + 2 * CHUNK


async def test_before_the_first_forfeiture_only_the_undecided_are_read(asked: Explaining) -> None:
    uow = UnitOfWork(asked, CLOSES_AT, current_cause())
    assert await closing.anybody_left(uow)
    assert asked.rows_read("obligations") <= 2 * PAYING + 1
    assert len(await orders.undecided_at_close(uow, "", PAYING)) == PAYING
    assert asked.rows_read("obligations") <= 2 * PAYING
    assert await closing.hold(uow) == PAYING
    assert asked.rows_read("obligations") <= 3 * PAYING  # and once more as they are written


async def test_a_chunk_of_a_reminder_does_not_read_who_was_told_before(asked: Explaining) -> None:
    uow = UnitOfWork(asked, CLOSES_AT - timedelta(hours=2), current_cause())
    after = reminders.FROM_THE_BEGINNING
    for _ in range(3):
        said = await reminders.remind_chunk(uow, CLOSES_AT, timedelta(hours=2), after, CHUNK)
        assert said.told == CHUNK
        assert said.last is not None
        assert asked.rows_read("obligations") <= 2 * PAYING + 2 * CHUNK
        after = said.last


async def test_whom_to_ask_about_is_found_without_reading_who_owes(asked: Explaining) -> None:
    before = UnitOfWork(asked, CLOSES_AT - timedelta(microseconds=1), current_cause())
    assert await orders.next_to_ask(before) == CLOSES_AT
    assert await orders.to_ask(before, PAYING) == []
    assert asked.rows_read("obligations") <= 2 * PAYING
    after = UnitOfWork(asked, CLOSES_AT, current_cause())
    # Of those who are held; the others are the close's.
    assert len(await orders.to_ask(after, 2 * PAYING)) == PAYING
    assert asked.rows_read("obligations") <= 2 * PAYING


async def test_whether_an_orders_money_is_booked_is_found_without_reading_the_book(asked: Explaining) -> None:
    """Asked of every notice that comes a second time, and of every candidate who has the gateway asked."""
    numbers = await owing.order(asked.connection, "awaiting", PAYERS, CLOSES_AT, salt=0x0197)
    await asked.connection.execute(
        "insert into ledger (kind, registration_id, order_no, channel, transaction_id, amount_fen, currency, paid_at, "
        "recorded_at) select 'received', registration_id, order_no, channel, order_no, amount_fen, currency, created_at, "
        "created_at from orders where order_no = any($1::text[])",
        numbers,
    )
    await asked.connection.execute("vacuum analyze ledger")
    (payer,) = await asked.connection.fetch(
        "select registration_id as id from orders where order_no = $1", numbers[-1]
    )
    uow = UnitOfWork(asked, CLOSES_AT, current_cause())
    assert await ledger.is_booked(uow, payer.id, numbers[-1])
    assert not await ledger.is_booked(uow, payer.id, numbers[0])
    assert not await ledger.is_no_fee(uow, payer.id, numbers[-1])
    assert asked.rows_read("ledger") <= 3
