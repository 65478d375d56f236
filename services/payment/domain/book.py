"""The book of double entry: every posting moves fen from one account to another, so nothing can appear or vanish.

What a total is, and that received = fees + refunded + due + held, follows from this table alone.
"""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Final

GATEWAY: Final = "gateway"
"""What a channel holds for us; each has an account of its own, `gateway:<channel>`."""


class Posting(StrEnum):
    """The kinds of rows in the ledger. Each at most once for a transaction of a gateway."""

    RECEIVED = "received"  # the gateway says that money came
    FEE = "fee"  # it was in time and of the right amount: it is the fee
    FEE_TAKEN_BACK = "fee-taken-back"  # it is no fee any more, because the approval is gone
    REFUND_DUE = "refund-due"  # it has to go back
    REFUNDED = "refunded"  # the gateway says that it went back


class Account(StrEnum):
    """Where money may be said to be."""

    UNJUDGED = "unjudged"  # received, and not yet either fee or due back
    FEES = "fees"
    REFUNDS_DUE = "refunds-due"


# (debit, credit): the amount moves from the second to the first.
ACCOUNTS: Final[Mapping[Posting, tuple[str, str]]] = {
    Posting.RECEIVED: (GATEWAY, Account.UNJUDGED),
    Posting.FEE: (Account.UNJUDGED, Account.FEES),
    Posting.FEE_TAKEN_BACK: (Account.FEES, Account.UNJUDGED),
    Posting.REFUND_DUE: (Account.UNJUDGED, Account.REFUNDS_DUE),
    Posting.REFUNDED: (Account.REFUNDS_DUE, GATEWAY),
}


class RefundStatus(StrEnum):
    """How far a refund has come. Only the gateway's own word makes it done."""

    DUE = "due"  # nobody has asked yet, or nobody answered
    ASKED = "asked"  # the gateway has it and is at it
    REFUSED = "refused"  # the gateway will not do it by itself: listed for the office, asked again once a day
    DONE = "done"


def refund_number(channel: str, transaction_id: str) -> str:
    """One number for each payment, made from it alone: asked again under it, a gateway pays once.

    Nobody need remember it: after a restore it is the same.
    """
    mixed = sha256(f"kaowu.refund.v1 {channel} {transaction_id}".encode()).digest()[:15]
    return f"R{b32encode(mixed).decode()}"
