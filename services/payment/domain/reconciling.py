"""When a gateway's bill is fetched, when a day without one is over, and what a difference may be explained by.

The days are the gateways' own: Beijing's, whatever the zone of the cycle.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from enum import StrEnum
from typing import Final

BEIJING: Final = timezone(timedelta(hours=8))
FETCH_AT: Final = time(10, 30)
"""Gateways make the bill of a day by ten on the next."""
KEPT: Final = timedelta(days=90)
"""So long after the close bills are still asked for: refunds take days, and gateways keep bills no longer."""
NEAR_MIDNIGHT: Final = timedelta(minutes=5)
"""Paid so shortly before midnight, and the gateway may book it on the next day."""
REFUND_TAKES: Final = timedelta(days=7)
"""A refund that is in the bill and that the gateway has not told us to be done by then is a break."""
LOOKED_AT_AGAIN: Final = (1, 2, 3, 7)
"""So many days after its bill was due it is fetched again: gateways correct what they have published."""
_WAITS: Final = tuple(timedelta(minutes=m) for m in (30, 30, 60, 120, 240))


class Explanation(StrEnum):
    """Why a line, or a posting without one, is no break."""

    GOES_BACK = "goes-back"  # it paid for nothing and is due back, or went back
    BOOKED_NEXT_DAY = "booked-next-day"  # paid at the very end of a day, in the bill of the next
    NOT_YET_BILLED = "not-yet-billed"  # the same, and the next day's bill is not here; or that of the day a refund was asked for
    REFUND_UNDER_WAY = "refund-under-way"  # the gateway took it and has not yet said that it is done

    @property
    def text(self) -> str:
        return _TEXTS[self]


_TEXTS: Final = {
    Explanation.GOES_BACK: "已入账，属于应退款项（迟缴、重复、金额不符或审核未通过），不计入报名费",
    Explanation.BOOKED_NEXT_DAY: "临近零点支付，支付渠道记在次日账单",
    Explanation.NOT_YET_BILLED: "临近零点支付，等待次日账单；或退款等待其发起日的账单",
    Explanation.REFUND_UNDER_WAY: "退款已由支付渠道受理，尚未回报完成",
}


def day_of(moment: datetime) -> date:
    """The gateways' day of a moment: half-open, midnight in Beijing begins the next."""
    return moment.astimezone(BEIJING).date()


def begins_at(day: date) -> datetime:
    return datetime.combine(day, time(), BEIJING)


def fetched_from(day: date) -> datetime:
    """From when on the bill of a day is asked for."""
    return datetime.combine(day + timedelta(days=1), FETCH_AT, BEIJING)


def looked_at_again(day: date, at: datetime) -> datetime | None:
    """When the bill of a day that is here is fetched the next time, if it is."""
    moments = (fetched_from(day + timedelta(days=days)) for days in LOOKED_AT_AGAIN)
    return next((moment for moment in moments if moment > at), None)


def none_is_final(day: date, at: datetime) -> bool:
    """Whether "there is none" is the gateway's last word: some say the same of a bill that is not made yet."""
    return at >= fetched_from(day + timedelta(days=1))


def days_due(opens: datetime, closes: datetime, at: datetime, settled: Collection[date]) -> list[date]:
    """The days whose bill should be here by now and is not, oldest first; those missed while nobody ran among them."""
    day, last = day_of(opens), day_of(closes + KEPT)
    due = []
    while day <= last and fetched_from(day) <= at:
        if day not in settled:
            due.append(day)
        day += timedelta(days=1)
    return due


def next_fetch(opens: datetime, closes: datetime, at: datetime) -> datetime | None:
    """When the next day's bill is asked for, or None when the last was."""
    today = day_of(at)
    day = max(day_of(opens), today - timedelta(days=1))
    if fetched_from(day) <= at:
        day += timedelta(days=1)
    return fetched_from(day) if day <= day_of(closes + KEPT) else None


def ask_again_after(attempts: int) -> timedelta:
    """How long a day waits that has been asked for so many times without an end."""
    return _WAITS[min(max(attempts, 1), len(_WAITS)) - 1]


@dataclass(frozen=True, slots=True)
class Balance:
    """Money of a channel, of a day (that on which it was paid), or of all. `owed` is what those who are paid owed."""

    received: int = 0
    fees: int = 0
    refunded: int = 0
    due: int = 0
    held: int = 0
    owed: int = 0

    @property
    def closes(self) -> bool:
        """received = fees of the paid + refunded + due + held, to the fen. The fees are counted twice, from the book
        and from what the paid owed: neither follows from the other.
        """
        return (
            self.received == self.owed + self.refunded + self.due + self.held
            and self.fees == self.owed
            and min(self.refunded, self.due, self.held) >= 0
        )

    def __add__(self, other: Balance) -> Balance:
        return Balance(
            self.received + other.received,
            self.fees + other.fees,
            self.refunded + other.refunded,
            self.due + other.due,
            self.held + other.held,
            self.owed + other.owed,
        )
