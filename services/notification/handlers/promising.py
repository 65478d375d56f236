"""The delivery promise as the office and operators see it: live, per close, and how fast its error budget burns."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from prometheus_client import Gauge

from services.chassis.db import Database, UnitOfWork
from services.notification.domain.promise import CONFIRMED_BEFORE, Burn, Close, burns
from services.notification.repository.promise import Standings, standings

# A close is shown so long after it; the metrics are about the one that comes, or has just been.
KEPT_IN_VIEW: Final = timedelta(days=60)
_LATELY: Final = timedelta(days=1)

REMINDERS: Final = Gauge(
    "kaowu_promise_reminders",
    "People reminded on the last day before a close, by how their reminder stands",
    ["state"],
)
SHARE: Final = Gauge(
    "kaowu_promise_share", "Of them confirmed six hours before the close; 1 while there are none"
)
GOAL: Final = Gauge("kaowu_promise_goal", "The share that is promised")
BURN: Final = Gauge(
    "kaowu_promise_burn_rate", "Speed at which the promise's error budget burns", ["pace", "window"]
)
BURNING: Final = Gauge(
    "kaowu_promise_burning", "1 while both windows of a pace are over its factor", ["pace"]
)
_COUNTED: Final = ("confirmed", "late", "failed", "waiting")


async def promise(uow: UnitOfWork, goal: float) -> dict[str, Any]:
    """How the promise stands for each close of late, and its burn rates."""
    found = await standings(uow, uow.at - KEPT_IN_VIEW)
    rates = burns(found.within, goal)
    return {
        "at": uow.at,
        "goal": goal,
        "hours_before": CONFIRMED_BEFORE // timedelta(hours=1),
        "closes": [_close(one, goal) for one in found.closes],
        "burn": [_burn(one) for one in rates],
        "burning": any(one.burning for one in rates),
    }


async def show_promise(database: Database, goal: float) -> datetime | None:
    """Put the figures where operators see them."""
    async with database.reading() as uow:
        found = await standings(uow, uow.at - _LATELY)
    _show(found, goal)
    return None


def _show(found: Standings, goal: float) -> None:
    totals = {name: sum(getattr(close, name) for close in found.closes) for name in _COUNTED}
    for name, many in totals.items():
        REMINDERS.labels(name).set(many)
    people = sum(totals.values())
    SHARE.set(totals["confirmed"] / people if people else 1)
    GOAL.set(goal)
    for burn in burns(found.within, goal):
        BURN.labels(burn.pace.name, "long").set(burn.long)
        BURN.labels(burn.pace.name, "short").set(burn.short)
        BURNING.labels(burn.pace.name).set(burn.burning)


def _close(one: Close, goal: float) -> dict[str, Any]:
    budget = one.people * (1 - goal)
    return {
        "closes_at": one.closes_at,
        "promised_for": one.promised_for,
        "people": one.people,
        "confirmed": one.confirmed,
        "by_sms": one.by_sms,
        "by_email_only": one.confirmed - one.by_sms,
        "late": one.late,
        "failed": one.failed,
        "waiting": one.waiting,
        "moved": one.moved,
        "share": one.share,
        "kept": one.kept(goal),
        "budget": budget,
        "budget_spent": (one.late + one.failed) / budget if budget else None,
    }


def _burn(one: Burn) -> dict[str, Any]:
    return {
        "pace": one.pace.name,
        "factor": one.pace.factor,
        "long_seconds": int(one.pace.long.total_seconds()),
        "short_seconds": int(one.pace.short.total_seconds()),
        "long": one.long,
        "short": one.short,
        "burning": one.burning,
    }
