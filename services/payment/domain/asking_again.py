"""When a gateway that gave no last word is asked again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

# What may still be a payment: somebody's place hangs on it.
_ORDER: Final = tuple(timedelta(minutes=m) for m in (5, 60, 60, 180, 360, 1440))
# What has to go back: the gateway works at it for days.
_REFUND: Final = tuple(timedelta(minutes=m) for m in (1, 5, 30, 120, 360, 1440))


def ask_again_at(at: datetime, attempts: int) -> datetime:
    """When to ask about an order that has been asked about `attempts` times without an end."""
    return at + _step(_ORDER, attempts)


def ask_refund_again_at(at: datetime, attempts: int) -> datetime:
    """The same of a refund."""
    return at + _step(_REFUND, attempts)


def _step(ladder: tuple[timedelta, ...], attempts: int) -> timedelta:
    return ladder[min(max(attempts, 1), len(ladder)) - 1]
