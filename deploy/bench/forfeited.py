"""What a close left behind: everyone due forfeited once, with one event and one leaf; nobody who paid; the book balanced."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from deploy.bench.contender import Violated

_COUNTS: Final = """
select (select count(*) from obligations where status = 'expired' and closes_at = $1) as expired,
       (select count(*) from proofs where closes_at = $1) as leaves,
       (select count(distinct o.registration_id) from obligations o join proofs p using (registration_id, proof_id)
        where o.status = 'expired' and p.closes_at = $1) as proven,
       (select count(*) from outbox where type = 'kaowu.payment.expired.v1') as said,
       (select count(*) from outbox b join obligations o on o.registration_id::text = b.key and o.version = b.sequence
        where b.type = 'kaowu.payment.expired.v1' and o.status = 'expired') as said_once,
       (select count(*) from obligations where closes_at = $1 and status in ('awaiting', 'held')) as owing,
       (select count(*) from obligations o join ledger l using (registration_id)
        where o.status = 'expired' and l.kind = 'received' and l.paid_at < o.closes_at) as paid_and_expired,
       (select count(*) from obligations where expired_at < closes_at) as early
"""
# Every posting moves its amount from one account to another; what each account holds, and the same sums by hand.
_BOOK: Final = """
select coalesce(sum(amount_fen) filter (where kind = 'received'), 0)::bigint as received,
       coalesce(sum(amount_fen) filter (where kind = 'fee'), 0)::bigint as fees,
       coalesce(sum(amount_fen) filter (where kind = 'refund-due'), 0)::bigint as due,
       coalesce(sum(amount_fen) filter (where kind = 'refunded'), 0)::bigint as refunded,
       (select coalesce(sum(amount_fen), 0)::bigint from obligations where status = 'paid') as owed_by_the_paid
from ledger
"""


async def examine(connection: Any, closes_at: datetime, due: int, *, of: str, owing: int = 0) -> str:
    """One line: what was counted. `owing`: so many are held and have not paid. Raises Violated."""
    row = await connection.fetchrow(_COUNTS, closes_at)
    found = dict(row)
    wanted = dict.fromkeys(("expired", "leaves", "proven", "said", "said_once"), due)
    wanted |= {"owing": owing, "paid_and_expired": 0, "early": 0}
    if wrong := [
        f"{name} {found[name]}, not {number}" for name, number in wanted.items() if found[name] != number
    ]:
        raise Violated(f"{of}: {'; '.join(wrong)}")
    return (
        f"{due:,} forfeited, each with one event and one leaf; {owing:,} still owe, 0 of the paid, 0 early; "
        f"{await _balanced(connection, of)}"
    )


async def _balanced(connection: Any, of: str) -> str:
    book = await connection.fetchrow(_BOOK)
    if (
        book["received"] != book["fees"] + book["due"]
        or book["fees"] != book["owed_by_the_paid"]
        or book["refunded"]
    ):
        raise Violated(f"{of}: the book does not balance: {dict(book)}")
    return f"received = fees of the paid to the fen ({book['received']:,})"


async def examine_root(connection: Any, closes_at: datetime, *, of: str) -> str:
    """The published root, computed again in another way from what is stored. Raises Violated."""
    closing = await connection.fetchrow(
        "select proof_root, proofs from closings where closes_at = $1", closes_at
    )
    leaves = await connection.fetch(
        "select leaf from proofs where closes_at = $1 order by registration_id", closes_at
    )
    if closing is None or closing["proof_root"] is None:
        raise Violated(f"{of}: no root was published")
    if closing["proofs"] != len(leaves):
        raise Violated(f"{of}: the root is said to be over {closing['proofs']} leaves of {len(leaves)}")
    if root([row["leaf"] for row in leaves]) != closing["proof_root"]:
        raise Violated(f"{of}: the published root is not that of the leaves")
    return f"Merkle root of {len(leaves):,} leaves recomputed"


def root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962's tree, level by level: an odd one out goes up as it is, which is the same tree as the service's."""
    level = list(leaves)
    if not level:
        return sha256(b"").digest()
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
        level = above + level[len(above) * 2 :]
    return level[0]
