"""What payment needs of a gateway, whoever runs it: orders, fen and answers; no registration.

No answer of a gateway is a proof unless its signature was verified: an adapter raises instead of
returning an unverified one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol


class Capability(StrEnum):
    """What a channel can do beyond order, query and notification. Never ask by the channel's name."""

    CLOSABLE = "closable"  # close() ends an unpaid order
    EXPIRES = "expires"  # an order carries its own end (expires_at)
    REFUNDS = "refunds"
    BILLS = "bills"
    REMEMBERS = (
        "remembers"  # it knows an order as soon as it took it; others know only what a payer has opened
    )


class OrderState(StrEnum):
    """The gateway's word on one order.

    Only UNPAID or CLOSED asked after close(), and UNKNOWN_ORDER, speak against a payment; the last only once nobody can
    open the order's code any more, where a channel does not REMEMBER.
    """

    PAID = "paid"
    UNPAID = "unpaid"
    CLOSED = "closed"
    PAYING = "paying"
    REFUNDED = "refunded"
    UNKNOWN_ORDER = "unknown-order"


@dataclass(frozen=True, slots=True)
class PlacedOrder:
    order_no: str
    code_url: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gateway said when asked, with the bytes it signed: this is kept as evidence."""

    order_no: str
    state: OrderState
    paid_at: datetime | None
    amount_fen: int | None
    currency: str | None
    transaction_id: str | None
    status: int
    raw: bytes
    signature: Mapping[str, str]
    """The header fields that prove `raw`: enough to verify it again years later."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The order can no longer be paid. `known` is False where the gateway has not heard of it, and so ended nothing."""

    order_no: str
    known: bool = True


@dataclass(frozen=True, slots=True)
class AlreadyPaid:
    """Too late to close: ask query() for the moment and the amount."""

    order_no: str


class RefundState(StrEnum):
    """The gateway's word on one refund. Only DONE says that the money went back."""

    DONE = "done"
    UNDER_WAY = "under-way"
    REFUSED = "refused"  # it will not happen by itself: a person has to look
    UNKNOWN = "unknown"  # the gateway never heard of it


@dataclass(frozen=True, slots=True)
class RefundAnswer:
    """What the gateway said of a refund, with the bytes it signed."""

    refund_no: str
    state: RefundState
    amount_fen: int | None
    at: datetime | None
    """When the money went back, where the gateway says so."""
    code: str
    """The gateway's own word for a state that is not DONE."""
    raw: bytes
    signature: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BillLine:
    """One line of a gateway's bill: money that came in, or went back (`refund_no` is then set)."""

    order_no: str
    transaction_id: str
    refund_no: str | None
    amount_fen: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Bill:
    """Everything a gateway booked for us on one of its days (Beijing's). `digest`: SHA-256 of what it says."""

    channel: str
    day: date
    lines: Sequence[BillLine]
    digest: bytes
    raw: bytes = field(default=b"", repr=False, compare=False)
    """The file as it was fetched: it may name payers."""


class NoBillYet(Exception):
    """The gateway has not made the bill of this day yet, or nothing was booked on it and it makes none.

    Its text is the gateway's own word.
    """


class NoBill(NoBillYet):
    """It says that there is none: nothing was booked, or (some say no more than this) it is not made yet."""


@dataclass(frozen=True, slots=True)
class Notification:
    """A verified, decrypted notice of the gateway about one of *our* orders (app and merchant are ours).

    REFUNDED says that something became of a refund of it: it is worth asking now.

    Order number, amount and currency still have to be compared with the order: only the caller knows it.
    """

    notification_id: str
    order_no: str
    state: OrderState
    transaction_id: str
    paid_at: datetime | None
    amount_fen: int
    currency: str
    app_id: str
    merchant_id: str


class ChannelError(Exception):
    """Nothing was learned about the payment itself. The text never holds a body, a key or a person."""


class ChannelUnavailable(ChannelError):
    """No usable answer: time-out, cut connection, 5xx, 429, a signature that does not verify.

    The outcome is unknown.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ChannelRefused(ChannelError):
    """The gateway understood and said no; nothing was done. `code` is the gateway's own word."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(f"{status} {code}")
        self.code = code
        self.status = status


class NumberInUse(ChannelRefused):
    """It knows an order of this number already, and that one is another: only a query tells what became of it."""


class NotificationRefused(Exception):
    """A call on the notification route that must change nothing. `reason` is safe as a metric label."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Forged(NotificationRefused):
    """Not signed by the gateway for us: signature, unknown-serial, probe, undecipherable, foreign."""


class Stale(NotificationRefused):
    """Truly signed, but too far from our clock: a replay, or *our* clock is wrong.

    Raise an alarm; the query still tells the truth.
    """

    def __init__(self, skew_seconds: float) -> None:
        super().__init__("stale")
        self.skew_seconds = skew_seconds


class Malformed(NotificationRefused):
    """Too large, headers missing, or (signed, but) not in the form agreed."""


class PaymentChannel(Protocol):
    """One way to pay. All calls end within seconds, with an answer or with ChannelError."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> frozenset[Capability]: ...

    async def place_order(
        self, order_no: str, amount_fen: int, description: str, expires_at: datetime
    ) -> PlacedOrder:
        """After ChannelUnavailable ask again with the same arguments: it is the same order."""
        ...

    async def query(self, order_no: str) -> Answer: ...

    async def close(self, order_no: str) -> Closed | AlreadyPaid: ...

    def parse_notification(self, headers: Mapping[str, str], raw_body: bytes, at: datetime) -> Notification:
        """Verify the raw bytes, then read them. Header names in any case. Raises NotificationRefused."""
        ...


class Refunding(Protocol):
    """A channel that can give money back (Capability.REFUNDS)."""

    @property
    def name(self) -> str: ...

    async def refund(
        self, order_no: str, refund_no: str, amount_fen: int, paid_fen: int, reason: str
    ) -> RefundAnswer:
        """Give back. Asked again under the same number it is the same refund, however often."""
        ...

    async def query_refund(self, order_no: str, refund_no: str) -> RefundAnswer: ...


class Billing(Protocol):
    """A channel that says once a day what it has booked (Capability.BILLS)."""

    @property
    def name(self) -> str: ...

    async def fetch_bill(self, day: date) -> Bill:
        """The bill of a day that is over, checked against its hash where it has one. Raises NoBillYet."""
        ...
