"""Door 2, events: what other services say that changes what is owed.

The handlers' names are what the inbox knows them by: renaming one takes every event in again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from contracts import confirmation, registration
from contracts.event import Event
from services.chassis.consuming import Handler
from services.payment.handlers.approvals import (
    cancel_rejected,
    cancel_returned,
    cancel_withdrawn,
    open_obligations,
)

HANDLERS: Final[Mapping[type[Event], Handler]] = {
    confirmation.Approved: open_obligations,
    confirmation.Rejected: cancel_rejected,
    confirmation.Returned: cancel_returned,
    registration.Withdrawn: cancel_withdrawn,
}
