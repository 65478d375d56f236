"""The close of the window, in sets: holding, forfeiting with proof, reminding, and the totals that are published."""

# ruff: noqa: S608 -- what is put into statements here are this package's own constants
from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Final
from uuid import UUID

from contracts import payment
from contracts.reasons import ExpiryCause
from services.chassis import outbox
from services.chassis.db import Row, UnitOfWork
from services.payment.domain.proof_tree import NO_CLOCKS
from services.payment.repository.vocabulary import MAY_BE_HELD, MAY_EXPIRE, UNDECIDED_ORDER
from services.payment.repository.windows import PUT_OFF

# Forfeited in one transaction, unless told otherwise: about 3 MB of log, behind which whoever pays meanwhile waits for the disk.
CHUNK: Final = 2000
RULE: Final = "unpaid-at-close"


def _moment(expression: str) -> str:
    """As a proof writes it: to the microsecond, without a colon, which parts fields."""
    return f"""to_char(({expression}) at time zone 'UTC', 'YYYYMMDD"T"HH24MISS.US"Z"')"""


UNDECIDED: Final = f"exists (select from orders r where r.registration_id = o.registration_id and r.status in {UNDECIDED_ORDER})"
# Who is forfeited: `Obligation.expire` as a predicate. $1 is the moment of the sweep. Nobody, while it is not known
# what was ordered before a restore; and none of those whose close is being decided about.
FALLS: Final = f"""
    o.status in {MAY_EXPIRE} and not {UNDECIDED}
    and not exists (select from recoveries where finished_at is null) and not {PUT_OFF}
"""
DUE: Final = f"o.closes_at <= $1 and {FALLS}"
# Every order and what its gateway said of it, in one line each: what is bound here nobody can say differently afterwards.
# Of money that came for it, too late or wrong, the moment stands at the end.
_ORDERS_OF: Final = f"""
    coalesce((select string_agg(concat_ws(':', r.order_no, r.status, coalesce(encode(a.digest, 'hex'), r.refusal, ''),
                                          r.channel, r.amount_fen, r.currency, {_moment("r.created_at")},
                                          {_moment("r.expires_at")}, coalesce(a.kind, ''), coalesce(a.state, ''),
                                          coalesce({_moment("a.at")}, ''),
                                          case when r.status = 'paid' then coalesce((
                                              select {_moment("max(l.paid_at)")} from ledger l
                                              where l.registration_id = e.registration_id and l.order_no = r.order_no
                                                and l.kind = 'received'), '') else '' end),
                                ' ' order by r.order_no)
              from orders r left join answers a on a.answer_id = r.answer_id
              where r.registration_id = e.registration_id), 'none')
"""
# The reminders that were said, and of which close.
_REMINDERS_OF: Final = f"""
    coalesce((select string_agg(concat_ws(':', m.offset_seconds, {_moment("m.at")}, {_moment("m.told_closes_at")}),
                                ' ' order by m.at, m.offset_seconds)
              from reminders m where m.registration_id = e.registration_id), 'none')
"""
# What a proof binds together; the first byte keeps a leaf from ever being taken for an inner node. docs/evidence.md has
# the fields; `deploy/evidence` makes the same leaf of a file, and of the form before this one as well.
_LEAF: Final = f"""
    sha256('\\x00'::bytea || convert_to(concat_ws('|', 'kaowu.forfeiture.v2', e.proof_id, e.registration_id,
        {_moment("e.closes_at")}, '{RULE}', $2::text, e.amount_fen, e.orders, {_moment("e.told_closes_at")},
        {_moment("$1::timestamptz")}, {_REMINDERS_OF}, $3::text), 'UTF8'))
"""
_EXPIRED: Final = outbox.insert_select(
    payment.Expired,
    {
        "cycle_id": "e.cycle_id",
        "registration_id": "e.registration_id",
        "closes_at": outbox.moment_sql("e.closes_at"),
        "cause": f"'{ExpiryCause.UNPAID}'",
        "proof_id": "e.proof_id",
    },
    source="evidence e",
    key="e.registration_id::text",
    sequence="e.version",
    occurred_at="$1",
    causation_id="'close:' || $2::text",
)


