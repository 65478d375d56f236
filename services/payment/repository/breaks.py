"""Breaks as the office sees them: found, listed, closed by a person; and the balance that they belong to."""

# ruff: noqa: S608 -- what is put into statements here are this package's own constants
from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from contracts import payment
from contracts.reasons import BreakKind
from services.chassis import outbox
from services.chassis.db import Row, UnitOfWork
from services.payment.domain.order import Order, OrderStatus

_BEIJING_DAY: Final = "at time zone 'Asia/Shanghai')::date"
_OPEN: Final = "not exists (select from break_closings c where c.break_id = b.break_id)"
# What was said before a restore, with the id that follows from what it is about, is not said again.
_UNSAID: Final = f"""
    b.break_id::text not in (
        select o.payload::jsonb ->> 'break_id' from outbox o where o.key = $1 and o.type = '{payment.BreakFound.type}')
"""
_FOUND: Final = outbox.insert_select(
    payment.BreakFound,
    {
        "cycle_id": "$1::text",
        "break_id": "b.break_id",
        "kind": "b.kind",
        "channel": "b.channel",
        "date": "b.day",
        "billed_fen": "b.billed_fen",
        "booked_fen": "b.booked_fen",
    },
    source=f"(select b.* from breaks b where b.number > $3 and {_UNSAID} order by b.number) b",
    key="$1",
    sequence="$2::bigint + row_number() over (order by b.number) - 1",
    occurred_at="$4::timestamptz",
    correlation_id="$5::text",
    causation_id="$6::text",
)


async def last_number(uow: UnitOfWork) -> int:
    """The newest one's."""
    rows = await uow.sql("select coalesce(max(number), 0) as number from breaks")
    return int(rows[0].number)


async def unsaid_after(uow: UnitOfWork, cycle_id: str, number: int) -> int:
    """How many are newer and were never said."""
    rows = await uow.sql(
        f"select count(*) as breaks from breaks b where b.number > $2 and {_UNSAID}", cycle_id, number
    )
    return int(rows[0].breaks)


async def say(uow: UnitOfWork, cycle_id: str, first: int, after: int) -> None:
    """An event for each of them, in one statement, numbered from `first` on."""
    uow.events_added += await uow.changed(
        _FOUND, cycle_id, first, after, uow.at, uow.cause.correlation_id, uow.cause.causation_id
    )


async def was_said(uow: UnitOfWork, event: payment.Reconciled) -> bool:
    """Whether the same was said of this day before a restore."""
    return bool(
        await uow.sql(
            "select 1 from outbox where key = $1 and type = $2 and payload::jsonb = $3::text::jsonb limit 1",
            event.key,
            event.type,
            event.model_dump_json(),
        )
    )


async def orders_to_ask(uow: UnitOfWork, channel: str, limit: int) -> list[Order]:
    """Orders of ours that a bill says were paid, and our book has nothing of it: their notices may have got lost."""
    rows = await uow.sql(
        f"""
        select distinct r.order_no, r.registration_id, r.channel, r.amount_fen, r.currency, r.status, r.created_at,
               r.expires_at, r.code_url, r.attempts
        from breaks b join orders r on r.order_no = b.order_no and r.channel = b.channel
        where b.channel = $1 and b.kind = '{BreakKind.NOT_IN_LEDGER}' and {_OPEN}
          and not exists (select from ledger l where l.channel = b.channel and l.transaction_id = b.transaction_id
                                                 and l.kind = 'received')
        order by r.order_no limit $2
        """,
        channel,
        limit,
    )
    return [
        Order(
            order_no=row.order_no,
            registration_id=row.registration_id,
            channel=row.channel,
            amount_fen=row.amount_fen,
            currency=row.currency,
            status=OrderStatus(row.status),
            created_at=row.created_at,
            expires_at=row.expires_at,
            code_url=row.code_url,
            attempts=row.attempts,
        )
        for row in rows
    ]


async def page(uow: UnitOfWork, *, after: int, limit: int, closed: bool) -> Sequence[Row]:
    """In the order in which they were found, from number `after` on. `settled_since`: our book has it by now."""
    return await uow.sql(
        f"""
        select b.number, b.break_id, b.channel, b.day, b.kind, b.line_no, b.order_no, b.transaction_id, b.refund_no,
               b.registration_id, b.state, b.billed_fen, b.booked_fen, b.found_at, k.closed_by, k.closed_at, k.reason_code,
               o.status as state_now,
               case when b.refund_no is null then exists (
                   select from ledger l where l.channel = b.channel and l.transaction_id = b.transaction_id
                                          and l.kind = 'received')
               else exists (
                   select from refunds r join ledger l on l.channel = r.channel and l.transaction_id = r.transaction_id
                   where r.channel = b.channel and r.refund_no = b.refund_no and l.kind = 'refunded')
               end as in_ledger_now
        from breaks b left join break_closings k using (break_id)
        left join obligations o on o.registration_id = b.registration_id
        where b.number > $1 and {_OPEN if not closed else "k.break_id is not null"}
        order by b.number limit $2
        """,
        after,
        limit,
    )


