"""Door 2, events: what candidates did, as registration accepted it; and until when payment is open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from contracts import payment, registration
from contracts.event import Event
from services.chassis.consuming import Handler
from services.confirmation import handlers

# A handler's name is its name in the inbox: renaming one makes it take every event in again.
HANDLERS: Final[Mapping[type[Event], Handler]] = {
    registration.PreRegistered: handlers.open_cases,
    registration.Amended: handlers.amend_cases,
    registration.Withdrawn: handlers.withdraw_cases,
    payment.SiteWindowSet: handlers.follow_payment_close,
}
