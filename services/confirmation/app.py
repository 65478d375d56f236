"""The confirmation service, put together. The only file that sees all three doors."""

from __future__ import annotations

from services.chassis.process import Plumbing, Process
from services.confirmation.api import MAX_BODY, routes
from services.confirmation.consumers import HANDLERS
from services.confirmation.jobs import lapse_job
from services.confirmation.settings import Settings


def create_app(settings: Settings) -> Process:
    """One process of this service."""
    plumbing = Plumbing.of(settings)
    lapse_missed = lapse_job(plumbing.database, plumbing.cycle)
    return Process(
        plumbing,
        public=[routes(plumbing.database, plumbing.cycle, plumbing.vault, lapse_missed.wake)],
        handlers=HANDLERS,
        deps={"cycle": plumbing.cycle, "wake_lapse": lapse_missed.wake},
        jobs=[lapse_missed],
        max_body=MAX_BODY,
    )
