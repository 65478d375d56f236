"""What two people of the office decide together: another close of the payment window, or that one forfeiture is lifted.

One asks, another approves. While it is being decided nobody whose close it would put off is forfeited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from services.payment.domain.refusals import PaymentRuleBroken


class Kind(StrEnum):
    EXTEND_PAYMENT = "extend-payment"
    REVIVE = "revive"


class Word(StrEnum):
    """What the second person said."""

    APPROVED = "approved"
    REJECTED = "rejected"


class Stage(StrEnum):
    """How far a decision has come."""

    ASKED = "asked"
    OVERTAKEN = "overtaken"  # nobody decided before its own new close came: it can change nothing any more
    REJECTED = "rejected"
    UNDER_WAY = "under-way"  # approved, and not yet done to everybody
    DONE = "done"


class OwnDecision(PaymentRuleBroken):
    """Nobody decides alone."""


class DecidedAlready(PaymentRuleBroken):
    """It was approved or rejected before."""


class CloseNotAhead(PaymentRuleBroken):
    """The close that is asked for has come already, or lies before payment opens."""


class NothingMoves(PaymentRuleBroken):
    """The window closes then as it is."""


class NotForfeited(PaymentRuleBroken):
    """Only a forfeiture can be lifted."""


class DecisionPending(PaymentRuleBroken):
    """Another one about the same people waits to be decided or carried out."""

    def __init__(self, decision_id: UUID) -> None:
        super().__init__(str(decision_id))
        self.decision_id = decision_id


class TooManyWouldFall(PaymentRuleBroken):
    """An earlier close that would cost more people their time to pay than an office may decide by mistake."""

    def __init__(self, figures: Figures) -> None:
        super().__init__(f"{figures.would_fall} of {figures.approved}")
        self.figures = figures


class DeskUnknown(PaymentRuleBroken):
    """A decision about one desk that would pass over people of whom it is not known whether they are of that desk."""

    def __init__(self, figures: Figures) -> None:
        super().__init__(f"{figures.without_site} without a desk")
        self.figures = figures


@dataclass(frozen=True, slots=True)
class Figures:
    """Whom a decision concerns, as counted at one moment: a preview for people, and what the events say of it."""

    moved: int  # who owes and gets another close, held ones included
    reinstated: int  # whose forfeiture is lifted
    would_fall: int  # who owes and would have less time than was said
    approved: int  # everybody in its scope who was approved and still is
    paid: int
    refunded: int  # of the reinstated: whose money went back or is on its way back; they pay anew
    orders_under_way: int
    # Whom it would concern but for their desk, approved before desks were known here: one about a desk is refused.
    without_site: int

    @property
    def told(self) -> int:
        """Whom a message goes out to, by SMS and by email each."""
        return self.moved + self.reinstated

    def as_facts(self) -> dict[str, int]:
        return {**asdict(self), "told": self.told}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Figures:
        return cls(**{name: int(facts[name]) for name in cls.__slots__})


def check_desks(figures: Figures) -> None:
    """Raises DeskUnknown. Whoever would be moved if they are of that desk must not be forgotten for want of a note of it."""
    if figures.without_site:
        raise DeskUnknown(figures)


def check_share(figures: Figures, per_mille: int) -> None:
    """Raises TooManyWouldFall. A close is put forward for the few who can still be reached, or not at all."""
    if figures.would_fall * 1000 > figures.approved * per_mille:
        raise TooManyWouldFall(figures)


@dataclass(frozen=True, slots=True)
class Decision:
    """What was asked for, by whom, and what became of it. Nothing of it is ever changed: each step adds a fact."""

    decision_id: UUID
    kind: Kind
    site_id: str | None  # None: every desk
    registration_id: UUID | None
    closes_at: datetime  # enforced
    told_closes_at: datetime
    earlier: bool
    reason_code: str
    asked_by: str
    asked_at: datetime
    figures: Figures  # as counted when it was asked for
    word: Word | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None
    decided_on: Figures | None = None  # as counted when it was decided
    done_at: datetime | None = None
    done_moved: int | None = None
    done_reinstated: int | None = None

    def stage(self, at: datetime) -> Stage:
        if self.word is Word.REJECTED:
            return Stage.REJECTED
        if self.done_at is not None:
            return Stage.DONE
        if self.word is Word.APPROVED:
            return Stage.UNDER_WAY
        return Stage.ASKED if at < self.closes_at else Stage.OVERTAKEN

    def check_verdict(self, by: str, at: datetime, word: Word) -> None:
        """Whether this person may say this now."""
        if by == self.asked_by:
            raise OwnDecision
        if self.word is not None:
            raise DecidedAlready
        # What nobody decided in time may still be put out of the way, and nothing else.
        if word is Word.APPROVED and self.stage(at) is Stage.OVERTAKEN:
            raise CloseNotAhead

    def concerns_as(self, other_kind: Kind, site_id: str | None, registration_id: UUID | None) -> bool:
        """Whether another one about these would be about the same people."""
        if self.kind is not other_kind:
            return False
        if self.kind is Kind.REVIVE:
            return self.registration_id == registration_id
        return self.site_id is None or site_id is None or self.site_id == site_id


REVIVED_FOR: Final = timedelta(days=3)


def close_of_a_revival(at: datetime, zone: ZoneInfo) -> datetime:
    """Until when somebody may pay whose forfeiture is lifted, if nobody says: to the end of the third day after."""
    day = (at + REVIVED_FOR).astimezone(zone).date() + timedelta(days=1)
    return datetime.combine(day, time(), zone)
