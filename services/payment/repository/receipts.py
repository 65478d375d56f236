"""Payments by the thousand: in time, of the right amount, for somebody who owes. Whatever is not plain is left alone."""

# ruff: noqa: S608 -- what is put into statements here are this package's own constants
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from contracts import payment
from services.chassis import outbox
from services.chassis.cause import Cause
from services.chassis.db import UnitOfWork
from services.chassis.vault import Vault
from services.payment.domain.order import Success
from services.payment.repository.orders import Evidence
from services.payment.repository.vocabulary import MAY_BE_PAID


@dataclass(frozen=True, slots=True)
class Receipt:
    """A success that a gateway told of, with its own word for it."""

    channel: str
    success: Success
    evidence: Evidence
    cause: Cause


# Moments as contracts write them: to the microsecond, in UTC.
_PAID: Final = outbox.insert_select(
    payment.Paid,
    {
        "cycle_id": "$2::text",
        "registration_id": "p.registration_id",
        "amount_fen": "p.amount_fen",
        "paid_at": outbox.moment_sql("p.paid_at"),
        "channel": "p.channel",
        "order_no": "p.order_no",
    },
    source="paid p order by p.n",
    key="p.registration_id::text",
    sequence="p.version",
    occurred_at="$1",
    correlation_id="p.correlation_id",
    causation_id="p.causation_id",
    traceparent="p.traceparent",
)
# `Obligation.receive` where it says PAID and nothing else, for many at once. Who is locked by somebody else is passed by, so this
# waits for nobody and nobody deadlocks with it.
# What is booked for an order has made it paid, so it need not be looked for; a transaction that was booked for another order
# fails all of them at the ledger's own key, and then each is considered alone.
_STATEMENT: Final = f"""
with told as (
    select * from unnest($3::int[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::timestamptz[], $10::text[],
                         $11::text[], $12::bytea[], $13::bytea[], $14::text[], $15::text[], $16::text[], $17::text[])
        as t (n, order_no, channel, transaction_id, amount_fen, currency, paid_at, kind, state, digest, raw, signature,
              correlation_id, causation_id, traceparent)
), plain as materialized (
    select t.*, o.registration_id from told t
    join orders r on r.order_no = t.order_no and r.channel = t.channel and r.status <> 'paid'
                 and r.amount_fen = t.amount_fen and r.currency = t.currency
    join obligations o on o.registration_id = r.registration_id
    where o.status in {MAY_BE_PAID} and o.amount_fen = t.amount_fen and o.currency = t.currency and t.paid_at < o.closes_at
    for update of o skip locked
), paid as materialized (
    update obligations o
    set status = 'paid', version = o.version + 1, paid_at = p.paid_at, changed_at = $1, expired_at = null, proof_id = null
    from plain p where o.registration_id = p.registration_id and o.status in {MAY_BE_PAID}
    returning p.*, o.version
), answered as (
    insert into answers (order_no, kind, state, at, digest, raw, signature)
    select order_no, kind, state, $1, digest, raw, signature::jsonb from paid order by n returning answer_id, order_no
), decided as (
    update orders r set status = 'paid', decided_at = $1, answer_id = a.answer_id
    from answered a where r.order_no = a.order_no
), booked as (
    insert into ledger (kind, registration_id, order_no, channel, transaction_id, amount_fen, currency, paid_at, recorded_at,
                        answer_id)
    select k.kind, p.registration_id, p.order_no, p.channel, p.transaction_id, p.amount_fen, p.currency, p.paid_at, $1,
           case k.kind when 'received' then a.answer_id end
    from paid p join answered a using (order_no), (values (1, 'received'), (2, 'fee')) k (place, kind)
    order by p.n, k.place
), said as ({_PAID})
select n from paid
"""


async def take_plain(
    uow: UnitOfWork, vault: Vault, cycle_id: str, receipts: Sequence[Receipt]
) -> frozenset[int]:
    """Book, decide and say in one statement every payment that leaves nothing to consider; the places of those in `receipts`.

    No two may be for one order. Of all others nothing is written: each is for `handlers.receiving.record_success`.
    """
    columns = zip(*(_columns(place, one, vault, uow) for place, one in enumerate(receipts)), strict=True)
    rows = await uow.sql(_STATEMENT, uow.at, cycle_id, *(list(column) for column in columns))
    uow.events_added += len(rows)
    return frozenset(row.n for row in rows)


def _columns(place: int, one: Receipt, vault: Vault, uow: UnitOfWork) -> tuple[object, ...]:
    order_no, kind, state, _, digest, raw, signature = one.evidence.arguments(vault, uow.at)
    success = one.success
    return (
        place,
        order_no,
        one.channel,
        success.transaction_id,
        success.amount_fen,
        success.currency,
        success.paid_at,
        kind,
        state,
        digest,
        raw,
        signature,
        one.cause.correlation_id,
        one.cause.causation_id,
        one.cause.traceparent,
    )
