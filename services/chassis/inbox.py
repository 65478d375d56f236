"""Which events a handler has already taken in. Written in the handler's own transaction; kept without a limit of time."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from services.chassis.db import UnitOfWork

_CLAIM = """
insert into inbox (handler, event_id, received_at)
select $1, e, $3 from unnest($2::uuid[]) e
on conflict do nothing returning event_id
"""


async def claim(uow: UnitOfWork, handler: str, event_ids: Sequence[UUID]) -> set[UUID]:
    """Take these events in for `handler`, and return those that are new to it.

    `handler` is load-bearing: renaming one means that it takes every event in again.
    """
    # Sorted, so that two members that hold the same events after a rebalance cannot deadlock.
    rows = await uow.sql(_CLAIM, handler, sorted(set(event_ids), key=attrgetter("int")), uow.at)
    return {row["event_id"] for row in rows}
