"""What has to be asked of the gateways after a restore, and how far that has come."""

# ruff: noqa: S608 -- what is put into statements here are this package's own constants
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from services.chassis.db import Row, UnitOfWork
from services.payment.domain import Obligation, Order, OrderStatus
from services.payment.repository.obligations import COLUMNS, obligation
from services.payment.repository.orders import UNHEARD_ORDER


@dataclass(frozen=True, slots=True)
class Owed:
    """An obligation, and the number that its next order would have."""

    obligation: Obligation
    next_number: int


async def open_one(uow: UnitOfWork) -> Row | None:
    """The recovery that is not complete, if there is one."""
    rows = await uow.sql("select recovery_id, asked_up_to from recoveries where finished_at is null")
    return rows[0] if rows else None


async def unbooked(uow: UnitOfWork, after: str, limit: int) -> list[Order]:
    """Orders known to be paid whose money is not in the book, by number."""
    rows = await uow.sql(
        "select r.order_no, r.registration_id, r.channel, r.amount_fen, r.currency, r.created_at, r.expires_at, "
        "r.attempts from orders r where r.status = 'paid' and r.order_no > $1 "
        "and not exists (select from ledger l where l.order_no = r.order_no and l.kind = 'received') "
        "order by r.order_no limit $2",
        after,
        limit,
    )
    return [
        Order(
            order_no=row.order_no,
            registration_id=row.registration_id,
            channel=row.channel,
            amount_fen=row.amount_fen,
            currency=row.currency,
            status=OrderStatus.PAID,
            created_at=row.created_at,
            expires_at=row.expires_at,
            attempts=row.attempts,
        )
        for row in rows
    ]


async def page(uow: UnitOfWork, after: UUID | None, limit: int) -> list[Owed]:
    """Obligations in the order of their ids, whatever became of them: money may have come for any."""
    rows = await uow.sql(
        f"select {COLUMNS}, 1 + (select count(*) from orders r where r.registration_id = o.registration_id "
        f"and not {UNHEARD_ORDER}) as number from obligations o "
        "where $1::uuid is null or o.registration_id > $1 order by o.registration_id limit $2",
        after,
        limit,
    )
    return [Owed(obligation(row), row.number) for row in rows]


async def asked(uow: UnitOfWork, recovery_id: UUID, up_to: UUID, asked: int, found: int) -> None:
    """Everybody up to here has been asked about."""
    await uow.changed(
        "update recoveries set asked_up_to = $2, asked = asked + $3, found = found + $4 where recovery_id = $1",
        recovery_id,
        up_to,
        asked,
        found,
    )


async def booked(uow: UnitOfWork, recovery_id: UUID, count: int) -> None:
    """So much money that had been said is in the book again."""
    await uow.changed("update recoveries set booked = booked + $2 where recovery_id = $1", recovery_id, count)


async def finish(uow: UnitOfWork, recovery_id: UUID) -> None:
    """Everything that can be known is known."""
    await uow.changed("update recoveries set finished_at = $2 where recovery_id = $1", recovery_id, uow.at)


async def all_of_them(uow: UnitOfWork) -> Sequence[Row]:
    """For operators, newest first."""
    return await uow.sql(
        "select backup_at, begun_at, finished_at, asked, found, booked from recoveries order by begun_at desc"
    )
