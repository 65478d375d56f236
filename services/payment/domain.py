"""What an approved candidate owes, until when, and what becomes of it.

Plain Python: no clock, database or gateway. Whoever asks brings the moment (`at`) and the gateway's word.
"""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final, Protocol
from uuid import UUID

from contracts.reasons import RefundCause


class Status(StrEnum):
    AWAITING = "awaiting"
    PAID = "paid"
    EXPIRED = "expired"
    HELD = "held"
    CANCELLED = "cancelled"


# Every way an obligation may go. The set-based statements of repository.py are built from this table as well.
NEXT: Final[Mapping[Status, frozenset[Status]]] = {
    Status.AWAITING: frozenset({Status.PAID, Status.EXPIRED, Status.HELD, Status.CANCELLED}),
    Status.HELD: frozenset({Status.PAID, Status.EXPIRED, Status.CANCELLED}),
    Status.EXPIRED: frozenset({Status.AWAITING, Status.CANCELLED}),
    Status.PAID: frozenset({Status.CANCELLED}),
    Status.CANCELLED: frozenset({Status.AWAITING}),
}


class OrderStatus(StrEnum):
    CREATING = "creating"  # written down before the gateway is asked
    OPEN = "open"
    UNKNOWN = "unknown"  # the gateway gave no answer: it may be payable
    FAILED = "failed"  # the gateway would not take it
    CLOSED = "closed"  # closed at the gateway, and the gateway says it was not paid
    PAID = "paid"


# Success is never undone; anything else gives way to it, because money is a fact and our view is not.
ORDER_NEXT: Final[Mapping[OrderStatus, frozenset[OrderStatus]]] = {
    OrderStatus.CREATING: frozenset(OrderStatus) - {OrderStatus.CREATING},
    OrderStatus.OPEN: frozenset({OrderStatus.CLOSED, OrderStatus.PAID}),
    OrderStatus.UNKNOWN: frozenset({OrderStatus.CLOSED, OrderStatus.PAID}),
    # What the gateway never heard of may be tried again under its number.
    OrderStatus.FAILED: frozenset({OrderStatus.PAID, OrderStatus.CREATING}),
    OrderStatus.CLOSED: frozenset({OrderStatus.PAID, OrderStatus.CREATING}),
    OrderStatus.PAID: frozenset(),
}
UNDECIDED: Final = frozenset({OrderStatus.CREATING, OrderStatus.OPEN, OrderStatus.UNKNOWN})


def sources_of(target: Status) -> tuple[Status, ...]:
    """The states from which `target` can be reached."""
    return tuple(status for status in Status if target in NEXT[status])


class PaymentRuleBroken(Exception):
    """A rule of this stage says no. Subclasses name the rule."""


class WindowNotOpen(PaymentRuleBroken):
    """Payment has not begun, or pauses."""


class WindowClosed(PaymentRuleBroken):
    """Payment is over."""


class TooLateToOrder(PaymentRuleBroken):
    """So near to the close that the gateway could not end the order in time."""


class NotApproved(PaymentRuleBroken):
    """Nothing is owed: never approved, or not any more."""


class AlreadyPaid(PaymentRuleBroken):
    """The fee is paid."""


class NotAllowed(PaymentRuleBroken):
    """No such transition."""


class TooEarly(PaymentRuleBroken):
    """Nobody forfeits before the close."""


class Undecided(PaymentRuleBroken):
    """An order may still turn out paid."""


class Cancellation(StrEnum):
    """Why nothing is owed any more."""

    REJECTED = "rejected"
    RETURNED = "returned"
    WITHDRAWN = "withdrawn"


class Fact(StrEnum):
    """What a payment made true, in the order in which it is said."""

    REINSTATED = "reinstated"
    PAID = "paid"


class PaymentWindow(Protocol):
    """What is asked of `cycle.windows.payment`."""

    @property
    def opens(self) -> datetime: ...

    @property
    def closes(self) -> datetime: ...

    @property
    def no_orders_before_close(self) -> timedelta: ...

    def is_open(self, at: datetime) -> bool: ...


@dataclass(frozen=True, slots=True)
class Order:
    """One try to pay at a gateway."""

    order_no: str
    registration_id: UUID
    channel: str
    amount_fen: int
    currency: str
    status: OrderStatus
    created_at: datetime
    expires_at: datetime
    code_url: str | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Success:
    """A payment as the gateway reports it, whenever we hear of it."""

    order_no: str
    transaction_id: str
    amount_fen: int
    currency: str
    paid_at: datetime


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
        """Decide on money. In time is what the gateway dates before the close, whenever we hear of it."""
        if (success.amount_fen, success.currency) != (order_amount_fen, self.currency):
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

    def _to(self, status: Status, events: int = 0) -> Obligation:
        if status not in NEXT[self.status]:
            raise NotAllowed(f"{self.status} does not become {status}")
        return replace(self, status=status, version=self.version + events)


