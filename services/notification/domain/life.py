"""What may become of a message, and when it is tried again.

Set-based statements take their predicates from `NEXT` through `sources_of`; a test holds both to the same verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from services.notification.domain.occasions import Occasion


class State(StrEnum):
    CREATED = "created"  # waits for its contact, its hour or its next try
    SENDING = "sending"  # claimed; its text is on record; may be on its way
    ACCEPTED = "accepted"  # the carrier has it
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    EXPIRED = "expired"  # it ran out: no receipt came, or what it asks for was over before it could be sent
    SUPERSEDED = "superseded"  # no longer true when its turn came


NEXT: Final[Mapping[State, frozenset[State]]] = {
    # A receipt may come for a message that waits for another try, because the first one's answer was lost.
    State.CREATED: frozenset(
        {State.SENDING, State.SUPERSEDED, State.EXPIRED, State.DELIVERED, State.UNDELIVERED}
    ),
    # Itself: the process that had claimed it died, another took over.
    State.SENDING: frozenset(
        {
            State.SENDING,
            State.CREATED,
            State.ACCEPTED,
            State.DELIVERED,
            State.UNDELIVERED,
            State.EXPIRED,
            State.SUPERSEDED,
        }
    ),
    State.ACCEPTED: frozenset({State.DELIVERED, State.UNDELIVERED, State.EXPIRED}),
    # A receipt that comes after all still says what became of it.
    State.EXPIRED: frozenset({State.DELIVERED, State.UNDELIVERED}),
    State.DELIVERED: frozenset(),
    State.UNDELIVERED: frozenset(),
    State.SUPERSEDED: frozenset(),
}


class NotAllowed(Exception):
    """A message cannot go from the one state to the other."""


def move(state: State, to: State) -> State:
    """The new state. Raises NotAllowed."""
    if to not in NEXT[state]:
        raise NotAllowed(f"{state} -> {to}")
    return to


def sources_of(to: State) -> frozenset[State]:
    """The states from which a message may become `to`."""
    return frozenset(state for state, following in NEXT.items() if to in following)


class Standing(StrEnum):
    """What is known of somebody's payment here: enough not to ask for money that came."""

    NONE = "none"
    AWAITING = "awaiting"
    PAID = "paid"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


# Said only as long as it is true. Everything else tells what happened, and that stays true.
_OWING: Final = frozenset({Standing.NONE, Standing.AWAITING})
HOLDS_WHILE: Final[Mapping[Occasion, frozenset[Standing]]] = {
    Occasion.DUE: _OWING,
    Occasion.CLOSING_SOON: _OWING,
    Occasion.PAYMENT_WINDOW_MOVED: _OWING,
    Occasion.EXPIRED: frozenset({Standing.NONE, Standing.EXPIRED, Standing.CANCELLED}),
    Occasion.REINSTATED: _OWING | {Standing.PAID},
}
# Whoever was confirmed has done what the desk asked for; who is out of it need not.
_DONE_AT_THE_DESK: Final = frozenset(
    {Occasion.CONFIRMED, Occasion.REJECTED, Occasion.LAPSED, Occasion.WITHDRAWN}
)
# What makes an earlier message untrue: the same person is told of something later.
OVERTAKEN_BY: Final[Mapping[Occasion, frozenset[Occasion]]] = {
    # They ask to the desk with a form: after an amendment that form is void, and the desk perhaps another one.
    Occasion.PRE_REGISTERED: _DONE_AT_THE_DESK | {Occasion.AMENDED},
    Occasion.AMENDED: _DONE_AT_THE_DESK | {Occasion.AMENDED},
    # A return takes a decision back, a rejection too (decisions/0014), and nothing is owed before the next approval.
    Occasion.CONFIRMED: frozenset({Occasion.RETURNED, Occasion.REJECTED}),
    Occasion.APPROVED: frozenset({Occasion.RETURNED, Occasion.REJECTED}),
    Occasion.REJECTED: frozenset({Occasion.RETURNED}),
    Occasion.DUE: frozenset({Occasion.RETURNED}),
    Occasion.RETURNED: _DONE_AT_THE_DESK | {Occasion.RETURNED},
    Occasion.DESK_WINDOW_MOVED: _DONE_AT_THE_DESK | {Occasion.DESK_WINDOW_MOVED},
    # An extension has reminders of its own, and of several that wait only the latest is worth hearing.
    Occasion.CLOSING_SOON: frozenset(
        {Occasion.CLOSING_SOON, Occasion.PAYMENT_WINDOW_MOVED, Occasion.REINSTATED}
    ),
    Occasion.PAYMENT_WINDOW_MOVED: frozenset({Occasion.PAYMENT_WINDOW_MOVED}),
    Occasion.EXPIRED: frozenset({Occasion.REINSTATED}),
    Occasion.LAPSED: frozenset({Occasion.REINSTATED}),
    Occasion.REINSTATED: frozenset({Occasion.EXPIRED}),
}
# These ask for something and say nothing else: once its moment is over they must not go out.
ASKS: Final = frozenset(
    {
        Occasion.RETURNED,
        Occasion.DUE,
        Occasion.CLOSING_SOON,
        Occasion.DESK_WINDOW_MOVED,
        Occasion.PAYMENT_WINDOW_MOVED,
    }
)
# These name the close of payment beside what they tell: sent late, they name the one that counts by then.
NAMES_THE_CLOSE: Final = frozenset({Occasion.DUE, Occasion.APPROVED})


