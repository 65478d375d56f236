"""The ledger: only ever added to. Every total is a sum over it, so none can drift from what happened."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from contracts.reasons import RefundCause
from services.chassis.db import Row, UnitOfWork
from services.chassis.vault import Vault
from services.payment.domain.order import Success
from services.payment.repository.orders import Evidence


async def receive(
    uow: UnitOfWork,
    vault: Vault,
    registration_id: UUID,
    channel: str,
    success: Success,
    evidence: Evidence,
    *,
    recorded_at: datetime | None = None,
) -> int | None:
    """Write down money and the gateway's word for it; returns the answer's id. None: it is in the book already.

    `recorded_at`: when it stood in the book before a restore.
    """
    rows = await uow.sql(
        """
        with answer as (
            insert into answers (order_no, kind, state, at, digest, raw, signature)
            select $1::text, $2::text, $3::text, $4::timestamptz, $5::bytea, $6::bytea, $7::text::jsonb
            where not exists (select from ledger where channel = $9::text and transaction_id = $10::text and kind = 'received')
            returning answer_id
        )
        insert into ledger (kind, registration_id, order_no, channel, transaction_id, amount_fen, currency,
                            paid_at, recorded_at, answer_id)
        select 'received', $8::uuid, $1, $9, $10, $11::bigint, $12::text, $13::timestamptz,
               coalesce($14::timestamptz, $4), answer_id from answer
        on conflict (channel, transaction_id, kind) do nothing
        returning answer_id
        """,
        *evidence.arguments(vault, uow.at),
        registration_id,
        channel,
        success.transaction_id,
        success.amount_fen,
        success.currency,
        success.paid_at,
        recorded_at,
    )
    return rows[0].answer_id if rows else None


async def is_booked(uow: UnitOfWork, order_no: str) -> bool:
    """Whether money for this order stands in the book."""
    return bool(
        await uow.sql("select 1 from ledger where order_no = $1 and kind = 'received' limit 1", order_no)
    )


async def owe_back(
    uow: UnitOfWork,
    registration_id: UUID,
    channel: str,
    success: Success,
    cause: RefundCause,
    *,
    recorded_at: datetime | None = None,
) -> None:
    """This money has to go back. Who pays it out is not decided here."""
    await uow.changed(
        "insert into ledger (kind, registration_id, order_no, channel, transaction_id, amount_fen, currency, "
        "paid_at, recorded_at, cause) values ('refund-due', $1, $2, $3, $4, $5, $6, $7, $8, $9)",
        registration_id,
        success.order_no,
        channel,
        success.transaction_id,
        success.amount_fen,
        success.currency,
        success.paid_at,
        recorded_at or uow.at,
        cause,
    )


async def owe_back_all(uow: UnitOfWork, registration_id: UUID, cause: RefundCause) -> int:
    """All money of a registration that does not have to go back yet has to now."""
    return await uow.changed(
        """
        insert into ledger (kind, registration_id, order_no, channel, transaction_id, amount_fen, currency,
                            paid_at, recorded_at, cause)
        select 'refund-due', registration_id, order_no, channel, transaction_id, amount_fen, currency, paid_at,
               $2::timestamptz, $3::text
        from ledger where registration_id = $1 and kind = 'received'
        on conflict (channel, transaction_id, kind) do nothing
        """,
        registration_id,
        uow.at,
        cause,
    )


async def totals(uow: UnitOfWork) -> Row:
    """received = paid (kept as fees) + refunded + due (to go back) + held (in the book, not yet judged)."""
    rows = await uow.sql(
        """
        with money as (
            select l.amount_fen, o.status, exists (
                       select from ledger b where b.channel = l.channel and b.transaction_id = l.transaction_id
                                              and b.kind = 'refund-due') as goes_back
            from ledger l join obligations o on o.registration_id = l.registration_id
            where l.kind = 'received'
        )
        select coalesce(sum(amount_fen), 0)::bigint as received,
               coalesce(sum(amount_fen) filter (where status = 'paid' and not goes_back), 0)::bigint as paid,
               coalesce(sum(amount_fen) filter (where goes_back), 0)::bigint
                   - (select coalesce(sum(amount_fen), 0) from ledger where kind = 'refunded')::bigint as due,
               (select coalesce(sum(amount_fen), 0) from ledger where kind = 'refunded')::bigint as refunded,
               coalesce(sum(amount_fen) filter (where status <> 'paid' and not goes_back), 0)::bigint as held
        from money
        """
    )
    return rows[0]


async def refunds_due(uow: UnitOfWork, limit: int) -> Sequence[Row]:
    """Money that has to go back, oldest first."""
    return await uow.sql(
        "select registration_id, order_no, channel, transaction_id, amount_fen, cause, paid_at, recorded_at "
        "from ledger where kind = 'refund-due' order by entry_id limit $1",
        limit,
    )
