"""Obligations: locked, opened in sets, changed only from the state and version that were read."""

# ruff: noqa: S608 -- what is put into statements here are this package's own constants
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.chassis.db import Row, UnitOfWork
from services.payment.domain.obligation import Cancellation, Obligation, Status
from services.payment.repository.vocabulary import UNDECIDED_ORDER

COLUMNS = (
    "o.registration_id, o.status, o.version, o.amount_fen, o.currency, o.opens_at, o.closes_at, "
    "o.told_closes_at, o.cancelled_for"
)


class Overtaken(Exception):
    """Somebody else changed the obligation between our reading and our writing: nothing was written."""


def obligation(row: Row) -> Obligation:
    """The obligation in a row that holds COLUMNS."""
    return Obligation(
        registration_id=row.registration_id,
        status=Status(row.status),
        version=row.version,
        amount_fen=row.amount_fen,
        currency=row.currency,
        opens_at=row.opens_at,
        closes_at=row.closes_at,
        told_closes_at=row.told_closes_at,
        cancelled_for=Cancellation(row.cancelled_for) if row.cancelled_for else None,
    )


async def lock_all(uow: UnitOfWork, registration_ids: Sequence[UUID]) -> dict[UUID, Obligation]:
    """Those that exist, locked in one order, so that two batches cannot deadlock."""
    rows = await uow.sql(
        f"select {COLUMNS} from obligations o where o.registration_id = any($1::uuid[]) "
        "order by o.registration_id for update",
        list(registration_ids),
    )
    return {row.registration_id: obligation(row) for row in rows}


async def find(uow: UnitOfWork, registration_id: UUID) -> Row | None:
    """COLUMNS and paid_at, unlocked, for reading."""
    rows = await uow.sql(
        f"select {COLUMNS}, o.paid_at from obligations o where o.registration_id = $1", registration_id
    )
    return rows[0] if rows else None


async def changed_at(uow: UnitOfWork, registration_id: UUID) -> datetime:
    """When its state last changed."""
    rows = await uow.sql("select changed_at from obligations where registration_id = $1", registration_id)
    moment: datetime = rows[0].changed_at
    return moment


@dataclass(frozen=True, slots=True)
class Fee:
    """What an approval makes owed, and until when."""

    registration_id: UUID
    amount_fen: int
    site_id: str | None
    closes_at: datetime
    told_closes_at: datetime


async def open_all(
    uow: UnitOfWork,
    fees: Sequence[Fee],
    *,
    cycle_id: str,
    currency: str,
    opens_at: datetime,
) -> dict[UUID, int]:
    """Make these owed, new or once more after they were cancelled; returns the version of each that now is."""
    rows = await uow.sql(
        """
        insert into obligations as o (registration_id, cycle_id, status, version, amount_fen, currency,
                                      opens_at, closes_at, told_closes_at, site_id, due_at, changed_at)
        select f.registration_id, $3::text, 'awaiting', 1, f.amount_fen, $4::text, $5::timestamptz, f.closes_at,
               f.told_closes_at, f.site_id, $6::timestamptz, $6::timestamptz
        from unnest($1::uuid[], $2::int[], $7::timestamptz[], $8::timestamptz[], $9::text[])
             as f (registration_id, amount_fen, closes_at, told_closes_at, site_id)
        order by f.registration_id
        on conflict (registration_id) do update
        set status = 'awaiting', version = o.version + 1, amount_fen = excluded.amount_fen,
            opens_at = excluded.opens_at, closes_at = excluded.closes_at, told_closes_at = excluded.told_closes_at,
            site_id = coalesce(excluded.site_id, o.site_id), due_at = excluded.due_at,
            changed_at = excluded.changed_at, cancelled_for = null
        where o.status = 'cancelled'
        returning o.registration_id, o.version
        """,
        [fee.registration_id for fee in fees],
        [fee.amount_fen for fee in fees],
        cycle_id,
        currency,
        opens_at,
        uow.at,
        [fee.closes_at for fee in fees],
        [fee.told_closes_at for fee in fees],
        [fee.site_id for fee in fees],
    )
    return {row.registration_id: row.version for row in rows}


async def cancel(uow: UnitOfWork, before: Obligation, after: Obligation) -> None:
    """Write a cancellation. An order under way is asked about at once: it must be closed at the gateway."""
    changed = await uow.changed(
        "update obligations set status = $4, version = $5, cancelled_for = $6, changed_at = $7 "
        "where registration_id = $1 and status = $2 and version = $3",
        before.registration_id,
        before.status,
        before.version,
        after.status,
        after.version,
        after.cancelled_for,
        uow.at,
    )
    if changed != 1:
        raise Overtaken
    await uow.changed(
        f"update orders set ask_at = least(ask_at, $2) where registration_id = $1 and status in {UNDECIDED_ORDER}",
        before.registration_id,
        uow.at,
    )


async def tell(uow: UnitOfWork, before: Obligation, after: Obligation) -> None:
    """Something was said about it that changes nothing but its version."""
    changed = await uow.changed(
        "update obligations set version = $4 where registration_id = $1 and status = $2 and version = $3",
        before.registration_id,
        before.status,
        before.version,
        after.version,
    )
    if changed != 1:
        raise Overtaken


async def pay(
    uow: UnitOfWork,
    before: Obligation,
    after: Obligation,
    *,
    paid_at: datetime,
    order_no: str,
    answer_id: int,
) -> None:
    """Write a payment and its order in one statement, if the obligation still is what was read."""
    rows = await uow.sql(
        """
        with paid as (
            update obligations
            set status = $4, version = $5, paid_at = $6, changed_at = $7, expired_at = null, proof_id = null
            where registration_id = $1 and status = $2 and version = $3
            returning registration_id
        ), decided as (
            update orders set status = 'paid', decided_at = $7, answer_id = $9 where order_no = $8
        )
        select count(*) as changed from paid
        """,
        before.registration_id,
        before.status,
        before.version,
        after.status,
        after.version,
        paid_at,
        uow.at,
        order_no,
        answer_id,
    )
    if rows[0].changed != 1:
        raise Overtaken


async def page(uow: UnitOfWork, after: UUID | None, limit: int) -> Sequence[Row]:
    """Obligations in the order of their ids, each with its sums from the ledger."""
    return await uow.sql(
        """
        select o.registration_id, o.status, o.version, o.amount_fen, o.currency, o.paid_at, o.expired_at,
               o.cancelled_for, coalesce(sum(l.amount_fen) filter (where l.kind = 'received'), 0)::bigint as paid_fen,
               coalesce(sum(l.amount_fen) filter (where l.kind = 'refund-due'), 0)::bigint as refund_due_fen,
               coalesce(sum(l.amount_fen) filter (where l.kind = 'refunded'), 0)::bigint as refunded_fen
        from (select * from obligations where $1::uuid is null or registration_id > $1
              order by registration_id limit $2) o
        left join ledger l on l.registration_id = o.registration_id
        group by o.registration_id, o.status, o.version, o.amount_fen, o.currency, o.paid_at, o.expired_at,
                 o.cancelled_for
        order by o.registration_id
        """,
        after,
        limit,
    )
