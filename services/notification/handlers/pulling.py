"""Receipts that a carrier keeps for us: pulled now and then, because what it pushes may never come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
from prometheus_client import Counter

from services.chassis.crash import crash_point
from services.chassis.db import Database
from services.notification.handlers.receipts import take_page
from services.notification.ports import NoAnswer, Rejected, Sms

log = structlog.get_logger(__name__)

PULLED: Final = Counter("kaowu_receipts_pulled", "Receipts that were pulled from a carrier", ["provider"])
_MOST: Final = 200  # pages in a row: then somebody else may have a turn


async def pull_receipts(database: Database, carriers: Sequence[Sms]) -> None:
    """Take in what each keeps. One that does not answer is asked again the next time."""
    for carrier in carriers:
        try:
            await _pull(database, carrier)
        except (Rejected, NoAnswer) as error:
            log.warning("receipts-not-pulled", provider=carrier.name, reason=str(error))


async def _pull(database: Database, carrier: Sms) -> None:
    for _ in range(_MOST):
        page = await carrier.pull()
        if page is None or not (page.receipts or page.unreadable):
            return
        PULLED.labels(carrier.name).inc(len(page.receipts))
        # What was pulled does not come again: should the process die before this is kept, its message is asked about.
        crash_point("receipts-pulled")
        await take_page(database, carrier.name, page)
