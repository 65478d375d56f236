"""Payment with too little memory: `python -m tests.faults.hungry run`.

KAOWU_HUNGER=one: the first approval it meets needs more than the process may have, each time it comes.
KAOWU_HUNGER=leak: every delivery keeps so much that soon nothing fits any more.
The limit is the kernel's (RLIMIT_AS), a little above what the process has when it begins to work.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from functools import wraps
from pathlib import Path
from typing import Final
from unittest.mock import patch
from uuid import UUID

from contracts import confirmation
from contracts.event import Event
from services.chassis.cli import main
from services.chassis.consuming import Handler
from services.chassis.db import UnitOfWork
from services.chassis.process import Process
from services.payment import app
from services.payment.consumers import HANDLERS
from services.payment.handlers import approvals
from services.payment.settings import Settings

MIB: Final = 2**20
ROOM: Final = 256 * MIB  # above what the process has already
BITE: Final = 48 * MIB
_TOO_MUCH: Final = 64 * ROOM
_kept: list[bytearray] = []
_hungry: set[UUID] = set()
_limited = False


@wraps(approvals.open_obligations)
async def open_obligations(uow: UnitOfWork, events: Sequence[confirmation.Approved], **given: object) -> None:
    """As the service's own, and hungry."""
    _limit()
    if os.environ["KAOWU_HUNGER"] == "leak":
        _kept.append(bytearray(BITE))
    elif not _hungry:
        _hungry.add(events[0].registration_id)
    if any(event.registration_id in _hungry for event in events):
        bytearray(_TOO_MUCH)
    await approvals.open_obligations(uow, events, **given)  # type: ignore[arg-type]  # as the chassis has bound them


def _limit() -> None:
    global _limited  # noqa: PLW0603 - one process, one limit
    if not _limited:
        _limited = True
        has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (has + ROOM, has + ROOM))


def create_hungry(settings: Settings) -> Process:
    """The service as it is, but for one handler."""
    handlers: dict[type[Event], Handler] = {**HANDLERS, confirmation.Approved: open_obligations}
    with patch.object(app, "HANDLERS", handlers):
        return app.create_app(settings)


if __name__ == "__main__":
    main(Settings, create_hungry)
