"""Who would be forfeited if the window closed now: the sweep's own predicate, read instead of carried out."""

# ruff: noqa: S608 -- what is put into statements here are this package's own constants
from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from services.chassis.db import Row, UnitOfWork
from services.payment.repository.closing import FALLS, UNDECIDED
from services.payment.repository.vocabulary import MAY_EXPIRE, UNDECIDED_ORDER
from services.payment.repository.windows import PUT_OFF

# $1: now; $2: only of the window that closes then, $3: only of this desk, if given.
_CONCERNED: Final = (
    f"o.status in {MAY_EXPIRE} and ($2::timestamptz is null or o.closes_at = $2) "
    "and ($3::text is null or o.site_id = $3)"
)
# What the close would do with them: forfeit, ask the gateway first, or leave them because something stops it. Whoever's close
# is being decided about is not even asked about: they may pay until the later one.
_RESTORING: Final = "exists (select from recoveries where finished_at is null)"
_WOULD: Final = f"""
    case when {FALLS} then 'forfeit' when {UNDECIDED} and not {_RESTORING} and not {PUT_OFF} then 'ask' else 'spare' end
"""
_WHY: Final = f"""
    case when {_RESTORING} then 'restore-under-way'
         when {PUT_OFF} then 'decision-under-way'
         when {UNDECIDED} then 'order-under-way'
         when not ({FALLS}) then 'stopped'
         when exists (select from orders r where r.registration_id = o.registration_id) then 'orders-unpaid'
         else 'never-ordered' end
"""


async def totals(uow: UnitOfWork, closes_at: datetime | None, site_id: str | None = None) -> Sequence[Row]:
    """Counts and sums by window, by what would happen and why, by desk; `in_flight_fen` is what orders under way may still
    bring.
    """
    return await uow.sql(
        f"""
        select p.closes_at, p.would, p.why, p.site_id, count(*) as registrations, sum(p.amount_fen)::bigint as amount_fen,
               coalesce(sum(r.in_flight_fen), 0)::bigint as in_flight_fen
        from (select o.registration_id, o.site_id, o.closes_at, o.amount_fen, {_WOULD} as would, {_WHY} as why
              from obligations o where {_CONCERNED}) p
        left join (select t.registration_id, sum(t.amount_fen)::bigint as in_flight_fen
                   from orders t where t.status in {UNDECIDED_ORDER} group by 1) r on r.registration_id = p.registration_id
        group by 1, 2, 3, 4 order by 1, 2, 3, 4
        """,
        uow.at,
        closes_at,
        site_id,
    )


async def page(
    uow: UnitOfWork, closes_at: datetime | None, site_id: str | None, after: UUID | None, limit: int
) -> Sequence[Row]:
    """Everybody who owes, in the order of their ids, each once, with what the close would do and the order under way.

    One may have several: a code that was let go can be opened until it ends. Shown is the latest; all count as in flight.
    """
    return await uow.sql(
        f"""
        select p.*, r.order_no, r.channel, r.status as order_status, r.expires_at as order_expires_at,
               r.amount_fen as order_amount_fen, coalesce(r.in_flight_fen, 0) as in_flight_fen,
               (select count(*) from orders t where t.registration_id = p.registration_id) as orders
        from (select o.registration_id, o.site_id, o.status, o.closes_at, o.amount_fen, {_WOULD} as would, {_WHY} as why
              from obligations o where {_CONCERNED} and ($4::uuid is null or o.registration_id > $4)
              order by o.registration_id limit $5) p
        left join lateral (
            select u.*, sum(u.amount_fen) over ()::bigint as in_flight_fen from orders u
            where u.registration_id = p.registration_id and u.status in {UNDECIDED_ORDER}
            order by u.created_at desc, u.order_no limit 1
        ) r on true
        order by p.registration_id
        """,
        uow.at,
        closes_at,
        site_id,
        after,
        limit,
    )
