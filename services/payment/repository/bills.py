"""A gateway's bill against the book: stored once, then compared in sets. No work is done per row in Python."""

# ruff: noqa: S608 -- what is put into statements here are this package's own constants
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from hashlib import sha256
from itertools import islice
from typing import Final, Protocol
from uuid import UUID

from contracts.reasons import BreakKind
from services.chassis.db import Row, UnitOfWork
from services.payment.domain.reconciling import (
    NEAR_MIDNIGHT,
    REFUND_TAKES,
    Explanation,
    begins_at,
    looked_at_again,
)
from services.payment.repository.vocabulary import one_of

CHUNK: Final = 10_000
LOOKED_AT_AGAIN: Final = "looked-at-again"
_RECONCILING: Final = (0x6B77_7077, 2)
_DAY: Final = "at time zone 'Asia/Shanghai')::date"
# The bill in force of every day that was compared. $1 is the channel.
_CURRENT: Final = """
    select distinct on (r.day) r.day, r.bill_id, r.number from reconciliations r where r.channel = $1
    order by r.day, r.number desc
"""
_OPEN: Final = "not exists (select from break_closings c where c.break_id = b.break_id)"
# Found again in another bill of its day, an open break is the same break; a closed one is not opened again, a new one is made.
_NEW: Final = f"""
    not exists (select from breaks b where b.channel = $1 and b.day = f.day and b.kind = f.kind and b.subject = f.subject
                and (b.bill_id = f.bill_id or {_OPEN}))
"""
_COLUMNS: Final = (
    "bill_id, channel, day, kind, subject, line_no, order_no, transaction_id, refund_no, registration_id, state, "
    "billed_fen, booked_fen, found_at"
)
# The id follows from what it is about: after a restore it is the same break.
_BREAK_ID: Final = "md5(concat_ws('|', 'kaowu.break.v1', f.bill_id, f.kind, f.subject))::uuid"


class Line(Protocol):
    """A line of a bill, as a gateway's adapter reads it."""

    @property
    def order_no(self) -> str: ...
    @property
    def transaction_id(self) -> str: ...
    @property
    def refund_no(self) -> str | None: ...
    @property
    def amount_fen(self) -> int: ...
    @property
    def at(self) -> datetime: ...


def bill_id_of(channel: str, day: date, digest: bytes | None) -> UUID:
    """A bill is the same bill whenever it is fetched: what was cut short goes on where it was."""
    mixed = sha256(f"kaowu.bill.v1 {channel} {day} ".encode() + (digest or b"none")).digest()
    return UUID(bytes=mixed[:16])


async def settled(uow: UnitOfWork, channel: str) -> dict[date, UUID]:
    """The days that were compared, with the bill in force of each."""
    rows = await uow.sql(f"select c.day, c.bill_id from ({_CURRENT}) c", channel)
    return {row.day: row.bill_id for row in rows}


async def add_lines(uow: UnitOfWork, bill_id: UUID, first: int, lines: Sequence[Line]) -> None:
    """A part of a bill's lines, in one statement."""
    await uow.changed(
        """
        insert into bill_lines (bill_id, line_no, order_no, transaction_id, refund_no, amount_fen, at)
        select $1, l.* from unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[]) as l
        on conflict do nothing
        """,
        bill_id,
        list(range(first, first + len(lines))),
        [line.order_no for line in lines],
        [line.transaction_id for line in lines],
        [line.refund_no for line in lines],
        [line.amount_fen for line in lines],
        [line.at for line in lines],
    )


def parts(lines: Sequence[Line]) -> Iterator[tuple[int, Sequence[Line]]]:
    """(number of its first line, lines): in pieces of a size that a statement takes."""
    left = iter(lines)
    first = 1
    while part := list(islice(left, CHUNK)):
        yield first, part
        first += len(part)


async def hold(uow: UnitOfWork) -> None:
    """Until this transaction ends no other bill is compared."""
    await uow.sql("select pg_advisory_xact_lock($1, $2)", *_RECONCILING)


async def add(
    uow: UnitOfWork,
    bill_id: UUID,
    channel: str,
    day: date,
    digest: bytes | None,
    raw: bytes | None,
    lines: int,
) -> None:
    """The bill itself; `raw` is encrypted. Its lines are there already."""
    await uow.changed(
        "insert into bills (bill_id, channel, day, digest, raw, lines, fetched_at) "
        "values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
        bill_id,
        channel,
        day,
        digest,
        raw,
        lines,
        uow.at,
    )


