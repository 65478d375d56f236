"""One try to pay at a gateway: its states, its number, and how long it lives."""

from __future__ import annotations

import re
from base64 import b32encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from itertools import count
from typing import Final
from uuid import UUID

_NO_PART_OF_A_WORD: Final = re.compile(r"[^0-9A-Za-z._-]")


class OrderStatus(StrEnum):
    CREATING = "creating"  # written down before the gateway is asked
    OPEN = "open"
    UNKNOWN = "unknown"  # the gateway gave no answer: it may be payable
    LAPSING = "lapsing"  # let go for another; the gateway does not know it, and its code can be opened until it ends
    FAILED = "failed"  # the gateway would not take it
    CLOSED = "closed"  # closed at the gateway, and the gateway says it was not paid
    PAID = "paid"


# Success is never undone; anything else gives way to it, because money is a fact and our view is not.
ORDER_NEXT: Final[Mapping[OrderStatus, frozenset[OrderStatus]]] = {
    OrderStatus.CREATING: frozenset(OrderStatus) - {OrderStatus.CREATING, OrderStatus.LAPSING},
    OrderStatus.OPEN: frozenset({OrderStatus.LAPSING, OrderStatus.CLOSED, OrderStatus.PAID}),
    OrderStatus.UNKNOWN: frozenset({OrderStatus.CLOSED, OrderStatus.PAID}),
    OrderStatus.LAPSING: frozenset({OrderStatus.CLOSED, OrderStatus.PAID}),
    # What the gateway never heard of may be tried again under its number.
    OrderStatus.FAILED: frozenset({OrderStatus.PAID, OrderStatus.CREATING}),
    OrderStatus.CLOSED: frozenset({OrderStatus.PAID, OrderStatus.CREATING}),
    OrderStatus.PAID: frozenset(),
}
UNDER_WAY: Final = frozenset({OrderStatus.CREATING, OrderStatus.OPEN, OrderStatus.UNKNOWN})
"""A candidate has at most one of these."""
UNDECIDED: Final = UNDER_WAY | {OrderStatus.LAPSING}
"""May still turn out paid."""


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


def order_number(registration_id: UUID, opens_on: date, number: int) -> str:
    """The number of a registration's nth order: after a restore every order that was ever made can be asked about.

    A number that no gateway ever heard of is used again, the smallest first; at another channel only once no request can bring
    it to the first any more. So at most LAPSING_AT_ONCE numbers and one for each other channel are missing below one that was
    heard of. The date, on which the window opened, is for people who read a bill.
    """
    mixed = sha256(f"kaowu.order.v1 {registration_id} {number}".encode()).digest()[:10]
    return f"{opens_on:%Y%m%d}{b32encode(mixed).decode()}"


def free_number(registration_id: UUID, opens_on: date, used: frozenset[str]) -> int:
    """The smallest number whose order number is not used."""
    return next(number for number in count(1) if order_number(registration_id, opens_on, number) not in used)


LAPSING_AT_ONCE: Final = 2
"""So many codes may be let go unopened before one more is given out; another channel always goes on."""

ORDER_LIFE: Final = timedelta(hours=2)  # the gateway's payment code lives no longer


def refusal_word(said: str) -> str:
    """A gateway's no as one word, which is how a proof of forfeiture binds it, whatever the gateway says."""
    return _NO_PART_OF_A_WORD.sub("_", said)[:64] or "no-word"


def order_expires_at(at: datetime, closes_at: datetime) -> datetime:
    """An order ends with its code, and never outlives the window."""
    return min(at + ORDER_LIFE, closes_at)
