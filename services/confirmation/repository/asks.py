"""Other windows of dated desks that one person of the office has asked for, and what another said to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from contracts.cycle import Interval, Window
from contracts.reasons import WindowReason
from services.chassis.db import Row, UnitOfWork

_ASK: Final = (
    "select a.ask_id, a.site_id, a.opens_at, a.closes_at, a.reason_code, a.reason, a.waiting, a.asked_by, a.asked_at, v.word "
    "from desk_window_asks a left join desk_window_verdicts v using (ask_id)"
)


@dataclass(frozen=True, slots=True)
class Ask:
    """What one person asks for; `word` is what another said, if anybody did."""

    ask_id: UUID
    site_id: str
    window: Window
    reason_code: WindowReason
    reason: str
    waiting: int  # who waited for that desk when it was asked for
    asked_by: str
    asked_at: datetime
    word: str | None = None


def _ask(row: Row) -> Ask:
    return Ask(
        ask_id=row.ask_id,
        site_id=row.site_id,
        window=Window(intervals=(Interval(opens=row.opens_at, closes=row.closes_at),)),
        reason_code=WindowReason(row.reason_code),
        reason=row.reason,
        waiting=row.waiting,
        asked_by=row.asked_by,
        asked_at=row.asked_at,
        word=row.word,
    )


async def find_ask(uow: UnitOfWork, ask_id: UUID) -> Ask | None:
    """One of them."""
    rows = await uow.sql(f"{_ASK} where a.ask_id = $1", ask_id)
    return _ask(rows[0]) if rows else None


async def open_asks(uow: UnitOfWork) -> dict[str, Ask]:
    """By desk, what waits to be decided. What nobody decided by its own close holds nobody up any more."""
    rows = await uow.sql(f"{_ASK} where v.word is null and a.closes_at > $1", uow.at)
    return {row.site_id: _ask(row) for row in rows}


async def add_ask(uow: UnitOfWork, ask: Ask) -> None:
    """Write down what is asked for."""
    await uow.sql(
        "insert into desk_window_asks (ask_id, site_id, opens_at, closes_at, reason_code, reason, waiting, asked_by, asked_at) "
        "values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        ask.ask_id,
        ask.site_id,
        ask.window.opens,
        ask.window.closes,
        ask.reason_code.value,
        ask.reason,
        ask.waiting,
        ask.asked_by,
        ask.asked_at,
    )


async def decide_ask(uow: UnitOfWork, ask: Ask, word: str, by: str) -> None:
    """Write down what the second person said. The database refuses a second word, and one of whoever asked."""
    await uow.sql(
        "insert into desk_window_verdicts (ask_id, word, asked_by, decided_by, decided_at) values ($1, $2, $3, $4, $5)",
        ask.ask_id,
        word,
        ask.asked_by,
        by,
        uow.at,
    )
