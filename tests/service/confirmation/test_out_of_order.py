"""What registration said of somebody comes to confirmation in every order: row 18 of the fault matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from contracts import registration
from contracts.event import Event
from tests.service.confirmation.system import System, amended, pre_registered, withdrawn
from tests.support.out_of_order import Life, in_every_order, nobody_remembers, nothing_lost, otherwise
from tests.unit.confirmation.cases import leshan


def stays(one: UUID) -> Sequence[Event]:
    changed = registration.ContactChanged(cycle_id=leshan().id, registration_id=one)
    return (
        pre_registered(one),
        amended(one, 2, "emeishan"),
        changed,
        amended(one, 3, "wutongqiao", subjects=(1,)),
    )


def leaves(one: UUID) -> Sequence[Event]:
    return *stays(one), withdrawn(one)


async def somebody() -> UUID:
    return uuid7()


async def cases(system: System) -> dict[UUID, Any]:
    """The state of each, and the form unless it no longer matters."""
    rows = await system.rows("select * from cases")
    return {
        UUID(int=row["registration_id"].int): (
            row["state"],
            row["state"] != "withdrawn" and (row["form_version"], row["site_id"], row["subjects"]),
        )
        for row in rows
    }


@pytest.mark.parametrize("life", [stays, leaves])
@pytest.mark.parametrize("polls", [False, True], ids=["in one poll", "an event a poll"])
async def test_every_order_comes_to_the_same_case(system: System, life: Life, polls: bool) -> None:
    people = await in_every_order(system, life, somebody, polls=polls)
    assert otherwise(people, (await cases(system)).get) == {}
    late = await nothing_lost(system, life, people)
    assert (late > 0) is polls, "only from poll to poll can one be overtaken"


async def test_without_a_memory_an_older_form_is_refused_and_never_replaces_a_newer_one(
    system: System,
) -> None:
    with nobody_remembers(), pytest.raises(AssertionError, match="waits for ever: failed: FormNotNewer"):
        await in_every_order(system, stays, somebody, polls=True)
    forms = await system.rows("select form_version from cases")
    assert {row["form_version"] for row in forms} <= {3}