@cache
def _sweep(chunk: int, *, wait: bool) -> str:
    # What other transactions hold is passed by; once nothing else is left it is waited for, row by row in one order.
    waiting = "" if wait else "skip locked"
    # The number stands in the text: as a parameter the planner would take it for a tenth of the table.
    # Found by ctid: by id the planner would read the whole table for every chunk. A row that moved between its
    # locking and its update is left for the next chunk.
    return f"""
    with due as materialized (
        select o.ctid from obligations o where {DUE}
        order by o.closes_at, o.registration_id limit {chunk:d} for update of o {waiting}
    ), expired as (
        update obligations o
        set status = 'expired', version = o.version + 1, expired_at = $1, changed_at = $1, proof_id = uuidv7()
        where o.ctid = any(array(select ctid from due)) and o.status in {MAY_EXPIRE} and o.closes_at <= $1
        returning o.registration_id, o.cycle_id, o.version, o.closes_at, o.told_closes_at, o.amount_fen, o.proof_id
    ), evidence as materialized (
        select e.*, {_ORDERS_OF} as orders from expired e
    ), proven as (
        insert into proofs (proof_id, registration_id, closes_at, expired_at, amount_fen, rule, orders, leaf)
        select e.proof_id, e.registration_id, e.closes_at, $1, e.amount_fen, '{RULE}', e.orders, {_LEAF}
        from evidence e
    )
    {_EXPIRED}
    """


async def sweep_chunk(
    uow: UnitOfWork, fingerprint: str, *, clocks: str = NO_CLOCKS, wait: bool = False, chunk: int = CHUNK
) -> int:
    """Forfeit up to `chunk` of those who are due, each with its proof and its event, in one statement.

    `clocks`: what the three clocks said, as `domain.proof_tree.clocks_text` writes it.
    """
    forfeited = await uow.changed(_sweep(chunk, wait=wait), uow.at, fingerprint, clocks)
    uow.events_added += forfeited
    return forfeited


async def count_due(uow: UnitOfWork) -> int:
    """How many are still to be forfeited, whoever holds their rows."""
    rows = await uow.sql(f"select count(*) as due from obligations o where {DUE}", uow.at)
    return int(rows[0].due)


async def hold(uow: UnitOfWork) -> int:
    """Whoever still has an order under way after the close is held: neither forfeited nor paid."""
    return await uow.changed(
        f"update obligations o set status = 'held', changed_at = $1 "
        f"where o.status in {MAY_BE_HELD} and o.closes_at <= $1 and {UNDECIDED} and not {PUT_OFF}",
        uow.at,
    )


async def anybody_left(uow: UnitOfWork) -> bool:
    """Whether a close that has come still has somebody to decide about: the first of them, in the order of their index."""
    rows = await uow.sql(
        f"""
        select exists ((select from obligations o where {DUE} order by o.closes_at, o.registration_id limit 1)
            union all (select from obligations o where o.status = 'awaiting' and o.closes_at <= $1 and not {PUT_OFF}
                       order by o.closes_at, o.registration_id limit 1)) as left
        """,
        uow.at,
    )
    return bool(rows[0].left)


async def owed_closes(uow: UnitOfWork) -> list[datetime]:
    """Each moment at which it closes for somebody who owes: one step through the index for each."""
    rows = await uow.sql(
        f"""
        with recursive found (closes_at) as (
            (select o.closes_at from obligations o where o.status in {MAY_EXPIRE} order by o.closes_at limit 1)
            union all
            select (select o.closes_at from obligations o where o.status in {MAY_EXPIRE} and o.closes_at > f.closes_at
                    order by o.closes_at limit 1)
            from found f where f.closes_at is not null
        )
        select closes_at from found where closes_at is not null order by 1
        """
    )
    return [row.closes_at for row in rows]


