"""What an approved candidate owes, until when, and what becomes of it. Who is forfeited: `Obligation.expire`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from contracts.reasons import RefundCause
from services.payment.domain.order import UNDECIDED, OrderStatus, Success
from services.payment.domain.refusals import AlreadyPaid, NotAllowed, TooEarly, Undecided


class Status(StrEnum):
    AWAITING = "awaiting"
    PAID = "paid"
    EXPIRED = "expired"
    HELD = "held"
    CANCELLED = "cancelled"


# Every way an obligation may go. The set-based statements of repository.py are built from this table as well.
NEXT: Final[Mapping[Status, frozenset[Status]]] = {
    Status.AWAITING: frozenset({Status.PAID, Status.EXPIRED, Status.HELD, Status.CANCELLED}),
    Status.HELD: frozenset({Status.PAID, Status.EXPIRED, Status.CANCELLED, Status.AWAITING}),
    Status.EXPIRED: frozenset({Status.AWAITING, Status.CANCELLED}),
    Status.PAID: frozenset({Status.CANCELLED}),
    Status.CANCELLED: frozenset({Status.AWAITING}),
}


def sources_of(target: Status) -> tuple[Status, ...]:
    """The states from which `target` can be reached."""
    return tuple(status for status in Status if target in NEXT[status])


# Whose close moves when the office moves it. Whoever is held waits for the gateway no longer than for the new close.
MAY_MOVE: Final = frozenset({Status.AWAITING, Status.HELD, Status.EXPIRED})


class Cancellation(StrEnum):
    """Why nothing is owed any more."""

    REJECTED = "rejected"
    RETURNED = "returned"
    WITHDRAWN = "withdrawn"


class Fact(StrEnum):
    """What a payment made true, in the order in which it is said."""

    REINSTATED = "reinstated"
    PAID = "paid"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a payment leads to: the obligation after it, the facts to tell, and why money goes back, if so."""

    obligation: Obligation
    facts: tuple[Fact, ...] = ()
    refund: RefundCause | None = None


@dataclass(frozen=True, slots=True)
class Obligation:
    """What one approved registration owes.

    `version` counts the events said about it. Holding and cancelling say nothing, so they leave it; no way
    through NEXT comes back to a state without an event in between: (status, version) names one state.
    """

    registration_id: UUID
    status: Status
    version: int
    amount_fen: int
    currency: str
    opens_at: datetime
    closes_at: datetime  # enforced: the first moment at which a payment is late
    told_closes_at: datetime
    cancelled_for: Cancellation | None = None

    def expire(self, at: datetime, orders: Collection[OrderStatus]) -> Obligation:
        """Forfeit. 未按规定时间完成网上缴费的，视为自动放弃考试。不受理现场缴费。

        Not before the close, not while any order may still turn out paid (no callback is no proof), and only
        whoever still owes. `repository.closing.sweep_chunk` is this rule for a million people at once.
        """
        if at < self.closes_at:
            raise TooEarly(f"payment is open until {self.closes_at.isoformat()}")
        if UNDECIDED.intersection(orders):
            raise Undecided("the gateway has not said yet whether an order was paid")
        return self._to(Status.EXPIRED, events=1)

    def hold(self, at: datetime) -> Obligation:
        """The close has come and the gateway does not answer: neither forfeited nor paid until it does."""
        if at < self.closes_at:
            raise TooEarly(f"payment is open until {self.closes_at.isoformat()}")
        return self._to(Status.HELD)

    def receive(self, success: Success, order_amount_fen: int) -> Verdict:
        """Decide on money. In time is what the gateway dates before the close, whenever we hear of it.

        It must be what the order was for, and what is owed: an order of before somebody was sent back and approved again may be
        for another fee.
        """
        wanted = {(order_amount_fen, self.currency), (self.amount_fen, self.currency)}
        if {(success.amount_fen, success.currency)} != wanted:
            return Verdict(self, refund=RefundCause.WRONG_AMOUNT)
        if self.status is Status.PAID:
            return Verdict(self, refund=RefundCause.PAID_TWICE)
        if self.status is Status.CANCELLED:
            return Verdict(self, refund=_REFUND_OF_CANCELLED[self.cancelled_for])
        if success.paid_at >= self.closes_at:
            return Verdict(self, refund=RefundCause.PAID_LATE)
        if self.status is Status.EXPIRED:
            return Verdict(self.reinstate().pay(), (Fact.REINSTATED, Fact.PAID))
        return Verdict(self.pay(), (Fact.PAID,))

    def pay(self) -> Obligation:
        """The fee is in, in time and in full."""
        return self._to(Status.PAID, events=1)

    def move(self, closes_at: datetime, told_closes_at: datetime) -> Obligation:
        """Two people of the office set another close. Whoever owes is told; a forfeiture before it is taken back.

        `repository.decisions.move_chunk` is this rule for a million people at once.
        """
        if self.status is not Status.AWAITING and (
            closes_at <= self.closes_at or self.status not in MAY_MOVE
        ):
            raise NotAllowed(f"the close of whoever is {self.status} does not move there")
        owing = self if self.status is Status.AWAITING else self._to(Status.AWAITING)
        return replace(owing, version=self.version + 1, closes_at=closes_at, told_closes_at=told_closes_at)

    def reinstate(self) -> Obligation:
        """Take a forfeiture back; it owes again."""
        if self.status is not Status.EXPIRED:
            raise NotAllowed(f"only what is expired is reinstated, this is {self.status}")
        return self._to(Status.AWAITING, events=1)

    def cancel(self, cause: Cancellation) -> Obligation:
        """The approval is gone: nothing is owed. Only a rejection reaches whoever has paid (and refunds)."""
        if self.status is Status.PAID and cause is not Cancellation.REJECTED:
            raise AlreadyPaid(f"paid: {cause} comes too late")
        return replace(self._to(Status.CANCELLED), cancelled_for=cause)

    def approve_again(self, amount_fen: int) -> Obligation:
        """Approved once more after the approval was gone: it owes anew."""
        if self.status is not Status.CANCELLED:
            raise NotAllowed(f"what is {self.status} is owed already")
        return replace(self._to(Status.AWAITING, events=1), amount_fen=amount_fen, cancelled_for=None)

    def remind(self) -> Obligation:
        """The close is near. Only whoever still owes is told."""
        if self.status is not Status.AWAITING:
            raise NotAllowed(f"nobody who is {self.status} is reminded")
        return replace(self, version=self.version + 1)

    def refunded(self) -> Obligation:
        """Money of it went back, whatever state it is in."""
        return replace(self, version=self.version + 1)

    def _to(self, status: Status, events: int = 0) -> Obligation:
        if status not in NEXT[self.status]:
            raise NotAllowed(f"{self.status} does not become {status}")
        return replace(self, status=status, version=self.version + events)


_REFUND_OF_CANCELLED: Final = {
    Cancellation.REJECTED: RefundCause.REJECTED,
    Cancellation.RETURNED: RefundCause.OTHER,
    Cancellation.WITHDRAWN: RefundCause.OTHER,
    None: RefundCause.OTHER,
}


def refund_of(owed: Obligation) -> RefundCause | None:
    """Why what was paid in time has to go back now, if so."""
    return _REFUND_OF_CANCELLED[owed.cancelled_for] if owed.status is Status.CANCELLED else None
