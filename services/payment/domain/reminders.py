"""Which reminder is due before a close: each once, of several missed only the latest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class ReminderPlan:
    """The reminder to send now, if any; those overtaken, never sent; and the moment of the next one."""

    send: timedelta | None
    skip: tuple[timedelta, ...]
    next_at: datetime | None


def plan_reminders(
    at: datetime,
    opens_at: datetime,
    told_closes_at: datetime,
    offsets: Iterable[timedelta],
    done: Sequence[timedelta],
) -> ReminderPlan:
    """Each offset before the told close once; of several missed only the latest; none after the close."""
    moments = sorted(
        (told_closes_at - offset, offset) for offset in set(offsets) if told_closes_at - offset >= opens_at
    )
    coming = [moment for moment, _ in moments if moment > at]
    passed = [offset for moment, offset in moments if moment <= at]
    missed = [offset for offset in passed if offset not in done]
    # Only the latest moment that has passed is worth telling, and nothing is once the window has closed.
    send = missed[-1] if missed and missed[-1] == passed[-1] and at < told_closes_at else None
    return ReminderPlan(
        send=send,
        skip=tuple(offset for offset in missed if offset != send),
        next_at=coming[0] if coming else None,
    )
