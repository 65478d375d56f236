"""The ledger: only ever added to. Every total is a sum over it, so none can drift from what happened."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from contracts.reasons import RefundCause
from services.chassis.db import Row, UnitOfWork
from services.chassis.vault import Vault
from services.payment.domain.book import Posting
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


async def is_booked(uow: UnitOfWork, registration_id: UUID, order_no: str) -> bool:
    """Whether money for this order of theirs stands in the book."""
    return await _is_posted(uow, registration_id, order_no, Posting.RECEIVED)


async def is_no_fee(uow: UnitOfWork, registration_id: UUID, order_no: str) -> bool:
    """Whether money for this order of theirs has to go back, or did."""
    return await _is_posted(uow, registration_id, order_no, Posting.REFUND_DUE)


async def _is_posted(uow: UnitOfWork, registration_id: UUID, order_no: str, kind: Posting) -> bool:
    # By whose it is, of which there is an index: by its number alone the whole book would be read for every notice that
    # comes a second time.
    return bool(
        await uow.sql(
            "select 1 from ledger where registration_id = $1 and order_no = $2 and kind = $3 limit 1",
            registration_id,
            order_no,
            kind,
        )
    )


async def keep(uow: UnitOfWork, answer_id: int) -> None:
    """What was received by this answer is the fee."""
    await uow.changed(
        """
        insert into ledger (kind, registration_id, order_no, channel, transaction_id, amount_fen, currency,
                            paid_at, recorded_at)
        select 'fee', registration_id, order_no, channel, transaction_id, amount_fen, currency, paid_at, recorded_at
        from ledger where answer_id = $1 and kind = 'received'
        on conflict (channel, transaction_id, kind) do nothing
        """,
        answer_id,
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
    """This money was never the fee and has to go back. Giving it back is `handlers/refunding.py`."""
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


async def owe_back_all(
    uow: UnitOfWork, registration_id: UUID, cause: RefundCause, *, recorded_at: datetime | None = None
) -> int:
    """All money of a registration that does not have to go back yet has to now; what was its fee is none any more."""
    rows = await uow.sql(
        """
        with back as (
            insert into ledger (kind, registration_id, order_no, channel, transaction_id, amount_fen, currency,
                                paid_at, recorded_at, cause)
            select 'refund-due', registration_id, order_no, channel, transaction_id, amount_fen, currency, paid_at,
                   $2::timestamptz, $3::text
            from ledger where registration_id = $1 and kind = 'received'
            on conflict (channel, transaction_id, kind) do nothing
            returning channel, transaction_id
        ), taken_back as (
            insert into ledger (kind, registration_id, order_no, channel, transaction_id, amount_fen, currency,
                                paid_at, recorded_at)
            select 'fee-taken-back', l.registration_id, l.order_no, l.channel, l.transaction_id, l.amount_fen, l.currency,
                   l.paid_at, $2::timestamptz
            from ledger l join back using (channel, transaction_id) where l.kind = 'fee'
            on conflict (channel, transaction_id, kind) do nothing
        )
        select count(*) as back from back
        """,
        registration_id,
        recorded_at or uow.at,
        cause,
    )
    return int(rows[0].back)


async def give_back(
    uow: UnitOfWork, vault: Vault, channel: str, transaction_id: str, evidence: Evidence
) -> bool:
    """The gateway says that this payment went back. False: it is in the book already."""
    rows = await uow.sql(
        """
        with answer as (
            insert into answers (order_no, kind, state, at, digest, raw, signature)
            select $1::text, $2::text, $3::text, $4::timestamptz, $5::bytea, $6::bytea, $7::text::jsonb
            where not exists (select from ledger where channel = $8::text and transaction_id = $9::text and kind = 'refunded')
            returning answer_id
        )
        insert into ledger (kind, registration_id, order_no, channel, transaction_id, amount_fen, currency,
                            paid_at, recorded_at, answer_id)
        select 'refunded', l.registration_id, l.order_no, l.channel, l.transaction_id, l.amount_fen, l.currency,
               l.paid_at, $4, answer.answer_id
        from answer, ledger l where l.channel = $8 and l.transaction_id = $9 and l.kind = 'refund-due'
        on conflict (channel, transaction_id, kind) do nothing
        returning answer_id
        """,
        *evidence.arguments(vault, uow.at),
        channel,
        transaction_id,
    )
    return bool(rows)


async def receipts(uow: UnitOfWork, registration_id: UUID) -> Sequence[Row]:
    """Each payment of a registration as the book has it, with what became of it."""
    return await uow.sql(
        """
        select l.order_no, l.channel, l.transaction_id, l.amount_fen, l.currency, l.paid_at,
               case when done.kind is not null then 'refunded'
                    when due.kind is not null then 'refund-due'
                    when exists (select from ledger f where f.channel = l.channel and f.transaction_id = l.transaction_id
                                                        and f.kind = 'fee') then 'fee'
                    else 'received' end as became,
               due.cause, done.recorded_at as refund_confirmed_at,
               (select refund_no from refunds r where r.channel = l.channel and r.transaction_id = l.transaction_id) as refund_no
        from ledger l
        left join ledger due on due.channel = l.channel and due.transaction_id = l.transaction_id and due.kind = 'refund-due'
        left join ledger done on done.channel = l.channel and done.transaction_id = l.transaction_id and done.kind = 'refunded'
        where l.registration_id = $1 and l.kind = 'received' order by l.paid_at, l.entry_id
        """,
        registration_id,
    )


async def complete_fees(uow: UnitOfWork) -> int:
    """Fees that a process of the version before did not post: what came in, was never due back, and paid for somebody."""
    return await uow.changed(
        """
        insert into ledger (kind, registration_id, order_no, channel, transaction_id, amount_fen, currency,
                            paid_at, recorded_at)
        select 'fee', l.registration_id, l.order_no, l.channel, l.transaction_id, l.amount_fen, l.currency, l.paid_at,
               l.recorded_at
        from ledger l join obligations o on o.registration_id = l.registration_id and o.status = 'paid'
        where l.kind = 'received' and not exists (
            select from ledger b where b.channel = l.channel and b.transaction_id = l.transaction_id
                                   and b.kind in ('fee', 'refund-due'))
        on conflict (channel, transaction_id, kind) do nothing
        """
    )


async def totals(uow: UnitOfWork) -> Row:
    """received = paid (kept as fees) + refunded + due (to go back) + held (in the book, not yet judged).

    Each is the balance of an account, or what passed through it.
    """
    rows = await uow.sql(
        """
        with sides as (
            select debit as account, amount_fen, 0 as out_fen from ledger
            union all
            select credit, 0, amount_fen from ledger
        ), accounts as (
            select case when account like 'gateway:%' then 'gateway' else account end as account,
                   sum(amount_fen)::bigint as came, sum(out_fen)::bigint as went
            from sides group by 1
        )
        select coalesce(max(came) filter (where account = 'gateway'), 0) as received,
               coalesce(max(went) filter (where account = 'gateway'), 0) as refunded,
               coalesce(max(went - came) filter (where account = 'fees'), 0) as paid,
               coalesce(max(went - came) filter (where account = 'refunds-due'), 0) as due,
               coalesce(max(went - came) filter (where account = 'unjudged'), 0) as held
        from accounts
        """
    )
    return rows[0]
