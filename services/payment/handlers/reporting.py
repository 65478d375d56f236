"""What the candidate and the office may see: facts and sums, nothing decided here."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from contracts.cycle import Cycle
from contracts.refusals import Code, Refused
from services.chassis.db import Database
from services.payment.domain.obligation import Status
from services.payment.repository import (
    closing,
    decisions,
    ledger,
    obligations,
    orders,
    recoveries,
    refunds,
    roots,
    windows,
)

_LISTED = 1000  # of the held and of the refunds due; the counts beside them are complete


async def payment_of(database: Database, registration_id: UUID) -> dict[str, Any]:
    """What one registration owes, every try to pay it, and a receipt for each payment.

    `transaction_id` is the gateway's own number (交易单号): it stands on the payer's bill there, where the gateway's receipt is
    had. `became`: `received` (not judged yet), kept as the `fee`, `refund-due`, or `refunded`;
    `refund_confirmed_at`: when the gateway had said so.
    """
    async with database.reading() as uow:
        row = await obligations.find(uow, registration_id)
        if row is None:
            raise Refused(Code.NOT_FOUND, "还没有应缴费用：资格审核全部通过后才能缴费。")
        tries = await orders.of_registration(uow, registration_id)
        paid = await ledger.receipts(uow, registration_id)
    return {
        "registration_id": registration_id,
        "state": row.status,
        "sequence": row.version,
        "amount_fen": row.amount_fen,
        "currency": row.currency,
        "opens_at": row.opens_at,
        "closes_at": row.told_closes_at,
        "paid_at": row.paid_at,
        "orders": [
            {
                "order_no": order.order_no,
                "channel": order.channel,
                "state": order.status,
                "amount_fen": order.amount_fen,
                "created_at": order.created_at,
                "expires_at": order.expires_at,
            }
            for order in tries
        ],
        "receipts": [
            {
                "order_no": one.order_no,
                "channel": one.channel,
                "transaction_id": one.transaction_id,
                "amount_fen": one.amount_fen,
                "currency": one.currency,
                "paid_at": one.paid_at,
                "became": one.became,
                "refund_cause": one.cause,
                "refund_no": one.refund_no,
                "refund_confirmed_at": one.refund_confirmed_at,
            }
            for one in paid
        ],
    }


async def payments(database: Database, after: UUID | None, limit: int) -> dict[str, Any]:
    """A page of the office's list."""
    async with database.reading() as uow:
        rows = await obligations.page(uow, after, limit)
    return {
        "items": [
            {
                "registration_id": row.registration_id,
                "state": row.status,
                "sequence": row.version,
                "amount_fen": row.amount_fen,
                "paid_fen": row.paid_fen,
                "refunded_fen": row.refunded_fen,
                "refund_due_fen": row.refund_due_fen - row.refunded_fen,
                "paid_at": row.paid_at,
                "expired_at": row.expired_at,
                "cancelled_for": row.cancelled_for,
            }
            for row in rows
        ],
        "next": rows[-1].registration_id if len(rows) == limit else None,
    }


async def money(database: Database) -> dict[str, Any]:
    """received = paid + refunded + due + held, each summed from the ledger."""
    async with database.reading() as uow:
        totals = await ledger.totals(uow)
        due = await refunds.not_done(uow, _LISTED)
    return {
        "received": totals.received,
        "paid": totals.paid,
        "refunded": totals.refunded,
        "due": totals.due,
        "held": totals.held,
        "refunds_due": [
            {
                "registration_id": row.registration_id,
                "order_no": row.order_no,
                "channel": row.channel,
                "amount_fen": row.amount_fen,
                "cause": row.cause,
                "paid_at": row.paid_at,
                "since": row.due_at,
                "refund_no": row.refund_no,
                "state": row.status,
                "attempts": row.attempts,
                "gateway_code": row.code,
                "ask_at": row.ask_at,
            }
            for row in due
        ],
    }


async def close_report(database: Database, cycle: Cycle) -> dict[str, Any]:
    """Where the close stands now, and what was published of it."""
    async with database.reading() as uow:
        in_force = await windows.in_force(uow, cycle)
        owed = await closing.owed_closes(uow)
        deciding = await decisions.not_done(uow)
        window = in_force.everywhere
        last = max([*(close.closes_at for close in in_force.in_force()), *owed]) == window.closes_at
        found = await closing.find(uow, cycle.id, window.closes_at)
        totals = await closing.totals(uow, cycle.id, window.closes_at, last=last)
        held = await closing.held(uow, _LISTED)
        restores = await recoveries.all_of_them(uow)
        published = await roots.published(uow, cycle.id)
        at = uow.at
    if found is not None and found.closed_at is not None:
        state = "closed"
    elif found is not None and found.guard is not None:
        state = "pending"
    else:
        state = "open" if at < window.closes_at else "closing"
    return {
        "cycle_id": cycle.id,
        "state": state,
        "closes_at": window.closes_at,
        "told_closes_at": window.told_closes_at,
        # Desks whose close two people have set, and what waits to be decided or done: nobody it puts off is forfeited.
        "moved": {site_id: close.closes_at for site_id, close in sorted(in_force.moved.items())},
        "deciding": [
            {
                "decision_id": one.decision_id,
                "kind": one.kind,
                "state": one.stage(at),
                "closes_at": one.closes_at,
                "site_id": one.site_id,
            }
            for one in deciding
        ],
        "begun_at": found and found.begun_at,
        "closed_at": found and found.closed_at,
        "guard": {
            "agrees": found is None or found.guard is None,
            "reason": found and found.guard,
            "stops": found.guard_stops if found else 0,
        },
        "counts": {status.value: totals.counts.get(status, 0) for status in Status},
        "sums_fen": {
            "received": totals.received_fen,
            "refunds_due": totals.refunds_due_fen,
            **{f"owed_by_{status.value}": totals.fees_fen.get(status, 0) for status in Status},
        },
        "proofs": totals.proofs,
        "held": [
            {
                "registration_id": row.registration_id,
                "amount_fen": row.amount_fen,
                "since": row.changed_at,
                "order_no": row.order_no,
                "channel": row.channel,
                "attempts": row.attempts,
                "asked_again_at": row.ask_at,
            }
            for row in held
        ],
        # While one is not finished nobody is forfeited: see handlers/recovering.py.
        "recoveries": [dict(row) for row in restores],
        "published": None
        if found is None or found.closed_at is None
        else {
            "counts": json.loads(found.counts),
            "sums_fen": json.loads(found.sums_fen),
            "proof_root": found.proof_root,
            "proofs": found.proofs,
        },
        # Each forfeiture is under exactly one of these; without a close: of whoever was forfeited after theirs was published.
        "roots": [dict(row) for row in published],
    }
