"""Bugs planted on purpose: each takes one protection away, and the simulation must find it by the invariant named here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final
from unittest.mock import patch
from uuid import UUID

from services.chassis import inbox, parked, relay
from services.chassis.db import UnitOfWork
from tests.simulation.finding import Mutation


@contextlib.contextmanager
def _no_inbox() -> Iterator[None]:
    """Every delivery is taken for the first one."""

    remember = inbox.claim

    async def claim(uow: UnitOfWork, handler: str, event_ids: Sequence[UUID]) -> set[UUID]:
        await remember(uow, handler, event_ids)
        return set(event_ids)

    with patch.object(inbox, "claim", claim):
        yield


@contextlib.contextmanager
def _no_parking_order() -> Iterator[None]:
    """What comes behind a parked event of its key is taken in before it."""

    async def blocked_keys(*_: Any) -> set[tuple[str, str | None]]:
        return set()

    with patch.object(parked, "blocked_keys", blocked_keys):
        yield


@contextlib.contextmanager
def _no_horizon() -> Iterator[None]:
    """A relay reads up to the newest transaction there is, over those that are still in progress."""
    eager = relay._NEXT_RANGE.replace("pg_snapshot_xmin", "pg_snapshot_xmax")
    assert eager != relay._NEXT_RANGE
    with patch.object(relay, "_NEXT_RANGE", eager):
        yield


PLANTED: Final[dict[str, Mutation]] = {
    "inbox": _no_inbox,
    "parking order": _no_parking_order,
    "relay horizon": _no_horizon,
}
