"""The composition root of registration: the only file that sees all its parts."""

from __future__ import annotations

from services.chassis.process import Plumbing, Process
from services.registration import api
from services.registration.consumers import HANDLERS
from services.registration.domain.form import photo_of_any_size
from services.registration.settings import Settings


def create_app(settings: Settings) -> Process:
    """The service, put together; nothing is connected yet."""
    plumbing = Plumbing.of(settings)
    return Process(
        plumbing,
        public=[api.public_routes(plumbing.database, plumbing.cycle, plumbing.vault)],
        internal=[api.internal_routes(plumbing.database, plumbing.vault)],
        handlers=HANDLERS,
        too_large=photo_of_any_size(plumbing.cycle.photo),
        deps={"cycle": plumbing.cycle},
    )