async def is_empty(uow: UnitOfWork, channel: str, day: date) -> bool:
    """Whether nothing stands in our book on that day of the gateway's that another day's bill does not have: no payment,
    no refund done. A refund is billed on the day it was asked for, and may be done days after."""
    begins, ends = begins_at(day), begins_at(day.fromordinal(day.toordinal() + 1))
    return not await uow.sql(
        f"""
        with current as materialized ({_CURRENT})
        select 1 from ledger g
        left join refunds r on g.kind = 'refunded' and r.channel = g.channel and r.transaction_id = g.transaction_id
        where g.channel = $1 and (
            (g.kind = 'received' and g.paid_at >= $2 and g.paid_at < $3)
            or (g.kind = 'refunded' and g.recorded_at >= $2 and g.recorded_at < $3))
          and not exists (select from bill_lines l join current k on k.bill_id = l.bill_id
                          where l.transaction_id = g.transaction_id and l.refund_no is not distinct from r.refund_no)
        limit 1
        """,
        channel,
        begins,
        ends,
    )


# Three ways: the line, our book (l, f, d: received, kept as fee, due back; r, b: a refund and its posting), the
# registration's state. Exactly one word for each line.
_VERDICT: Final = f"""
    case
        when l.nth > 1 or exists (
            select from bill_lines e join current c on c.bill_id = e.bill_id
            where c.day <> $2 and e.transaction_id = l.transaction_id and e.refund_no is not distinct from l.refund_no)
            then '{BreakKind.DUPLICATE_LINE}'
        when l.refund_no is not null then case
            when r.refund_no is null then '{BreakKind.REFUND_NOT_IN_LEDGER}'
            when r.transaction_id <> l.transaction_id or r.order_no <> l.order_no then '{BreakKind.OTHER_ORDER}'
            when r.amount_fen <> l.amount_fen then '{BreakKind.REFUND_OTHER_AMOUNT}'
            when b.kind is not null then 'matched'
            when r.status = 'refused' then '{BreakKind.REFUND_NOT_IN_LEDGER}'
            else '{Explanation.REFUND_UNDER_WAY}' end
        when g.kind is null and o.order_no is null then '{BreakKind.UNKNOWN_ORDER}'
        when g.kind is null then '{BreakKind.NOT_IN_LEDGER}'
        when g.order_no <> l.order_no then '{BreakKind.OTHER_ORDER}'
        when g.amount_fen <> l.amount_fen then '{BreakKind.OTHER_AMOUNT}'
        when least(g.paid_at, l.at) < $4::timestamptz - $6::interval or greatest(g.paid_at, l.at) >= $5::timestamptz
            then '{BreakKind.OTHER_DAY}'
        when d.kind is not null then '{Explanation.GOES_BACK}'
        when f.kind is null or t.status is distinct from 'paid' then '{BreakKind.NOT_PAID_HERE}'
        when g.paid_at < $4 or l.at < $4 then '{Explanation.BOOKED_NEXT_DAY}'
        else 'matched'
    end
"""
_COMPARE_LINES: Final = f"""
with current as materialized ({_CURRENT}),
line as (
    select b.*, case when refund_no is null then 'p:' || transaction_id else 'r:' || refund_no end as subject,
           row_number() over (partition by transaction_id, refund_no order by line_no) as nth
    from bill_lines b where b.bill_id = $3
), judged as materialized (
    select $3::uuid as bill_id, $2::date as day, l.subject, l.line_no, l.order_no, l.transaction_id, l.refund_no,
           coalesce(g.registration_id, r.registration_id, o.registration_id) as registration_id, t.status as state,
           l.amount_fen as billed_fen, coalesce(g.amount_fen, r.amount_fen) as booked_fen, {_VERDICT} as kind
    from line l
    left join orders o on o.order_no = l.order_no and o.channel = $1
    left join ledger g on g.channel = $1 and g.transaction_id = l.transaction_id and g.kind = 'received'
                      and l.refund_no is null
    left join ledger f on f.channel = $1 and f.transaction_id = g.transaction_id and f.kind = 'fee'
    left join ledger d on d.channel = $1 and d.transaction_id = g.transaction_id and d.kind = 'refund-due'
    left join refunds r on r.channel = $1 and r.refund_no = l.refund_no
    left join ledger b on b.channel = $1 and b.transaction_id = r.transaction_id and b.kind = 'refunded'
    left join obligations t on t.registration_id = coalesce(g.registration_id, o.registration_id)
), explained as (
    insert into explanations (bill_id, subject, reason, line_no, order_no, amount_fen, found_at)
    select bill_id, subject, kind, line_no, order_no, billed_fen, $7::timestamptz from judged
    where kind in {one_of(Explanation)} on conflict do nothing
), broken as (
    insert into breaks (break_id, {_COLUMNS})
    select distinct on (f.kind, f.subject) {_BREAK_ID}, f.bill_id, $1, f.day, f.kind, f.subject, f.line_no, f.order_no,
           f.transaction_id, f.refund_no, f.registration_id, f.state, f.billed_fen, f.booked_fen, $7
    from judged f where f.kind in {one_of(BreakKind)} and {_NEW} order by f.kind, f.subject, f.line_no
    on conflict do nothing
)
select count(*) as lines, count(*) filter (where kind = 'matched') as matched,
       count(*) filter (where kind in {one_of(Explanation)}) as explained,
       count(*) filter (where kind in {one_of(BreakKind)}) as breaks,
       coalesce(sum(billed_fen) filter (where refund_no is null), 0)::bigint as billed_fen,
       coalesce(sum(billed_fen) filter (where refund_no is not null), 0)::bigint as billed_back_fen
from judged
"""
# What our book has and no bill in force has, of every day compared so far: what was booked since is found the next time.
_COMPARE_BOOK: Final = f"""
with current as materialized (
    select c.day, c.bill_id from ({_CURRENT}) c where c.day <> $2
    union all select $2::date, $3::uuid
), posted as (
    select case g.kind when 'received' then '{BreakKind.NOT_IN_BILL}' else '{BreakKind.REFUND_NOT_IN_BILL}' end as kind,
           g.order_no, g.transaction_id, r.refund_no, g.registration_id, g.amount_fen,
           case g.kind when 'received' then 'p:' || g.transaction_id else 'r:' || r.refund_no end as subject,
           case g.kind when 'received' then g.paid_at else g.recorded_at end as at,
           (r.due_at {_DAY} as asked_from
    from ledger g
    left join refunds r on g.kind = 'refunded' and r.channel = g.channel and r.transaction_id = g.transaction_id
    where g.channel = $1 and g.kind in ('received', 'refunded')
), missing as (
    select p.*, c.day, c.bill_id,
           p.at >= (c.day + 1)::timestamp at time zone 'Asia/Shanghai' - $4::interval
           and not exists (select from current n where n.day = c.day + 1)
           -- It may stand in the bill of any day since it was due, of which one is not here.
           or p.refund_no is not null and exists (
               select from generate_series(p.asked_from, c.day - 1, interval '1 day') as d (day)
               where not exists (select from current n where n.day = d.day::date)) as waits
    from posted p join current c on c.day = (p.at {_DAY}
    where not exists (select from bill_lines l join current k on k.bill_id = l.bill_id
                      where l.transaction_id = p.transaction_id and l.refund_no is not distinct from p.refund_no)
), overdue as (
    select '{BreakKind.REFUND_NOT_IN_LEDGER}' as kind, e.order_no, l.transaction_id, l.refund_no, r.registration_id,
           l.amount_fen, e.subject, c.day, c.bill_id
    from explanations e join current c on c.bill_id = e.bill_id
    join bill_lines l on l.bill_id = e.bill_id and l.line_no = e.line_no
    join refunds r on r.channel = $1 and r.refund_no = l.refund_no
    where e.reason = '{Explanation.REFUND_UNDER_WAY}' and c.day + $6::int < $2
      and not exists (select from ledger b where b.channel = $1 and b.transaction_id = r.transaction_id
                                             and b.kind = 'refunded')
), explained as (
    insert into explanations (bill_id, subject, reason, order_no, amount_fen, found_at)
    select bill_id, subject, '{Explanation.NOT_YET_BILLED}', order_no, amount_fen, $5::timestamptz
    from missing where waits on conflict do nothing
), found as (
    select bill_id, day, kind, subject, order_no, transaction_id, refund_no, registration_id,
           null::bigint as billed_fen, amount_fen as booked_fen from missing where not waits
    union all
    select bill_id, day, kind, subject, order_no, transaction_id, refund_no, registration_id, amount_fen, null from overdue
), broken as (
    insert into breaks (break_id, {_COLUMNS})
    select {_BREAK_ID}, f.bill_id, $1, f.day, f.kind, f.subject, null, f.order_no, f.transaction_id, f.refund_no,
           f.registration_id, t.status, f.billed_fen, f.booked_fen, $5
    from found f left join obligations t on t.registration_id = f.registration_id where {_NEW}
    on conflict do nothing
)
select count(*) filter (where day = $2) as breaks from found
"""


