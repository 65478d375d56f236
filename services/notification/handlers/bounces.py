"""Mail that comes back: each bounce undoes the delivery of its own message, once; anything else is counted and left."""

from __future__ import annotations

from typing import Final, Protocol
from uuid import UUID

import structlog
from prometheus_client import Counter

from services.chassis.crash import crash_point
from services.chassis.db import Database
from services.notification.domain.calling import CallPatience
from services.notification.domain.returned import Bounce, Found, reason_word
from services.notification.repository import bounces

log = structlog.get_logger(__name__)

BATCH: Final = 200
BOUNCES: Final = Counter("kaowu_bounces", "Mails to the return paths by what came of them", ["outcome"])


class Box(Protocol):
    """Where bounces lie until they are recorded."""

    def has_new(self) -> bool: ...

    async def waiting(self, most: int) -> list[Found]: ...

    async def done(self, found: list[Found]) -> None: ...


async def read_bounces(database: Database, box: Box, patience: CallPatience) -> None:
    """Everything that lies in the box. A process that dies in the middle reads again what it had not put away."""
    while found := await box.waiting(BATCH):
        returned = {item.what.message_id: item.what for item in found if isinstance(item.what, Bounce)}
        moved = await _take_back(database, returned, patience) if returned else 0
        crash_point("bounces-recorded")
        await box.done(found)
        for item in found:
            if not isinstance(item.what, Bounce):
                BOUNCES.labels(str(item.what)).inc()
        again = sum(isinstance(item.what, Bounce) for item in found) - len(returned)
        BOUNCES.labels("repeated").inc(again)
        log.info("bounces", read=len(found), taken_back=moved)


async def _take_back(database: Database, returned: dict[UUID, Bounce], patience: CallPatience) -> int:
    why = {one: (bounce.status, reason_word(bounce.status)) for one, bounce in returned.items()}
    async with database.unit_of_work() as uow:
        people = await bounces.referred(uow, list(returned))
        moved = await bounces.take_back(uow, people, why, patience.call_at) if people else 0
    BOUNCES.labels("unknown").inc(len(returned) - len(people))
    BOUNCES.labels("taken").inc(moved)
    BOUNCES.labels("repeated").inc(len(people) - moved)
    return moved
