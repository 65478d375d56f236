"""The migrated database is what tables.py says, constraints included."""

from __future__ import annotations

from services.chassis import migrations
from services.payment.domain.obligation import NEXT, Status
from services.payment.domain.order import OrderStatus
from tests.service.payment.system import System


async def test_the_migrations_make_the_tables_that_the_code_reads(system: System) -> None:
    await migrations.drift(system.settings.database_url, "payment")


async def test_the_databases_states_are_the_domains(system: System) -> None:
    rows = await system.rows(
        "select conrelid::regclass::text as table, pg_get_constraintdef(oid) as text from pg_constraint "
        "where conname in ('ck_obligations_status', 'ck_orders_status')"
    )
    found = {row["table"]: set(row["text"].split("'")[1::2]) for row in rows}
    assert found == {"obligations": set(Status), "orders": set(OrderStatus)}
    assert set(NEXT) == set(Status)
