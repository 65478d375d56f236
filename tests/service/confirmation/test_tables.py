"""What the database itself holds to."""

from __future__ import annotations

import pytest
from asyncpg import IntegrityConstraintViolationError, PostgresError

from services.chassis import migrations
from services.confirmation import repository
from services.confirmation.domain import State
from services.confirmation.repository import Decided, Overtaken
from tests.service.confirmation.system import System


async def test_tables_and_migrations_are_one_shape(system: System) -> None:
    await migrations.drift(system.settings.database_url, "confirmation")


async def test_what_was_decided_is_never_rewritten(system: System) -> None:
    await system.confirmed()
    await system.set_window(
        "municipal", opens="2023-12-11T09:00:00+08:00", closes="2023-12-13T09:00:00+08:00"
    )
    before = await system.everything()
    for table in ("decisions", "desk_window_changes"):
        for act in ("update {} set at = at", "delete from {}", "truncate {}"):
            with pytest.raises(PostgresError, match="append-only"):
                async with system.database.unit_of_work() as uow:
                    await uow.sql(act.format(table))
    assert await system.everything() == before


IMPOSSIBLE = [
    "state = 'expired'",
    "state = 'confirmed', passed = 0",
    "state = 'approved', passed = 0",
    "form_version = 0",
    "version = -1",
    "subjects = '{}'",
]


async def test_a_case_that_cannot_be_is_not_kept(system: System) -> None:
    await system.registered()
    for change in IMPOSSIBLE:
        with pytest.raises(IntegrityConstraintViolationError):
            async with system.database.unit_of_work() as uow:
                await uow.sql(f"update cases set {change}")


async def test_every_state_of_the_domain_can_be_kept(system: System) -> None:
    one = await system.registered()
    for state in State:
        async with system.database.unit_of_work() as uow:
            await uow.sql(
                "update cases set state = $2, passed = 1 where registration_id = $1", one, state.value
            )
        assert (await system.case(one))["state"] == state


async def test_a_case_is_only_written_at_the_version_it_was_read_at(system: System) -> None:
    one = await system.registered()
    cycle = system.process.plumbing.cycle
    async with system.database.unit_of_work() as uow:
        found = await repository.lock(uow, one, cycle)
        assert found is not None
        before, desk = found
        after = before.rejected(uow.at, desk, "desk", cycle)
    async with system.database.unit_of_work() as uow:
        await uow.sql("update cases set version = 7")
    decided = Decided(case=after, kind=State.REJECTED, level="desk")
    with pytest.raises(Overtaken):
        async with system.database.unit_of_work() as uow:
            await repository.save(uow, before, decided, "desk", "somebody")
    with pytest.raises(Overtaken):
        async with system.database.unit_of_work() as uow:
            await repository.save_many(uow, [(before, after)])
    assert (await system.case(one))["state"] == "pre-registered"
    assert await system.rows("select 1 from decisions") == []