@dataclass(frozen=True, slots=True)
class Compared:
    """What a day has come to."""

    lines: int
    matched: int
    explained: int
    breaks: int
    billed_fen: int
    billed_back_fen: int
    booked_fen: int


async def compare(uow: UnitOfWork, channel: str, day: date, bill_id: UUID) -> Compared:
    """Every line of the bill against our book, and our book against every bill in force."""
    begins, ends = begins_at(day), begins_at(day.fromordinal(day.toordinal() + 1))
    (lines,) = await uow.sql(_COMPARE_LINES, channel, day, bill_id, begins, ends, NEAR_MIDNIGHT, uow.at)
    (book,) = await uow.sql(_COMPARE_BOOK, channel, day, bill_id, NEAR_MIDNIGHT, uow.at, REFUND_TAKES.days)
    (booked,) = await uow.sql(
        "select coalesce(sum(amount_fen), 0)::bigint as fen from ledger "
        "where channel = $1 and kind = 'received' and paid_at >= $2 and paid_at < $3",
        channel,
        begins,
        ends,
    )
    return Compared(
        lines.lines,
        lines.matched,
        lines.explained,
        lines.breaks + book.breaks,
        lines.billed_fen,
        lines.billed_back_fen,
        booked.fen,
    )


async def conclude(
    uow: UnitOfWork, channel: str, day: date, bill_id: UUID, found: Compared, *, changed: bool
) -> None:
    """From now on this is the bill in force of its day."""
    await uow.changed(
        "insert into reconciliations (channel, day, bill_id, at, changed, lines, matched, explained, breaks, billed_fen, "
        "billed_back_fen, booked_fen) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        channel,
        day,
        bill_id,
        uow.at,
        changed,
        found.lines,
        found.matched,
        found.explained,
        found.breaks,
        found.billed_fen,
        found.billed_back_fen,
        found.booked_fen,
    )
    await look_again(uow, channel, day)


