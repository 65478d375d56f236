"""What became of the matter between a message's creation and its turn: judged once more just before it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import structlog
from prometheus_client import Counter

from contracts.reasons import Carrier
from services.chassis.db import Row
from services.notification.domain.life import NAMES_THE_CLOSE, Standing, State, end_unsent
from services.notification.domain.occasions import Occasion

log = structlog.get_logger(__name__)

SUPERSEDED: Final = Counter(
    "kaowu_messages_superseded",
    "Messages not sent because what they tell was no longer true when their turn came",
    ["channel", "occasion"],
)


def end_of(row: Row, at: datetime) -> State | None:
    """How a picked message ends without being sent; None: it is still to be sent."""
    occasion = Occasion(row.occasion)
    deadline = row.pay_by if _moved(occasion, row) else row.deadline_at
    return end_unsent(occasion, Standing(row.standing), overtaken=row.overtaken, deadline=deadline, at=at)


def close_of(row: Row) -> Mapping[str, str]:
    """The close that a message names, where it has moved since the message was created."""
    return {"closes_at": row.pay_by.isoformat()} if _moved(Occasion(row.occasion), row) else {}


def _moved(occasion: Occasion, row: Row) -> bool:
    return occasion in NAMES_THE_CLOSE and row.pay_by is not None


def note_superseded(carrier: Carrier, rows: Sequence[Row]) -> None:
    """Row by row, because each is somebody who was to be told something and will not be."""
    for row in rows:
        SUPERSEDED.labels(carrier, row.occasion).inc()
        log.info(
            "superseded",
            channel=carrier,
            occasion=row.occasion,
            message_id=str(row.message_id),
            standing=row.standing,
            overtaken=row.overtaken,
        )
