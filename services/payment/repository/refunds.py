"""Refunds on their way. What is due and what is done stands in the ledger; here is only how far asking has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from contracts import payment
from contracts.reasons import RefundCause
from services.chassis.db import Row, UnitOfWork
from services.payment.domain.book import RefundStatus, refund_number

_COLUMNS = (
    "f.refund_no, f.channel, f.transaction_id, f.order_no, f.registration_id, f.amount_fen, f.cause, f.status, "
    "f.due_at, f.ask_at, f.attempts, f.code"
)


@dataclass(frozen=True, slots=True)
class Refund:
    """One payment that has to go back in full."""

    refund_no: str
    channel: str
    transaction_id: str
    order_no: str
    registration_id: UUID
    amount_fen: int
    cause: RefundCause
    status: RefundStatus
    attempts: int
    code: str | None
    """The gateway's own word for a refusal."""


async def open_due(uow: UnitOfWork, limit: int) -> int:
    """Begin what the ledger says is due and nobody has begun; returns how many."""
    rows = await uow.sql(
        """
        select l.channel, l.transaction_id, l.order_no, l.registration_id, l.amount_fen, l.cause, l.recorded_at
        from ledger l where l.kind = 'refund-due' and not exists (
            select from refunds f where f.channel = l.channel and f.transaction_id = l.transaction_id)
        order by l.entry_id limit $1
        """,
        limit,
    )
    if not rows:
        return 0
    return await uow.changed(
        """
        insert into refunds (refund_no, channel, transaction_id, order_no, registration_id, amount_fen, cause, status,
                             due_at, ask_at)
        select f.refund_no, f.channel, f.transaction_id, f.order_no, f.registration_id, f.amount_fen, f.cause, 'due',
               f.due_at, f.due_at
        from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::bigint[], $7::text[],
                    $8::timestamptz[])
             as f (refund_no, channel, transaction_id, order_no, registration_id, amount_fen, cause, due_at)
        on conflict do nothing
        """,
        [refund_number(row.channel, row.transaction_id) for row in rows],
        [row.channel for row in rows],
        [row.transaction_id for row in rows],
        [row.order_no for row in rows],
        [row.registration_id for row in rows],
        [row.amount_fen for row in rows],
        [row.cause for row in rows],
        [row.recorded_at for row in rows],
    )


async def to_ask(uow: UnitOfWork, limit: int) -> list[Refund]:
    """Those whose moment has come, oldest first."""
    rows = await uow.sql(
        f"select {_COLUMNS} from refunds f where f.status <> 'done' and f.ask_at <= $1 "  # noqa: S608 - constants of ours
        "order by f.ask_at, f.refund_no limit $2",
        uow.at,
        limit,
    )
    return [
        Refund(
            refund_no=row.refund_no,
            channel=row.channel,
            transaction_id=row.transaction_id,
            order_no=row.order_no,
            registration_id=row.registration_id,
            amount_fen=row.amount_fen,
            cause=RefundCause(row.cause),
            status=RefundStatus(row.status),
            attempts=row.attempts,
            code=row.code,
        )
        for row in rows
    ]


async def next_to_ask(uow: UnitOfWork) -> datetime | None:
    """When the next one has to be asked about."""
    rows = await uow.sql("select min(ask_at) as at from refunds where status <> 'done'")
    moment: datetime | None = rows[0].at
    return moment


async def stands(
    uow: UnitOfWork, refund_no: str, status: RefundStatus, code: str | None, ask_at: datetime
) -> None:
    """Not done yet: how it stands and when to ask again."""
    await uow.changed(
        "update refunds set status = $2, code = $3, ask_at = $4, attempts = attempts + 1 "
        "where refund_no = $1 and status <> 'done'",
        refund_no,
        status,
        code,
        ask_at,
    )


async def ask_now(uow: UnitOfWork, channel: str, transaction_id: str) -> None:
    """The gateway has told of this payment's refund: what became of it is asked about without waiting for its turn."""
    await uow.changed(
        "update refunds set ask_at = $3 "
        "where channel = $1 and transaction_id = $2 and status <> 'done' and ask_at > $3",
        channel,
        transaction_id,
        uow.at,
    )


async def done(uow: UnitOfWork, refund_no: str) -> None:
    """The gateway has said so."""
    await uow.changed(
        "update refunds set status = 'done', code = null, decided_at = $2, attempts = attempts + 1 "
        "where refund_no = $1 and status <> 'done'",
        refund_no,
        uow.at,
    )


async def was_said(uow: UnitOfWork, registration_id: UUID, refund_no: str) -> bool:
    """Whether it was told before a restore: then it is not told again."""
    return bool(
        await uow.sql(
            "select 1 from outbox where key = $1 and type = $2 and payload::jsonb ->> 'refund_no' = $3 limit 1",
            str(registration_id),
            payment.Refunded.type,
            refund_no,
        )
    )


async def not_done(uow: UnitOfWork, limit: int) -> Sequence[Row]:
    """Money that has to go back and has not, oldest first, begun or not: for the office."""
    return await uow.sql(
        """
        select l.registration_id, l.order_no, l.channel, l.amount_fen, l.cause, l.paid_at, l.recorded_at as due_at,
               f.refund_no, coalesce(f.status, 'due') as status, coalesce(f.attempts, 0) as attempts, f.code, f.ask_at
        from ledger l left join refunds f on f.channel = l.channel and f.transaction_id = l.transaction_id
        where l.kind = 'refund-due' and f.status is distinct from 'done'
        order by l.entry_id limit $1
        """,
        limit,
    )
