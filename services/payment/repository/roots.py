"""The published roots over forfeitures: which proofs each covers, and in which order its leaves stand.

A close's root covers the proofs of that close up to a number. What is forfeited by it afterwards is covered by a later
root: of the proofs between two numbers those that no close's root covers. So each proof is under exactly one root.
"""

# ruff: noqa: S608 -- what is put into statements here are numbers and this package's own constants
from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from contracts import payment
from services.chassis.db import Row, UnitOfWork

_PAGE: Final = 4000
_LEAF_BYTES: Final = 32
# Forfeited by a close after it was published. Of one that is not yet, its own root will cover it.
_LATE: Final = (
    "proofs p join closings c on c.closes_at = p.closes_at and c.cycle_id = $1 and p.number > c.last_proof"
)


@dataclass(frozen=True, slots=True)
class Later:
    """Proofs that no published root covers: above `after_proof`, up to `last_proof`. `before`: how many are covered."""

    after_proof: int
    last_proof: int
    proofs: int
    expired_fen: int
    before: int


async def last_number(uow: UnitOfWork) -> int:
    """The number of the newest proof. Whoever holds the windows (`windows.hold`) knows that no lower one is still to come."""
    rows = await uow.sql("select coalesce(max(number), 0) as last from proofs")
    return int(rows[0].last)


async def alone(uow: UnitOfWork) -> None:
    """Until this transaction ends no close begins or is published, by whatever version."""
    await uow.sql("lock table closings in exclusive mode")


async def _covered_up_to(uow: UnitOfWork, cycle_id: str) -> int:
    """No proof up to this number is without a root: there is a later one beyond it, or every published close's goes so far."""
    rows = await uow.sql(
        """
        select greatest((select max(last_proof) from later_roots where cycle_id = $1),
                        (select min(last_proof) from closings where cycle_id = $1 and closed_at is not null), 0) as covered
        """,
        cycle_id,
    )
    return int(rows[0].covered)


async def any_beyond(uow: UnitOfWork, cycle_id: str) -> bool:
    """Whether somebody was forfeited whom no published root covers though their close is published."""
    covered = await _covered_up_to(uow, cycle_id)
    # The number stands in the text: as a parameter the planner would take it for a third of the table.
    rows = await uow.sql(
        f"select exists (select from {_LATE} where p.number > {covered:d}) as found", cycle_id
    )
    return bool(rows[0].found)


async def beyond(uow: UnitOfWork, cycle_id: str) -> Later | None:
    """Those forfeitures. The caller is `alone` and holds the windows, so that nobody changes what they are."""
    covered, last = await _covered_up_to(uow, cycle_id), await last_number(uow)
    rows = await uow.sql(
        f"""
        select count(*) as proofs, coalesce(sum(p.amount_fen), 0)::bigint as fen,
               (select coalesce(sum(proofs), 0) from closings where cycle_id = $1)::bigint
               + (select coalesce(sum(proofs), 0) from later_roots where cycle_id = $1)::bigint as before
        from {_LATE} where p.number > {covered:d} and p.number <= {last:d}
        """,
        cycle_id,
    )
    row = rows[0]
    return Later(covered, last, row.proofs, row.fen, row.before) if row.proofs else None


async def leaves(uow: UnitOfWork, cycle_id: str, after_proof: int, last_proof: int) -> AsyncIterator[bytes]:
    """The leaves of a later root, in the order of their proofs' numbers."""
    after: int | None = after_proof
    while after is not None:
        rows = await uow.sql(
            f"""
            select string_agg(f.leaf, ''::bytea order by f.number) as leaves, max(f.number) as last
            from (select p.number, p.leaf from {_LATE} where p.number > {after:d} and p.number <= {last_proof:d}
                  order by p.number limit {_PAGE}) f
            """,
            cycle_id,
        )
        page: bytes = rows[0].leaves or b""
        for start in range(0, len(page), _LEAF_BYTES):
            yield page[start : start + _LEAF_BYTES]
        after = rows[0].last


async def index_of(uow: UnitOfWork, cycle_id: str, after_proof: int, number: int) -> int:
    """The place of a proof's leaf under its later root."""
    rows = await uow.sql(
        f"select count(*) as n from {_LATE} where p.number > {after_proof:d} and p.number < {number:d}",
        cycle_id,
    )
    return int(rows[0].n)


async def covering(uow: UnitOfWork, cycle_id: str, number: int) -> Row | None:
    """The later root that covers the proof of this number, if no close's does."""
    rows = await uow.sql(
        "select sequence, after_proof, last_proof, proofs from later_roots "
        "where cycle_id = $1 and after_proof < $2 and last_proof >= $2",
        cycle_id,
        number,
    )
    return rows[0] if rows else None


async def add(uow: UnitOfWork, event: payment.ProofsPublished, later: Later, sequence: int) -> None:
    """Write it down as published."""
    await uow.changed(
        "insert into later_roots (cycle_id, sequence, after_proof, last_proof, published_at, proof_root, proofs, expired_fen) "
        "values ($1, $2, $3, $4, $5, $6, $7, $8)",
        event.cycle_id,
        sequence,
        later.after_proof,
        later.last_proof,
        uow.at,
        bytes.fromhex(event.proof_root),
        event.proofs,
        event.expired_fen,
    )


async def published(uow: UnitOfWork, cycle_id: str) -> Sequence[Row]:
    """Every root that was published, in the order in which they were: of the closes, and the later ones."""
    return await uow.sql(
        """
        select sequence::bigint, closed_at as published_at, closes_at, encode(proof_root, 'hex') as proof_root, proofs
        from closings where cycle_id = $1 and closed_at is not null
        union all
        select sequence, published_at, null, encode(proof_root, 'hex'), proofs from later_roots where cycle_id = $1
        order by 1
        """,
        cycle_id,
    )
