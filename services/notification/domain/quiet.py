"""When a message may go: an SMS not at night, unless by morning it would come too late."""

from __future__ import annotations

from datetime import datetime

from contracts.cycle import Cycle
from contracts.reasons import Carrier


def urgent(deadline: datetime | None, at: datetime, until: datetime) -> bool:
    """Whether somebody who is told only at `until` could no longer do what the message asks for."""
    return deadline is not None and at < deadline <= until


def first_moment(channel: Carrier, deadline: datetime | None, at: datetime, cycle: Cycle) -> datetime:
    """The earliest moment, from `at` on, at which a message may be sent."""
    if channel is not Carrier.SMS:
        return at
    until = cycle.quiet_until(at)
    return at if urgent(deadline, at, until) else until
