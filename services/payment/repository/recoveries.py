"""What has to be asked of the gateways after a restore, and how far that has come."""

# ruff: noqa: S608 -- what is put into statements here are this package's own constants
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from services.chassis.db import Row, UnitOfWork
from services.payment.domain.obligation import Obligation
from services.payment.domain.order import Order, OrderStatus
from services.payment.repository.obligations import COLUMNS, obligation
from services.payment.repository.orders import UNHEARD_ORDER
from services.payment.repository.vocabulary import UNDECIDED_ORDER


class Known(StrEnum):
    """What is known here of an order."""

    PAID = "paid"
    CLOSED = "closed"
    UNDECIDED = "undecided"
    UNHEARD = (
        "unheard"  # the gateway denied it or would not take it: its number may have been used again since
    )


@dataclass(frozen=True, slots=True)
class Owed:
    """An obligation with its orders by number; `heard`: how many of them the gateway has heard of."""

    obligation: Obligation
    orders: Mapping[str, Known]

    @property
    def heard(self) -> int:
        return sum(known is not Known.UNHEARD for known in self.orders.values())


async def begin(uow: UnitOfWork, backup_at: datetime) -> None:
    """Open a recovery. One that is open already begins anew: its backup was made while it asked."""
    await uow.changed(
        "insert into recoveries as r (recovery_id, backup_at, begun_at) values (uuidv7(), $1, $2) "
        "on conflict ((1)) where finished_at is null do update "
        "set backup_at = least(r.backup_at, excluded.backup_at), begun_at = excluded.begun_at, again = false, "
        "asked_up_to = null",
        backup_at,
        uow.at,
    )


async def open_one(uow: UnitOfWork) -> Row | None:
    """The recovery that is not complete, if there is one."""
    rows = await uow.sql(
        "select recovery_id, begun_at, again, asked_up_to, asked, found, booked from recoveries "
        "where finished_at is null"
    )
    return rows[0] if rows else None


async def is_unasked(uow: UnitOfWork, registration_id: UUID) -> bool:
    """Whether it is not known yet what this registration ordered before a restore."""
    return bool(
        await uow.sql(
            "select 1 from recoveries where finished_at is null and not again "
            "and (asked_up_to is null or asked_up_to < $1)",
            registration_id,
        )
    )


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
        f"select {COLUMNS}, (select coalesce(jsonb_object_agg(r.order_no, case "
        f"when {UNHEARD_ORDER} then 'unheard' when r.status in {UNDECIDED_ORDER} then 'undecided' else r.status end), "
        "'{}') from orders r where r.registration_id = o.registration_id)::text as orders from obligations o "
        "where $1::uuid is null or o.registration_id > $1 order by o.registration_id limit $2",
        after,
        limit,
    )
    return [
        Owed(
            obligation(row),
            {order_no: Known(known) for order_no, known in json.loads(row.orders).items()},
        )
        for row in rows
    ]


async def ask_again(uow: UnitOfWork, recovery_id: UUID) -> None:
    """Everybody once more: what could be opened when they were asked about first cannot be any more."""
    await uow.changed(
        "update recoveries set again = true, asked_up_to = null where recovery_id = $1", recovery_id
    )


async def asked(uow: UnitOfWork, recovery_id: UUID, up_to: UUID, count: int) -> None:
    """Everybody up to here has been asked about."""
    await uow.changed(
        "update recoveries set asked_up_to = $2, asked = asked + $3 where recovery_id = $1",
        recovery_id,
        up_to,
        count,
    )


async def found(uow: UnitOfWork) -> None:
    """One more order that nobody here knew."""
    await uow.changed("update recoveries set found = found + 1 where finished_at is null")


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
