"""What is said of a whole cycle (its closes, comparisons, breaks) is numbered in one place. A close numbers itself there, by
the trigger of migration 0006, also where version n-1 says it.
"""

from __future__ import annotations

from services.chassis.db import UnitOfWork


async def next_sequence(uow: UnitOfWork, cycle_id: str, many: int = 1) -> int:
    """The first of so many numbers that follow. Locks them until the end of the transaction."""
    rows = await uow.sql(
        """
        insert into cycle_versions as v (cycle_id, sequence) values ($1, $2)
        on conflict (cycle_id) do update set sequence = v.sequence + excluded.sequence
        returning sequence - $2 + 1 as first
        """,
        cycle_id,
        many,
    )
    return int(rows[0].first)