async def find(uow: UnitOfWork, break_id: UUID) -> Row | None:
    """One of them; `closed_at` says whether somebody closed it."""
    rows = await uow.sql(
        "select b.break_id, b.channel, b.day, b.kind, "
        "(select c.closed_at from break_closings c where c.break_id = b.break_id) as closed_at "
        "from breaks b where b.break_id = $1",
        break_id,
    )
    return rows[0] if rows else None


async def closed_before_a_restore(uow: UnitOfWork, cycle_id: str) -> Sequence[Row]:
    """Breaks that stand here as open and of which we have said that a person closed them."""
    return await uow.sql(
        f"""
        select b.break_id, o.occurred_at, o.payload::jsonb ->> 'reason_code' as reason_code
        from outbox o join breaks b on b.break_id = (o.payload::jsonb ->> 'break_id')::uuid
        where o.key = $1 and o.type = '{payment.BreakClosed.type}' and {_OPEN}
        order by b.number
        """,
        cycle_id,
    )


async def close(
    uow: UnitOfWork,
    break_id: UUID,
    closed_by: str,
    reason_code: str,
    reason: bytes,
    *,
    at: datetime | None = None,
) -> bool:
    """False if somebody else did meanwhile. `at`: when it was, if not now."""
    return (
        await uow.changed(
            "insert into break_closings (break_id, closed_by, closed_at, reason_code, reason) "
            "values ($1, $2, $3, $4, $5) on conflict do nothing",
            break_id,
            closed_by,
            at or uow.at,
            reason_code,
            reason,
        )
        == 1
    )


async def balances(uow: UnitOfWork) -> Sequence[Row]:
    """Money by channel and by the day on which it was paid. `owed` is summed from the obligations of the paid, everything
    else from the book: so a fee that nobody owes, or somebody paid without a fee, shows.
    """
    return await uow.sql(
        f"""
        with book as (
            select channel, (paid_at {_BEIJING_DAY} as day,
                   coalesce(sum(amount_fen) filter (where kind = 'received'), 0)::bigint as received,
                   coalesce(sum(amount_fen) filter (where kind = 'fee'), 0)::bigint as fee,
                   coalesce(sum(amount_fen) filter (where kind = 'fee-taken-back'), 0)::bigint as taken_back,
                   coalesce(sum(amount_fen) filter (where kind = 'refund-due'), 0)::bigint as refund_due,
                   coalesce(sum(amount_fen) filter (where kind = 'refunded'), 0)::bigint as refunded
            from ledger group by 1, 2
        ), kept as (
            select f.registration_id, f.channel, (f.paid_at {_BEIJING_DAY} as day from ledger f
            where f.kind = 'fee' and not exists (
                select from ledger d where d.channel = f.channel and d.transaction_id = f.transaction_id
                                       and d.kind = 'refund-due')
        ), paid as (
            select coalesce(k.channel, '') as channel, coalesce(k.day, (o.paid_at {_BEIJING_DAY}) as day,
                   sum(o.amount_fen)::bigint as owed
            from obligations o left join kept k using (registration_id) where o.status = 'paid' group by 1, 2
        )
        select channel, day, coalesce(received, 0) as received, coalesce(fee - taken_back, 0) as fees,
               coalesce(refunded, 0) as refunded, coalesce(refund_due - refunded, 0) as due,
               coalesce(received - fee + taken_back - refund_due, 0) as held, coalesce(owed, 0) as owed
        from book full join paid using (channel, day) order by day, channel
        """
    )


async def days(uow: UnitOfWork) -> Sequence[Row]:
    """The comparison in force of every day of every channel, and what stands on its list."""
    return await uow.sql(
        f"""
        with newest as (
            select distinct on (channel, day) * from reconciliations order by channel, day, number desc
        ), listed as (
            select channel, day, count(*) filter (where {_OPEN}) as open_breaks from breaks b group by 1, 2
        )
        select n.channel, n.day, n.at, n.changed, n.lines, n.matched, n.explained, n.breaks, n.billed_fen, n.billed_back_fen,
               n.booked_fen, encode(b.digest, 'hex') as digest, coalesce(l.open_breaks, 0) as open_breaks,
               (select coalesce(json_object_agg(e.reason, e.n), '{{}}')::text from (
                   select reason, count(*) as n from explanations where bill_id = n.bill_id group by 1) e) as explanations
        from newest n join bills b using (bill_id) left join listed l on l.channel = n.channel and l.day = n.day
        order by n.day, n.channel
        """
    )


async def open_count(uow: UnitOfWork) -> int:
    """How many stand on the list."""
    rows = await uow.sql(f"select count(*) as breaks from breaks b where {_OPEN}")
    return int(rows[0].breaks)