async def unsaid(uow: UnitOfWork, cycle_id: str, moments: Sequence[datetime]) -> list[datetime]:
    """Of these closes those whose totals are not published; and any other by which somebody was forfeited."""
    rows = await uow.sql(
        """
        select m.closes_at from unnest($2::timestamptz[]) as m (closes_at)
        where not exists (select from closings c
                          where c.cycle_id = $1 and c.closes_at = m.closes_at and c.closed_at is not null)
        union
        select c.closes_at from closings c
        where c.cycle_id = $1 and c.closed_at is null and exists (select from proofs p where p.closes_at = c.closes_at)
        order by 1
        """,
        cycle_id,
        list(moments),
    )
    return [row.closes_at for row in rows]


async def begin(
    uow: UnitOfWork, cycle_id: str, closes_at: datetime, fingerprint: str, guard: str | None
) -> None:
    """Note that the close has begun, and whether the clocks stop it."""
    await uow.changed(
        """
        insert into closings as c (cycle_id, closes_at, fingerprint, begun_at, guard, guard_stops)
        values ($1, $2, $3, $4, $5::text, case when $5::text is null then 0 else 1 end)
        on conflict (cycle_id, closes_at) do update
        set guard = excluded.guard, guard_stops = c.guard_stops + excluded.guard_stops
        where c.guard is distinct from excluded.guard or excluded.guard is not null
        """,
        cycle_id,
        closes_at,
        fingerprint,
        uow.at,
        guard,
    )


async def has_begun(uow: UnitOfWork, cycle_id: str, closes_at: datetime) -> bool:
    """Whether the clocks have agreed that this close is there. Once somebody is forfeited it is, whatever they say later."""
    return bool(
        await uow.sql(
            """
            select 1 from closings c
            where c.cycle_id = $1 and c.closes_at = $2
            and (c.guard is null or exists (select from proofs p where p.closes_at = c.closes_at))
            """,
            cycle_id,
            closes_at,
        )
    )


async def lock_unsaid(uow: UnitOfWork, cycle_id: str, closes_at: datetime) -> bool:
    """Lock the close if its totals are not published yet."""
    return bool(
        await uow.sql(
            "select 1 from closings where cycle_id = $1 and closes_at = $2 and closed_at is null for update",
            cycle_id,
            closes_at,
        )
    )


@dataclass(frozen=True, slots=True)
class Totals:
    """What a close has come to so far. `counts` by status."""

    counts: Mapping[str, int]
    fees_fen: Mapping[str, int]
    received_fen: int
    refunds_due_fen: int
    proofs: int


_ALL: Final = 2**63 - 1


async def totals(
    uow: UnitOfWork, cycle_id: str, closes_at: datetime, *, last: bool, last_proof: int = _ALL
) -> Totals:
    """Counts and sums of everyone whose close this is, of one moment; its proofs are counted up to number `last_proof`.

    Whose close it is: whoever's own is not after it, and was not counted by a close that is published before it; the last
    one counts everybody else as well, such as who had paid when it was put forward.
    """
    rows = await uow.sql(
        """
        with mine as materialized (
            select o.registration_id, o.status, o.amount_fen from obligations o
            where (o.closes_at <= $1 or $3) and o.closes_at > coalesce((
                select max(c.closes_at) from closings c
                where c.cycle_id = $2 and c.closed_at is not null and c.closes_at < $1), '-infinity')
        )
        select (select coalesce(jsonb_object_agg(status, n), '{}') from (
                    select status, count(*) as n from mine group by status) c)::text as counts,
               (select coalesce(jsonb_object_agg(status, fen), '{}') from (
                    select status, sum(amount_fen) as fen from mine group by status) f)::text as fees,
               coalesce(sum(l.amount_fen) filter (where l.kind = 'received'), 0)::bigint as received,
               coalesce(sum(l.amount_fen) filter (where l.kind = 'refund-due'), 0)::bigint as refunds_due,
               (select count(*) from proofs where closes_at = $1 and number <= $4) as proofs
        from ledger l join mine o on o.registration_id = l.registration_id
        """,
        closes_at,
        cycle_id,
        last,
        last_proof,
    )
    row = rows[0]
    return Totals(
        counts=json.loads(row.counts),
        fees_fen=json.loads(row.fees),
        received_fen=row.received,
        refunds_due_fen=row.refunds_due,
        proofs=row.proofs,
    )


