"""I1, I2, I7: money and forfeiture. The gateway's own book against our ledger, both ways, to the fen."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Final

from deploy.rehearsal.invariants.evidence import Evidence, Finding

# What each posting does to the money that a registration keeps in.
_KEPT = {"received": 1, "refund-due": -1}
SETTLED_ORDERS = frozenset({"closed", "failed"})


def money(evidence: Evidence) -> Finding:
    """I1. Gateway successes = fees of the paid + refunds done + refunds due, per order, per registration and in total; and
    no bill of a gateway differs from our book.
    """
    wrong: list[str] = []
    received = {entry.order_no: entry for entry in evidence.ledger if entry.kind == "received"}
    if evidence.book is not None:
        booked = {order.order_no: order for order in evidence.book if order.paid}
        for number, order in booked.items():
            entry = received.get(number)
            if entry is None:
                wrong.append(
                    f"order {number}: the gateway took {order.amount_fen} fen, our ledger has nothing"
                )
            elif (entry.amount_fen, entry.transaction_id) != (order.amount_fen, order.transaction_id):
                wrong.append(
                    f"registration {entry.registration_id}: order {number} is {order.amount_fen} fen at the gateway, "
                    f"{entry.amount_fen} fen in our ledger, or another transaction"
                )
        wrong.extend(
            f"registration {entry.registration_id}: our ledger has order {number}, the gateway's book has not"
            for number, entry in received.items()
            if number not in booked
        )
        theirs, ours = (
            sum(o.amount_fen for o in booked.values()),
            sum(e.amount_fen for e in received.values()),
        )
        if theirs != ours:
            wrong.append(f"in total the gateway took {theirs} fen, our ledger received {ours} fen")
    sums: dict[str, int] = defaultdict(int)
    for entry in evidence.ledger:
        sums[entry.registration_id] += entry.amount_fen * _KEPT.get(entry.kind, 0)
    for one in evidence.obligations:
        kept, owed = sums.pop(one.id, 0), one.amount_fen if one.status == "paid" else 0
        if kept != owed:
            wrong.append(f"registration {one.id}: {one.status}, keeps {kept} fen instead of {owed}")
    wrong.extend(f"registration {who}: {fen} fen without an obligation" for who, fen in sums.items() if fen)
    wrong.extend(
        f"order {one.order_no}: {one.kind} in the bill of {one.channel} of {one.day}"
        for one in evidence.open_breaks
    )
    total = sum(entry.amount_fen for entry in received.values())
    against = (
        "our own books only"
        if evidence.book is None
        else f"{len(evidence.book)} orders in the gateway's book"
    )
    bills = f"{len(evidence.compared)} days of bills with {sum(day.lines for day in evidence.compared)} lines"
    checked = f"{len(received)} payments, {total} fen, against {against}, {bills}, {len(evidence.open_breaks)} breaks"
    return Finding("I1", "money", checked, tuple(wrong))


ROOTS: Final = frozenset({"window-closed", "proofs-published"})
"""What publishes a root over forfeitures."""


def never_both(evidence: Evidence) -> Finding:
    """I2. Never both paid and expired; whoever paid before the close ends paid."""
    wrong: list[str] = []
    status = {one.id: one for one in evidence.obligations}
    for who, words in _histories(evidence).items():
        expired = False
        for word in words:
            if word == "paid" and expired:
                wrong.append(f"registration {who}: paid while expired, without having been reinstated")
            # Due again: approved anew after a return, the news of both came late.
            expired = word == "expired" or (expired and word not in ("reinstated", "due"))
        one = status.get(who)
        if one is not None and "paid" in words and one.status == "expired":
            wrong.append(f"registration {who}: has paid and is expired")
    refunded = {entry.order_no for entry in evidence.ledger if entry.kind == "refund-due"}
    for entry in evidence.ledger:
        one = status.get(entry.registration_id)
        if entry.kind != "received" or entry.order_no in refunded or one is None:
            continue
        if entry.paid_at < one.closes_at and one.status not in ("paid", "cancelled"):
            wrong.append(f"registration {one.id}: paid before the close and is {one.status}")
    return Finding("I2", "never both paid and expired", f"{len(status)} obligations", tuple(wrong))


def forfeiture(evidence: Evidence) -> Finding:
    """I7. No forfeiture before the close, none missed after it, none without proof, each under one published root."""
    wrong: list[str] = []
    closes = {one.id: one.closes_at for one in evidence.obligations}
    proofs = {proof.proof_id: proof for proof in evidence.proofs}
    unsettled = {order.registration_id for order in evidence.orders if order.status not in SETTLED_ORDERS}
    unproved = {o.registration_id for o in evidence.orders if o.status == "closed" and o.answer_id is None}
    closed = [closing.closes_at for closing in evidence.closings if closing.closed_at is not None]
    said = covered = roots = 0
    for fact in evidence.facts.get("payment", ()):
        if fact.word in ROOTS:
            roots += 1
            if covered != fact.payload.get("proofs_before", covered):
                wrong.append(
                    f"{fact.word} {fact.sequence}: {covered} proofs are under the roots before it, "
                    f"and it says {fact.payload['proofs_before']}"
                )
            covered += fact.payload["proofs"]
        if fact.word != "expired":
            continue
        said += 1
        if fact.key in closes and fact.at < min(closes[fact.key], _moment(fact.payload["closes_at"])):
            wrong.append(f"registration {fact.key}: expired at {fact.at.isoformat()}, before the close")
    for one in evidence.obligations:
        if one.status == "expired":
            proof = proofs.get(one.proof_id) if one.proof_id is not None else None
            if proof is None or proof.registration_id != one.id:
                wrong.append(f"registration {one.id}: expired without proof")
            if one.id in unsettled or one.id in unproved:
                wrong.append(f"registration {one.id}: expired although an order may still turn out paid")
        elif one.status == "awaiting" and one.closes_at in closed:
            wrong.append(f"registration {one.id}: still awaits payment after the close")
    if covered != said and all(proof.closes_at in closed for proof in evidence.proofs):
        wrong.append(f"{said} forfeitures, and {covered} proofs under the {roots} roots that were published")
    checked = f"{said} forfeitures, {len(proofs)} proofs, {len(closed)} closes, {roots} roots"
    return Finding("I7", "no early and no missed forfeiture", checked, tuple(wrong))


def _histories(evidence: Evidence) -> dict[str, list[str]]:
    histories: dict[str, list[str]] = defaultdict(list)
    for fact in evidence.facts.get("payment", ()):
        histories[fact.key].append(fact.word)
    return histories


def _moment(value: object) -> datetime:
    return datetime.fromisoformat(str(value))
