"""Orders, and what gateways answered about them."""

# ruff: noqa: S608 -- what is put into statements here are this package's own constants
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID

from services.chassis.db import Row, UnitOfWork
from services.chassis.vault import Vault
from services.payment.domain.obligation import Obligation
from services.payment.domain.order import Order, OrderStatus
from services.payment.repository.obligations import COLUMNS, obligation
from services.payment.repository.vocabulary import ORDER_UNDER_WAY, UNDECIDED_ORDER
from services.payment.repository.windows import PUT_OFF

_ORDER = (
    "r.order_no, r.registration_id, r.channel, r.amount_fen, r.currency, r.status, r.created_at, r.expires_at, "
    "r.code_url, r.attempts"
)
# Both halves of a row have a registration, an amount, a currency and a status.
_ORDER_ASIDE = (
    "r.order_no, r.registration_id as order_of, r.channel, r.amount_fen as order_amount_fen, "
    "r.currency as order_currency, r.status as order_status, r.created_at, r.expires_at, r.code_url, r.attempts"
)


def _order(row: Row) -> Order:
    return Order(
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


def _order_aside(row: Row) -> Order:
    return Order(
        order_no=row.order_no,
        registration_id=row.order_of,
        channel=row.channel,
        amount_fen=row.order_amount_fen,
        currency=row.order_currency,
        status=OrderStatus(row.order_status),
        created_at=row.created_at,
        expires_at=row.expires_at,
        code_url=row.code_url,
        attempts=row.attempts,
    )


async def lock_obligation(uow: UnitOfWork, registration_id: UUID) -> tuple[Obligation | None, Order | None]:
    """What is owed, locked, and its order under way, if there is one."""
    rows = await uow.sql(
        f"select {COLUMNS}, {_ORDER_ASIDE} from obligations o "
        f"left join orders r on r.registration_id = o.registration_id and r.status in {ORDER_UNDER_WAY} "
        "where o.registration_id = $1 for update of o",
        registration_id,
    )
    if not rows:
        return None, None
    return obligation(rows[0]), _order_aside(rows[0]) if rows[0].order_no else None


async def lock_by_number(uow: UnitOfWork, order_no: str) -> tuple[Obligation, Order] | None:
    """An order and what it is for; the obligation is locked."""
    rows = await uow.sql(
        f"select {COLUMNS}, {_ORDER_ASIDE} from orders r "
        "join obligations o on o.registration_id = r.registration_id where r.order_no = $1 for update of o",
        order_no,
    )
    return (obligation(rows[0]), _order_aside(rows[0])) if rows else None


# The gateway never heard of it: it would not take it, or denied it when it could not be opened any more.
UNHEARD_ORDER = """
    (r.status = 'failed' or (r.status = 'closed' and exists (
        select from answers a where a.answer_id = r.answer_id and a.state = 'unknown-order')))
"""


# Another channel takes a number over only once nobody can bring it to the first one any more: a code was given out and ended,
# or it was refused. A request that was overtaken may be on its way still, and then one number would be at two gateways.
_MAY_BE_USED = "(r.channel = $2 or r.code_url is not null or r.status = 'failed')"


@dataclass(frozen=True, slots=True)
class Numbers:
    """Order numbers of one registration that cannot be used again, and of these the codes that were let go."""

    used: frozenset[str]
    lapsing: tuple[Order, ...]


async def numbers(uow: UnitOfWork, registration_id: UUID, channel: str) -> Numbers:
    """For an order at this channel; see `domain.order_number`."""
    rows = await uow.sql(
        f"select {_ORDER} from orders r where r.registration_id = $1 and not ({UNHEARD_ORDER} and {_MAY_BE_USED}) "
        "order by r.created_at",
        registration_id,
        channel,
    )
    found = [_order(row) for row in rows]
    return Numbers(
        frozenset(order.order_no for order in found),
        tuple(order for order in found if order.status is OrderStatus.LAPSING),
    )


async def add(uow: UnitOfWork, order: Order) -> bool:
    """Write it down before the gateway is asked. False if another one came in between."""
    values = (
        order.order_no,
        order.registration_id,
        order.channel,
        order.amount_fen,
        order.currency,
        order.status,
        order.created_at,
        order.expires_at,
    )
    # Whoever waited for the obligation's lock has seen the orders as they were before: another may be under way by now.
    again = await uow.changed(
        f"update orders r set channel = $3, amount_fen = $4, currency = $5, status = $6, created_at = $7, "
        "expires_at = $8, ask_at = $8, attempts = 0, code_url = null, refusal = null, decided_at = null, "
        f"answer_id = null where r.order_no = $1 and r.registration_id = $2 and {UNHEARD_ORDER} and not exists ("
        f"select from orders u where u.registration_id = $2 and u.status in {ORDER_UNDER_WAY})",
        *values,
    )
    if again:
        return True
    return (
        await uow.changed(
            "insert into orders (order_no, registration_id, channel, amount_fen, currency, status, created_at, "
            "expires_at, ask_at, attempts) values ($1, $2, $3, $4, $5, $6, $7, $8, $8, 0) on conflict do nothing",
            *values,
        )
        == 1
    )


async def opened(uow: UnitOfWork, order: Order, code_url: str) -> bool:
    """The gateway took it. False if it was decided meanwhile: then nobody may be given its code."""
    return (
        await uow.changed(
            "update orders set status = 'open', code_url = $3 where order_no = $1 and channel = $2 and status = 'creating'",
            order.order_no,
            order.channel,
            code_url,
        )
        == 1
    )


async def unknown(uow: UnitOfWork, order: Order) -> None:
    """The gateway gave no answer: it may or may not have it."""
    await uow.changed(
        "update orders set status = 'unknown' where order_no = $1 and channel = $2 and status = 'creating'",
        order.order_no,
        order.channel,
    )


async def failed(uow: UnitOfWork, order: Order, refusal: str) -> None:
    """The gateway would not take it, in its own word."""
    await uow.changed(
        "update orders set status = 'failed', refusal = $3, decided_at = $4 "
        "where order_no = $1 and channel = $2 and status = 'creating'",
        order.order_no,
        order.channel,
        refusal,
        uow.at,
    )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a gateway said, as it signed it. `kind` is query or notice."""

    kind: str
    order_no: str
    state: str
    raw: bytes
    signature: Mapping[str, str]

    def arguments(self, vault: Vault, at: datetime) -> tuple[object, ...]:
        """Values of an `answers` row, in the order of its columns. A payer may be named in it: encrypted."""
        return (
            self.order_no,
            self.kind,
            self.state,
            at,
            sha256(self.raw).digest(),
            vault.encrypt(self.raw, row=self.order_no),
            json.dumps(dict(self.signature)),
        )


async def closed(uow: UnitOfWork, vault: Vault, evidence: Evidence) -> bool:
    """Unpaid, closed at the gateway, with its answer. Never over a payment: False if it was decided before.

    What a gateway does not know it cannot close: a code that was given out is let go and asked about again at its end.
    """
    lapses = "($3 = 'unknown-order' and r.code_url is not null and $4 < r.expires_at)"
    rows = await uow.sql(
        f"""
        with answer as (
            insert into answers (order_no, kind, state, at, digest, raw, signature)
            values ($1, $2, $3, $4, $5, $6, $7::text::jsonb) returning answer_id
        ), decided as (
            update orders r set status = case when {lapses} then 'lapsing' else 'closed' end,
                decided_at = case when {lapses} then null else $4 end, answer_id = answer.answer_id,
                ask_at = case when {lapses} then r.expires_at else r.ask_at end, attempts = attempts + 1
            from answer where r.order_no = $1 and r.status in {UNDECIDED_ORDER} returning 1
        )
        select count(*) as changed from decided
        """,
        *evidence.arguments(vault, uow.at),
    )
    return bool(rows[0].changed)


async def decided_paid(uow: UnitOfWork, order_no: str, answer_id: int) -> None:
    """Money came for this order, whatever that changes for the candidate."""
    await uow.changed(
        "update orders set status = 'paid', decided_at = $2, answer_id = $3 where order_no = $1",
        order_no,
        uow.at,
        answer_id,
    )


async def decided_at(uow: UnitOfWork, order_no: str) -> datetime:
    """When it was decided."""
    rows = await uow.sql("select decided_at from orders where order_no = $1", order_no)
    moment: datetime = rows[0].decided_at
    return moment


async def prove(uow: UnitOfWork, order_no: str, answer_id: int) -> None:
    """It was decided before a restore; now the gateway's answer is here again."""
    await uow.changed("update orders set answer_id = $2 where order_no = $1", order_no, answer_id)


async def is_open(uow: UnitOfWork, order_no: str) -> bool:
    """Whether somebody was given its code."""
    return bool(await uow.sql("select 1 from orders where order_no = $1 and status = 'open'", order_no))


async def is_under_way(uow: UnitOfWork, order_no: str) -> bool:
    """Whether it is in the way of another one."""
    return bool(
        await uow.sql(f"select 1 from orders where order_no = $1 and status in {ORDER_UNDER_WAY}", order_no)
    )


async def ask_again(uow: UnitOfWork, order_no: str, attempts: int, ask_at: datetime) -> None:
    """The gateway gave no answer this time."""
    await uow.changed(
        "update orders set attempts = $2, ask_at = $3, status = case status when 'creating' then 'unknown' "
        f"else status end where order_no = $1 and status in {UNDECIDED_ORDER}",
        order_no,
        attempts,
        ask_at,
    )


# Whose order it is, looked up for each: the orders that nobody has decided are few, those who owe may be a million, and
# joined as a set the planner reads all of them (`offset 0` keeps it from that).
_WHOSE = (
    "cross join lateral (select o.status, o.closes_at, o.site_id from obligations o "
    "where o.registration_id = r.registration_id offset 0) o"
)
# After the close an order of somebody who still awaits belongs to the close, which decides or holds.
_NOT_FOR_THE_CLOSE = "not (o.status = 'awaiting' and o.closes_at <= $1)"


async def to_ask(uow: UnitOfWork, limit: int) -> list[Order]:
    """Undecided orders whose moment to be asked about has come."""
    rows = await uow.sql(
        f"select {_ORDER} from orders r {_WHOSE} "
        f"where r.status in {UNDECIDED_ORDER} and r.ask_at <= $1 and {_NOT_FOR_THE_CLOSE} "
        "order by r.ask_at limit $2",
        uow.at,
        limit,
    )
    return [_order(row) for row in rows]


async def next_to_ask(uow: UnitOfWork) -> datetime | None:
    """The moment at which the next order has to be asked about."""
    rows = await uow.sql(
        f"select r.ask_at from orders r {_WHOSE} "
        f"where r.status in {UNDECIDED_ORDER} and {_NOT_FOR_THE_CLOSE} order by r.ask_at limit 1",
        uow.at,
    )
    return rows[0].ask_at if rows else None


async def undecided_at_close(uow: UnitOfWork, after: str, limit: int) -> list[Order]:
    """Orders under way of those who still await after their close, in pages by order number."""
    rows = await uow.sql(
        # Materialized: who is undecided is found by their own index. In the order of the numbers all orders would be read.
        f"with undecided as materialized (select r.* from orders r where r.status in {UNDECIDED_ORDER} and r.order_no > $2) "
        f"select {_ORDER} from undecided r {_WHOSE} "
        f"where o.status = 'awaiting' and o.closes_at <= $1 and not {PUT_OFF} order by r.order_no limit $3",
        uow.at,
        after,
        limit,
    )
    return [_order(row) for row in rows]


async def of_registration(uow: UnitOfWork, registration_id: UUID) -> Sequence[Order]:
    """All tries, oldest first."""
    rows = await uow.sql(
        f"select {_ORDER} from orders r where r.registration_id = $1 order by r.created_at, r.order_no",
        registration_id,
    )
    return [_order(row) for row in rows]
