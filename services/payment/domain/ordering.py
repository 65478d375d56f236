"""Whether somebody may order now. The window is asked before the state."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from services.payment.domain.obligation import Obligation, Status
from services.payment.domain.refusals import (
    AlreadyPaid,
    NotAllowed,
    NotApproved,
    TooLateToOrder,
    WindowClosed,
    WindowNotOpen,
)


class PaymentWindow(Protocol):
    """What is asked of `cycle.windows.payment`."""

    @property
    def opens(self) -> datetime: ...

    @property
    def closes(self) -> datetime: ...

    @property
    def no_orders_before_close(self) -> timedelta: ...

    def is_open(self, at: datetime) -> bool: ...


def check_order(
    at: datetime, window: PaymentWindow, owed: Obligation | None, desk_closes_at: datetime | None = None
) -> Obligation:
    """Whether an order may be made now, and for what. The window is asked before the state.

    `desk_closes_at`: when payment closes at the candidate's desk, for whoever awaits nothing: their own close stands still.
    """
    opens_at, closes_at = (owed.opens_at, owed.closes_at) if owed else (window.opens, window.closes)
    if desk_closes_at is not None:
        closes_at = desk_closes_at if owed is None else max(closes_at, desk_closes_at)
    if at >= closes_at:
        raise WindowClosed
    if at >= closes_at - window.no_orders_before_close:
        raise TooLateToOrder
    # Inside the cycle's window it may pause; beyond its end only an obligation of its own can still be open.
    if at < opens_at or (at < window.closes and not window.is_open(at)):
        raise WindowNotOpen
    if owed is None or owed.status is Status.CANCELLED:
        raise NotApproved
    if owed.status is Status.PAID:
        raise AlreadyPaid
    if owed.status is not Status.AWAITING:
        raise NotAllowed(f"no order while {owed.status}")
    return owed
