"""What goes first when more waits than can be sent: whoever would lose something by hearing of it later."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final

from services.notification.domain.life import ASKS
from services.notification.domain.occasions import Occasion


class Urgency(IntEnum):
    """Stored: a smaller one goes first."""

    FINAL = 0  # a registration has just ended, or came back, or will end within a day
    ORDINARY = 1  # also of messages that the version before made
    RECORD = 2  # says what the person did or knows; nothing hangs on when they hear it


LAST_DAY: Final = timedelta(days=1)
# Of every so many batches one goes by age alone: what is not urgent moves too, however long the storm.
BY_AGE_EVERY: Final = 8

_FINAL: Final = frozenset({Occasion.EXPIRED, Occasion.REINSTATED, Occasion.LAPSED})
_RECORD: Final = frozenset(
    {Occasion.AMENDED, Occasion.WITHDRAWN, Occasion.CONFIRMED, Occasion.PAID, Occasion.REFUNDED}
)


def urgency_of(occasion: Occasion, deadline: datetime | None, at: datetime) -> Urgency:
    """How urgent it is to tell this, decided once, when it is created."""
    if occasion in _FINAL or (occasion in ASKS and deadline is not None and deadline - at <= LAST_DAY):
        return Urgency.FINAL
    return Urgency.RECORD if occasion in _RECORD else Urgency.ORDINARY
