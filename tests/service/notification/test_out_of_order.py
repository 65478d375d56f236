"""What payment said of somebody comes to notification in every order: row 18 of the fault matrix."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from uuid_utils.compat import uuid7

from contracts import payment
from contracts.event import Event
from contracts.reasons import ReinstatementCause
from tests.service.notification.system import CLOSE, CYCLE, System, due, expired, moment, paid
from tests.support.out_of_order import in_every_order, nobody_remembers, nothing_lost, otherwise


def pays_in_time_and_late_heard_of(one: UUID) -> Sequence[Event]:
    lifted = payment.Reinstated(
        cycle_id=CYCLE, registration_id=one, cause=ReinstatementCause.PAID_IN_TIME, closes_at=moment(CLOSE)
    )
    return due(one), expired(one), lifted, paid(one)


LIFE = pays_in_time_and_late_heard_of


async def somebody() -> UUID:
    return uuid7()


async def standings(system: System) -> dict[UUID, str]:
    rows = await system.rows("select registration_id, standing from recipients")
    return {UUID(int=row["registration_id"].int): row["standing"] for row in rows}


async def told_backwards(system: System) -> int:
    """How many messages tell something that happened before what had been told already."""
    rows = await system.rows(
        "select registration_id, split_part(instance, '-', 2)::int as version from messages "
        # By transaction and statement: where a row lies says little, a small one fills what an earlier page had left.
        "where channel = 'sms' order by created_at, xmin::text::bigint, cmin::text::bigint"
    )
    furthest: dict[UUID, int] = {}
    backwards = 0
    for row in rows:
        backwards += row["version"] < furthest.get(row["registration_id"], 0)
        furthest[row["registration_id"]] = max(row["version"], furthest.get(row["registration_id"], 0))
    return backwards


async def test_in_one_poll_everybody_is_told_everything_in_its_order(system: System) -> None:
    people = await in_every_order(system, LIFE, somebody, polls=False)
    assert otherwise(people, (await standings(system)).get) == {}
    assert await told_backwards(system) == 0
    assert len(await system.rows("select 1 from messages where channel = 'sms'")) == 4 * len(people)
    assert await nothing_lost(system, LIFE, people) == 0


async def test_whoever_paid_is_not_asked_for_money_whatever_comes_first(system: System) -> None:
    people = await in_every_order(system, LIFE, somebody, polls=True)
    assert otherwise(people, (await standings(system)).get) == {}
    assert await told_backwards(system) == 0
    assert await nothing_lost(system, LIFE, people) > 0


async def test_if_nobody_remembered_whoever_paid_would_be_told_that_it_is_due(system: System) -> None:
    """The protection seen missing."""
    with nobody_remembers():
        people = await in_every_order(system, LIFE, somebody, polls=True)
    assert otherwise(people, (await standings(system)).get)
    assert await told_backwards(system) > 0