async def wait(
    uow: UnitOfWork, channel: str, day: date, code: str, ask_at: datetime, *, again: bool = False
) -> None:
    """This day is asked for again then: there is no bill of it yet, or somebody wants it fetched anew (`again`)."""
    await uow.changed(
        """
        insert into bill_waits as w (channel, day, since, attempts, ask_at, code, again)
        values ($1, $2, $3, case when $6 then 0 else 1 end, $4, $5, $6)
        on conflict (channel, day) do update
        set attempts = w.attempts + excluded.attempts, ask_at = excluded.ask_at, code = excluded.code,
            again = w.again or excluded.again
        """,
        channel,
        day,
        uow.at,
        ask_at,
        code,
        again,
    )


async def look_again(uow: UnitOfWork, channel: str, day: date) -> None:
    """It is here. A gateway may still correct it: it is fetched again a few times, and then no more."""
    ask_at = looked_at_again(day, uow.at)
    if ask_at is None:
        await uow.changed("delete from bill_waits where channel = $1 and day = $2", channel, day)
        return
    await uow.changed(
        """
        insert into bill_waits (channel, day, since, attempts, ask_at, code, again) values ($1, $2, $3, 0, $4, $5, true)
        on conflict (channel, day) do update
        set attempts = 0, ask_at = excluded.ask_at, code = excluded.code, again = true
        """,
        channel,
        day,
        uow.at,
        ask_at,
        LOOKED_AT_AGAIN,
    )


async def waits(uow: UnitOfWork) -> Sequence[Row]:
    """Every day that is waited for."""
    return await uow.sql("select * from bill_waits order by day, channel")
