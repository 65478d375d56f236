"""What the later stages said comes to registration's views in every order: row 18 of the fault matrix."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from uuid import UUID

import pytest

from contracts.event import Event
from contracts.reasons import ReinstatementCause
from tests.service.registration.system import System
from tests.service.registration.test_views import (
    approved,
    confirmed,
    due,
    expired,
    paid,
    reinstated,
    rejected,
    returned,
    reviewed,
)
from tests.support.out_of_order import Life, in_every_order, nobody_remembers, nothing_lost, otherwise
from tests.unit.registration.samples import id_number


def decided(one: UUID) -> Sequence[Event]:
    return confirmed(one), reviewed(one, "site"), approved(one), rejected(one, "district")


def sent_back(one: UUID) -> Sequence[Event]:
    return confirmed(one), approved(one), returned(one), confirmed(one)


def settled(one: UUID) -> Sequence[Event]:
    return due(one), expired(one), reinstated(one, ReinstatementCause.PAID_IN_TIME), paid(one)


async def views(system: System) -> dict[UUID, tuple[str, str]]:
    rows = await system.rows("select id, confirmation, payment from registrations")
    return {UUID(int=row["id"].int): (row["confirmation"], row["payment"]) for row in rows}


@pytest.mark.parametrize("life", [decided, sent_back, settled])
@pytest.mark.parametrize("polls", [False, True], ids=["in one poll", "an event a poll"])
async def test_every_order_comes_to_the_same_view(system: System, life: Life, polls: bool) -> None:
    people = await in_every_order(system, life, numbered(system), polls=polls)
    assert otherwise(people, (await views(system)).get) == {}
    assert (await nothing_lost(system, life, people) > 0) is polls, (
        "only from poll to poll can one be overtaken"
    )


@pytest.mark.parametrize("life", [decided, sent_back, settled])
async def test_without_a_memory_the_views_own_versions_keep_an_older_word_out(
    system: System, life: Life
) -> None:
    with nobody_remembers():
        people = await in_every_order(system, life, numbered(system), polls=True)
    assert otherwise(people, (await views(system)).get) == {}


def numbered(system: System) -> Callable[[], Awaitable[UUID]]:
    numbers = count()

    async def somebody() -> UUID:
        return await system.registered(id_number=id_number(order=next(numbers)))

    return somebody
