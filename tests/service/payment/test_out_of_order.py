"""What confirmation said of somebody comes to payment in every order: row 18 of the fault matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from contracts import confirmation
from contracts.event import Event
from tests.service.payment.system import CYCLE, System, approved, rejected, returned
from tests.support.out_of_order import in_every_order, nobody_remembers, nothing_lost, otherwise

LIVES_OF_FIVE = 120


def decided_against(one: UUID) -> Sequence[Event]:
    at_desk = confirmation.Confirmed(
        cycle_id=CYCLE, registration_id=one, site_id="shizhong", form_version=1, desk="shizhong"
    )
    return at_desk, approved(one), returned(one), approved(one, subjects=(3, 4)), rejected(one)


def decided_for(one: UUID) -> Sequence[Event]:
    return decided_against(one)[:4]


async def somebody() -> UUID:
    return uuid7()


async def owed(system: System) -> dict[UUID, int]:
    """Who owes how much; whoever is not in it owes nothing."""
    rows = await system.rows("select registration_id, amount_fen from obligations where status = 'awaiting'")
    return {UUID(int=row["registration_id"].int): row["amount_fen"] for row in rows}


async def test_in_one_poll_every_order_is_the_right_one(system: System) -> None:
    people = await in_every_order(system, decided_against, somebody, polls=False)
    assert len(people) == LIVES_OF_FIVE
    assert await owed(system) == {}
    words: set[tuple[str, ...]] = {tuple(await system.words(one)) for one in people.values()}
    assert words == {("due", "due")}, "everybody was told the same"
    assert await nothing_lost(system, decided_against, people) == 0

    people = await in_every_order(system, decided_for, somebody, polls=False)
    (amount,) = set((await owed(system)).values())
    assert await owed(system) == dict.fromkeys(people.values(), amount)


async def test_whoever_was_rejected_owes_nothing_whatever_comes_first(system: System) -> None:
    people = await in_every_order(system, decided_against, somebody, polls=True)
    assert await owed(system) == {}
    assert await nothing_lost(system, decided_against, people) > 0


async def test_whoever_was_approved_last_owes_whatever_comes_first(system: System) -> None:
    people = await in_every_order(system, decided_for, somebody, polls=True)
    found = await owed(system)
    assert found.keys() == set(people.values())
    # Approved again before the return between the two was heard: the fee of the first stands, and the return is listed.
    right = found[people[0, 1, 2, 3]]
    other = {order for order, one in people.items() if found[one] != right}
    assert all(order.index(1) < order.index(3) < order.index(2) for order in other)


async def test_if_nobody_remembered_a_rejected_candidate_would_owe(system: System) -> None:
    """The protection seen missing."""

    def meaning(found: dict[UUID, int]) -> Any:
        return found.get

    with nobody_remembers():
        people = await in_every_order(system, decided_against, somebody, polls=True)
    wrong = otherwise(people, meaning(await owed(system)))
    assert len(wrong) > LIVES_OF_FIVE / 4