_LEAVES_PAGE: Final = 4000  # their hashing keeps the process from everything else for some milliseconds
_LEAF_BYTES: Final = 32


async def leaves(uow: UnitOfWork, closes_at: datetime, last_proof: int) -> AsyncIterator[bytes]:
    """The leaves of a close's proofs in the order of registration ids; a page comes as one value.

    Who fell twice by one close has two, the earlier first.
    """
    after: UUID | None = UUID(int=0)
    number = 0
    while after is not None:
        rows = await uow.sql(
            """
            select string_agg(p.leaf, ''::bytea order by p.registration_id, p.number) as leaves,
                   (array_agg(p.registration_id order by p.registration_id desc, p.number desc))[1] as last,
                   (array_agg(p.number order by p.registration_id desc, p.number desc))[1] as last_number
            from (select registration_id, number, leaf from proofs
                  where closes_at = $1 and (registration_id, number) > ($2, $5) and number <= $3
                  order by registration_id, number limit $4) p
            """,
            closes_at,
            after,
            last_proof,
            _LEAVES_PAGE,
            number,
        )
        page: bytes = rows[0].leaves or b""
        for start in range(0, len(page), _LEAF_BYTES):
            yield page[start : start + _LEAF_BYTES]
        after, number = rows[0].last, rows[0].last_number


async def close(uow: UnitOfWork, event: payment.WindowClosed, last_proof: int) -> int:
    """Write the totals down as published; returns their sequence among the cycle's own events."""
    rows = await uow.sql(
        """
        update closings
        set closed_at = $3, counts = $4::text::jsonb, sums_fen = $5::text::jsonb, proof_root = $6, proofs = $7,
            last_proof = $8, guard = null,
            sequence = (select coalesce(max(c.sequence), 0) + 1 from closings c where c.cycle_id = $1)
        where cycle_id = $1 and closes_at = $2 and closed_at is null
        returning sequence
        """,
        event.cycle_id,
        event.closes_at,
        event.closed_at,
        event.counts.model_dump_json(),
        event.sums_fen.model_dump_json(),
        bytes.fromhex(event.proof_root),
        event.proofs,
        last_proof,
    )
    return int(rows[0].sequence)


async def find(uow: UnitOfWork, cycle_id: str, closes_at: datetime) -> Row | None:
    """The close as it stands, if it has begun."""
    rows = await uow.sql(
        "select begun_at, guard, guard_stops, closed_at, counts::text as counts, sums_fen::text as sums_fen, "
        "encode(proof_root, 'hex') as proof_root, proofs from closings where cycle_id = $1 and closes_at = $2",
        cycle_id,
        closes_at,
    )
    return rows[0] if rows else None


async def held(uow: UnitOfWork, limit: int) -> Sequence[Row]:
    """Who is held, with the order the gateway has not answered about."""
    return await uow.sql(
        f"select o.registration_id, o.amount_fen, o.changed_at, r.order_no, r.channel, r.attempts, r.ask_at "
        f"from obligations o left join orders r on r.registration_id = o.registration_id "
        f"and r.status in {UNDECIDED_ORDER} where o.status = 'held' order by o.registration_id limit $1",
        limit,
    )
