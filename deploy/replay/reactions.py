"""The services' own consumers, over another database than their own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from contracts.cycle import Cycle
from services.chassis.clock import SystemClock
from services.chassis.consuming import Consumers
from services.chassis.db import Database
from services.confirmation.consumers import HANDLERS as CONFIRMATION
from services.notification.consumers import HANDLERS as NOTIFICATION
from services.notification.handlers.telling import Teller
from services.notification.templates.wording import Wording
from services.payment.consumers import HANDLERS as PAYMENT
from services.registration.consumers import HANDLERS as REGISTRATION


class Recorded(SystemClock):
    """A clock that says what a record says: in a replay nothing may be decided by the present."""

    virtual = True

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        """Nothing waits in a replay."""
        self.at += timedelta(seconds=seconds)


def _nothing() -> None:
    """Nobody is woken by a replay."""


def consumers_of(service: str, database: Database, cycle: Cycle) -> Consumers:
    """What the service's composition root makes, with nobody to wake."""
    handlers: Mapping[str, Any] = {
        "registration": REGISTRATION,
        "confirmation": CONFIRMATION,
        "payment": PAYMENT,
        "notification": NOTIFICATION,
    }
    deps: dict[str, object] = {
        "cycle": cycle,
        "wake_lapse": _nothing,
        "ask_gateway": _nothing,
        "close_again": _nothing,
        "refund_soon": _nothing,
    }
    if service == "notification":
        deps["teller"] = Teller(cycle, Wording.load(), _nothing, _nothing)
    return Consumers(handlers[service], database=database, service=service, deps=deps)
