"""What candidates are told of, and what each message must and may say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Occasion(StrEnum):
    """The fact that a message tells. Stored, and part of the once-only key: never rename one."""

    PRE_REGISTERED = "pre-registered"
    AMENDED = "amended"
    WITHDRAWN = "withdrawn"
    CONFIRMED = "confirmed"
    RETURNED = "returned"
    APPROVED = "approved"
    REJECTED = "rejected"
    LAPSED = "lapsed"
    DESK_WINDOW_MOVED = "desk-window-moved"
    DUE = "due"
    CLOSING_SOON = "closing-soon"
    PAID = "paid"
    EXPIRED = "expired"
    REINSTATED = "reinstated"
    REFUNDED = "refunded"
    PAYMENT_WINDOW_MOVED = "payment-window-moved"


class Kind(StrEnum):
    """What a variable of a template holds."""

    TEXT = "text"
    TAIL = "tail"  # last four of the registration number
    PHONE = "phone"  # of an office: nobody's own has a variable
    LINK = "link"
    MONEY = "money"
    NUMBER = "number"
    SPAN = "span"
    DEADLINE = "deadline"  # a moment by which something must be done: the consequence stands beside it
    MOMENT = "moment"
    LIST = "list"  # sentences; in an email only


@dataclass(frozen=True, slots=True)
class Variable:
    """What a template may say. `longest`: how many characters of it an SMS has room for; what is longer is cut short there."""

    kind: Kind
    longest: int = 35  # what the strictest carrier in use takes of any variable


# Every variable a template may use. Nobody's name, ID number, phone or address is among them, so none can be said.
VARIABLES: Final[Mapping[str, Variable]] = {
    "tail": Variable(Kind.TAIL, 4),
    "exam": Variable(Kind.TEXT),
    "contact": Variable(Kind.PHONE, 15),  # the exam site's
    "website": Variable(Kind.LINK),
    "desk": Variable(Kind.TEXT),
    "place": Variable(Kind.TEXT),
    "phone": Variable(Kind.PHONE, 15),  # the desk's
    "note": Variable(Kind.TEXT, 20),  # who will name the days of an undated desk
    "form": Variable(Kind.NUMBER, 12),
    "by": Variable(Kind.TEXT, 12),  # who decided
    "reasons": Variable(Kind.TEXT),
    "remedies": Variable(Kind.LIST),
    "why": Variable(Kind.TEXT),
    "amount": Variable(Kind.MONEY, 12),
    "left": Variable(Kind.SPAN, 22),
    "opening": Variable(Kind.MOMENT),
    "deadline": Variable(Kind.DEADLINE),
    "reopening": Variable(Kind.DEADLINE),  # until when one may pre-register again
    "closed": Variable(Kind.MOMENT),
    "paid": Variable(Kind.MOMENT),
}

# Words that no template may ask for, said by name in the refusal.
FORBIDDEN: Final = frozenset(
    {"name", "id_number", "id", "number", "email", "employer", "address", "birthday"}
)


@dataclass(frozen=True, slots=True)
class Contents:
    """The variables that both channels' texts must use, and those they may use besides."""

    must: frozenset[str]
    may: frozenset[str]


ALWAYS: Final = frozenset({"exam", "contact", "website"})


def _contents(must: str, may: str = "") -> Contents:
    return Contents(frozenset(must.split()) | {"tail"}, frozenset(may.split()) | ALWAYS)


# (occasion, variant) → what its texts say. A variant is the same occasion under other facts.
CONTENTS: Final[Mapping[tuple[Occasion, str], Contents]] = {
    (Occasion.PRE_REGISTERED, ""): _contents("desk place phone deadline", "opening form"),
    (Occasion.PRE_REGISTERED, "undated"): _contents("note deadline", "desk form"),
    (Occasion.AMENDED, ""): _contents("form desk deadline", "place phone opening"),
    (Occasion.AMENDED, "undated"): _contents("form note deadline", "desk"),
    (Occasion.WITHDRAWN, ""): _contents(""),
    (Occasion.WITHDRAWN, "again"): _contents("reopening"),
    (Occasion.CONFIRMED, ""): _contents("desk", "form opening deadline"),
    (Occasion.RETURNED, ""): _contents("by reasons deadline", "remedies desk place phone"),
    (Occasion.APPROVED, ""): _contents("opening deadline"),
    (Occasion.REJECTED, ""): _contents("by reasons contact"),
    (Occasion.LAPSED, ""): _contents("closed contact"),
    (Occasion.LAPSED, "again"): _contents("closed reopening", "contact"),
    (Occasion.DESK_WINDOW_MOVED, ""): _contents("desk opening deadline", "place phone why"),
    (Occasion.DESK_WINDOW_MOVED, "close"): _contents("desk deadline", "place phone why"),
    (Occasion.DUE, ""): _contents("amount opening deadline"),
    (Occasion.CLOSING_SOON, ""): _contents("amount left deadline"),
    (Occasion.PAID, ""): _contents("amount paid"),
    (Occasion.EXPIRED, ""): _contents("closed contact", "why"),
    (Occasion.REINSTATED, ""): _contents("why deadline", "contact"),
    (Occasion.REINSTATED, "paid"): _contents("why", "contact"),
    (Occasion.REFUNDED, ""): _contents("amount why contact"),
    (Occasion.PAYMENT_WINDOW_MOVED, ""): _contents("why deadline"),
}