def still_holds(occasion: Occasion, standing: Standing) -> bool:
    """Whether a message is still true of somebody of this standing."""
    allowed = HOLDS_WHILE.get(occasion)
    return allowed is None or standing in allowed


def end_unsent(
    occasion: Occasion,
    standing: Standing,
    *,
    overtaken: bool,
    deadline: datetime | None,
    at: datetime,
) -> State | None:
    """How a message ends whose turn has come but that must not go out any more; None: it goes out."""
    if overtaken or not still_holds(occasion, standing):
        return State.SUPERSEDED
    if occasion in ASKS and deadline is not None and deadline <= at:
        return State.EXPIRED
    return None


# No receipt: the carrier is asked so long after it took the message, each time once; then the message has run out.
ASK_AFTER: Final = (
    timedelta(minutes=15),
    timedelta(hours=1),
    timedelta(hours=6),
    timedelta(hours=24),
    timedelta(hours=71),
)
RUNS_OUT_AFTER: Final = timedelta(hours=72)
# After a restore nobody knows when a carrier got its last message. So long after, each knows of all that it ever will.
KNOWN_BY_THEN: Final = timedelta(minutes=10)
NO_RECEIPT: Final = "no-receipt"
TOO_LATE: Final = "too-late"  # what it asks for was over before it could be sent
ERASED: Final = "erased"  # whom it is about asked us to forget how to reach them
RAN_OUT: Final = frozenset(
    {NO_RECEIPT, TOO_LATE}
)  # the reasons of `expired`; any other is one of `undelivered`


class Failure(StrEnum):
    """Why a try came to nothing."""

    REFUSED = "refused"  # this message will never be carried
    BUSY = "busy"  # not now: over a limit, throttled, a fault of the carrier's
    UNREACHED = "unreached"  # it surely did not arrive
    AMBIGUOUS = "ambiguous"  # no answer: the next try, with the same reference, may be a second copy


def _minutes(*values: float) -> tuple[timedelta, ...]:
    return tuple(timedelta(minutes=value) for value in values)


# Pause before the next try by the number of tries so far; after the last one the message is given up.
_PAUSES: Final[Mapping[Failure, tuple[timedelta, ...]]] = {
    Failure.REFUSED: (),
    Failure.BUSY: _minutes(1, 2, 5, 10, 30, 60, 120, 240, 480, 960, 1440),
    Failure.UNREACHED: _minutes(0.5, 1, 2, 5, 10, 30, 60, 120, 240, 480, 960, 1440),
    Failure.AMBIGUOUS: _minutes(1, 5, 15, 60, 240, 960),
}

LEASE: Final = timedelta(minutes=2)  # longer than any batch takes; then it is taken over
CHANNEL_PAUSE: Final = timedelta(seconds=30)  # nothing of a whole batch went: the channel is down


def next_try(failure: Failure, tries: int, at: datetime) -> datetime | None:
    """When to try again after `tries` tries, the last of which failed at `at`; None: give up."""
    pauses = _PAUSES[failure]
    return at + pauses[tries - 1] if tries <= len(pauses) else None


# What carriers say about numbers and mailboxes, as one word of ours each; any other refusal is "refused".
_WORDS: Final[Mapping[str, str]] = {
    "isv.MOBILE_NUMBER_ILLEGAL": "bad-number",
    "isv.MOBILE_COUNT_OVER_LIMIT": "bad-number",
    "isv.TEMPLATE_MISSING_PARAMETERS": "template-refused",
    "isv.SMS_TEMPLATE_ILLEGAL": "template-refused",
    "isv.SMS_SIGNATURE_ILLEGAL": "template-refused",
    "isv.BLACK_KEY_CONTROL_LIMIT": "template-refused",
    "MOBILE_NOT_ON_SERVICE": "number-not-in-use",
    "MK:0001": "number-not-in-use",
    "MOBILE_IN_BLACK": "number-blocked",
    "550": "mailbox-unknown",
    "551": "mailbox-unknown",
    "553": "mailbox-unknown",
    "552": "mailbox-full",
}
GIVEN_UP: Final = "given-up"


def reason_word(code: str) -> str:
    """The coded reason that may stand on the wire for a carrier's final no."""
    return _WORDS.get(code) or _WORDS.get(code[:3]) or "refused"
