"""Protections of the chassis taken away on purpose: a context manager each, in force in this process while it is entered."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, TypeAlias
from unittest.mock import patch
from uuid import UUID

from services.chassis import inbox, parked, relay
from services.chassis.db import UnitOfWork
from services.chassis.relay import Relay

Mutation: TypeAlias = Callable[[], AbstractContextManager[Any]]
"""A protection is gone while what this makes is entered."""


def replaced(where: Any, name: str, old: str, new: str) -> AbstractContextManager[Any]:
    """A statement of a module, with this part taken out of it or put in place of another."""
    statement = getattr(where, name)
    assert old in statement, f"{name} does not say {old!r} any more"
    return patch.object(where, name, statement.replace(old, new))


@contextlib.contextmanager
def no_inbox() -> Iterator[None]:
    """Every delivery counts as the first."""
    remember = inbox.claim

    async def claim(uow: UnitOfWork, handler: str, event_ids: Sequence[UUID]) -> set[UUID]:
        await remember(uow, handler, event_ids)
        return set(event_ids)

    with patch.object(inbox, "claim", claim):
        yield


@contextlib.contextmanager
def no_parking_order() -> Iterator[None]:
    """What comes behind a parked event of its key does not wait for it."""

    async def blocked_keys(*_: object) -> set[tuple[str, str | None]]:
        return set()

    with patch.object(parked, "blocked_keys", blocked_keys):
        yield


def no_horizon() -> AbstractContextManager[Any]:
    """The relay reads everything it can see, over transactions that are still in progress."""
    return replaced(relay, "_NEXT_RANGE", "pg_snapshot_xmin", "pg_snapshot_xmax")


@contextlib.contextmanager
def no_pull_forward() -> Iterator[None]:
    """The relay keeps to its range, whatever of a key lies beyond it (decision 0002)."""

    async def earlier(*_: object) -> Sequence[Any]:
        return ()

    with patch.object(Relay, "_earlier", staticmethod(earlier)):
        yield


def without(words: str) -> AbstractContextManager[None]:
    """Statements go out without what this pattern finds in them."""
    return instead(words, "")


@contextlib.contextmanager
def instead(words: str, others: str) -> Iterator[None]:
    """Statements go out with other words in place of what this pattern finds in them. It must find some: else nothing is gone."""
    run, change = UnitOfWork.sql, UnitOfWork.changed
    pattern, found = re.compile(words), 0

    @cache
    def bare(statement: str) -> str:
        nonlocal found
        spoilt, times = pattern.subn(others, statement)
        found += times
        return spoilt

    async def sql(uow: UnitOfWork, statement: str, *args: object) -> Any:
        return await run(uow, bare(statement), *args)

    async def changed(uow: UnitOfWork, statement: str, *args: object) -> int:
        return await change(uow, bare(statement), *args)

    with patch.object(UnitOfWork, "sql", sql), patch.object(UnitOfWork, "changed", changed):
        yield
    assert found, f"no statement that went out says {words!r} any more"