def check_order(at: datetime, window: PaymentWindow, owed: Obligation | None) -> Obligation:
    """Whether an order may be made now, and for what. The window is asked before the state."""
    opens_at, closes_at = (owed.opens_at, owed.closes_at) if owed else (window.opens, window.closes)
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


_REFUND_OF_CANCELLED: Final = {
    Cancellation.REJECTED: RefundCause.REJECTED,
    Cancellation.RETURNED: RefundCause.OTHER,
    Cancellation.WITHDRAWN: RefundCause.OTHER,
    None: RefundCause.OTHER,
}


def refund_of(owed: Obligation) -> RefundCause | None:
    """Why what was paid in time has to go back now, if so."""
    return _REFUND_OF_CANCELLED[owed.cancelled_for] if owed.status is Status.CANCELLED else None


def order_number(registration_id: UUID, opens_on: date, number: int) -> str:
    """The number of a registration's nth order: after a restore every order that was ever made can be asked about.

    The numbers a gateway has heard of are 1, 2, … without a gap, because one it never heard of is used again. The date, on
    which the window opened, is for people who read a bill.
    """
    mixed = sha256(f"kaowu.order.v1 {registration_id} {number}".encode()).digest()[:10]
    return f"{opens_on:%Y%m%d}{b32encode(mixed).decode()}"


ORDER_LIFE: Final = timedelta(hours=2)  # the gateway's payment code lives no longer


def order_expires_at(at: datetime, closes_at: datetime) -> datetime:
    """An order ends with its code, and never outlives the window."""
    return min(at + ORDER_LIFE, closes_at)


_RETRIES: Final = (
    timedelta(minutes=5),
    timedelta(hours=1),
    timedelta(hours=1),
    timedelta(hours=3),
    timedelta(hours=6),
    timedelta(days=1),
)


def ask_again_at(at: datetime, attempts: int) -> datetime:
    """When to ask a gateway again that has given no answer `attempts` times."""
    return at + _RETRIES[min(max(attempts, 1), len(_RETRIES)) - 1]


@dataclass(frozen=True, slots=True)
class ReminderPlan:
    """The reminder to send now, if any; those overtaken, never sent; and the moment of the next one."""

    send: timedelta | None
    skip: tuple[timedelta, ...]
    next_at: datetime | None


def plan_reminders(
    at: datetime,
    opens_at: datetime,
    told_closes_at: datetime,
    offsets: Iterable[timedelta],
    done: Sequence[timedelta],
) -> ReminderPlan:
    """Each offset before the told close once; of several missed only the latest; none after the close."""
    moments = sorted(
        (told_closes_at - offset, offset) for offset in set(offsets) if told_closes_at - offset >= opens_at
    )
    coming = [moment for moment, _ in moments if moment > at]
    passed = [offset for moment, offset in moments if moment <= at]
    missed = [offset for offset in passed if offset not in done]
    # Only the latest moment that has passed is worth telling, and nothing is once the window has closed.
    send = missed[-1] if missed and missed[-1] == passed[-1] and at < told_closes_at else None
    return ReminderPlan(
        send=send,
        skip=tuple(offset for offset in missed if offset != send),
        next_at=coming[0] if coming else None,
    )


class ProofTree:
    """The Merkle tree over the proofs of one close, built leaf by leaf without keeping them (RFC 6962's shape)."""

    def __init__(self) -> None:
        self.leaves = 0
        self._peaks: list[tuple[int, bytes]] = []  # perfect subtrees from left to right: (leaves, hash)

    def add(self, leaf: bytes) -> None:
        """The next leaf, in the order of registration ids; it is a hash already (see `repository.closing`)."""
        self.leaves += 1
        size, right = 1, leaf
        while self._peaks and self._peaks[-1][0] == size:
            _, left = self._peaks.pop()
            size, right = size * 2, _node(left, right)
        self._peaks.append((size, right))

    def root(self) -> bytes:
        """What the close publishes. Of no leaves: the hash of nothing."""
        if not self._peaks:
            return sha256(b"").digest()
        *others, (_, root) = self._peaks
        for _, left in reversed(others):
            root = _node(left, root)
        return root


def _node(left: bytes, right: bytes) -> bytes:
    # The first byte keeps an inner node from ever being taken for a leaf, which begins with 0.
    return sha256(b"\x01" + left + right).digest()
