"""From what happened to what is told: the occasion, the facts it needs, and until when it must be known.

Facts are ids, codes, moments and amounts; they become words only when a message is sent (words.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import TypeAlias, TypeVar

from contracts import confirmation, payment, registration
from contracts.cycle import Cycle
from contracts.event import Event
from contracts.reasons import ReinstatementCause
from services.notification.domain.occasions import Occasion

Fact: TypeAlias = "str | int | list[str]"
Facts: TypeAlias = Mapping[str, Fact]
E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Told:
    """One thing to be told to one person."""

    occasion: Occasion
    facts: Facts
    variant: str = ""
    deadline: datetime | None = None


def once_each(events: Iterable[E], *fields: str, say: Callable[[E], Told]) -> list[Told]:
    """What is told of each event; of those that are the same in these fields, which are all it depends on, it is one object."""
    said: dict[object, Told] = {}
    alike = attrgetter(*fields)
    return [said.get(same := alike(event)) or said.setdefault(same, say(event)) for event in events]


@dataclass(frozen=True, slots=True)
class Hours:
    """When a desk confirms, as people are told."""

    opens_at: datetime
    closes_at: datetime


class Desks:
    """The desks' hours: what the office set since, else what the cycle says, else none (undated)."""

    def __init__(self, cycle: Cycle, moved: Mapping[str, Hours]) -> None:
        self._cycle, self._moved = cycle, moved

    def hours(self, site_id: str) -> Hours | None:
        """Raises KeyError for a desk the cycle does not have."""
        window = self._cycle.site(site_id).window
        if site_id in self._moved:
            return self._moved[site_id]
        return Hours(window.opens, window.told_closes) if window else None

    def last_hour(self, site_id: str | None) -> datetime:
        """Until when somebody of this desk can be confirmed; the overall close if nobody named the desk's."""
        hours = self.hours(site_id) if site_id is not None else None
        return hours.closes_at if hours else self._cycle.windows.confirmation.told_closes


def pre_registered(event: registration.PreRegistered, desks: Desks, cycle: Cycle) -> Told:
    return _go_to_desk(Occasion.PRE_REGISTERED, event.site_id, event.form_version, desks, cycle)


def amended(event: registration.Amended, desks: Desks, cycle: Cycle, confirm_by: datetime | None) -> Told:
    """`confirm_by`: the candidate's own deadline after a return, if one was set."""
    return _go_to_desk(Occasion.AMENDED, event.site_id, event.form_version, desks, cycle, confirm_by)


def _go_to_desk(
    occasion: Occasion,
    site_id: str,
    form_version: int,
    desks: Desks,
    cycle: Cycle,
    confirm_by: datetime | None = None,
) -> Told:
    hours = desks.hours(site_id)
    facts: dict[str, Fact] = {"site_id": site_id, "form_version": form_version}
    if hours is None:
        overall = confirm_by or cycle.windows.confirmation.told_closes
        return Told(occasion, {**facts, "closes_at": overall.isoformat()}, "undated", overall)
    closes_at = confirm_by or hours.closes_at
    facts |= {"opens_at": hours.opens_at.isoformat(), "closes_at": closes_at.isoformat()}
    return Told(occasion, facts, deadline=closes_at)


def withdrawn(_event: registration.Withdrawn, at: datetime, cycle: Cycle) -> Told:
    return _perhaps_again(Occasion.WITHDRAWN, {}, at, cycle)


def lapsed(event: confirmation.Lapsed, at: datetime, cycle: Cycle) -> Told:
    return _perhaps_again(Occasion.LAPSED, {"closed_at": event.closed_at.isoformat()}, at, cycle)


def _perhaps_again(occasion: Occasion, facts: Facts, at: datetime, cycle: Cycle) -> Told:
    """Whoever withdrew or lapsed may pre-register again while that window is open."""
    until = cycle.windows.pre_registration.told_closes
    if not cycle.windows.pre_registration.is_open(at) or at >= until:
        return Told(occasion, facts)
    return Told(occasion, {**facts, "reopens_until": until.isoformat()}, "again", until)


def confirmed(event: confirmation.Confirmed, cycle: Cycle) -> Told:
    return Told(
        Occasion.CONFIRMED,
        {"site_id": event.site_id, "form_version": event.form_version, **_payment_window(cycle)},
    )


def returned(event: confirmation.Returned, site_id: str | None, desks: Desks) -> Told:
    """`site_id`: the desk of this candidate, as far as it is known here."""
    until = event.fix_until or desks.last_hour(site_id)
    facts: dict[str, Fact] = {
        "level": event.level,
        "reason_codes": [str(code) for code in event.reason_codes],
        "closes_at": until.isoformat(),
    }
    if site_id is not None:
        facts["site_id"] = site_id
    return Told(Occasion.RETURNED, facts, deadline=until)


def approved(event: confirmation.Approved, cycle: Cycle) -> Told:
    closes_at = event.told_closes_at or cycle.windows.payment.told_closes
    facts = {**_payment_window(cycle), "closes_at": closes_at.isoformat()}
    return Told(Occasion.APPROVED, facts, deadline=closes_at)


def _payment_window(cycle: Cycle) -> dict[str, Fact]:
    window = cycle.windows.payment
    return {"opens_at": window.opens.isoformat(), "closes_at": window.told_closes.isoformat()}


def rejected(event: confirmation.Rejected) -> Told:
    codes: list[str] = [str(code) for code in event.reason_codes]
    return Told(Occasion.REJECTED, {"level": event.level, "reason_codes": codes})


def desk_window_moved(event: confirmation.WindowMoved) -> Told:
    facts: dict[str, Fact] = {
        "site_id": event.site_id,
        "closes_at": event.closes_at.isoformat(),
        "why": str(event.reason_code),
    }
    if event.opens_at is None:
        return Told(Occasion.DESK_WINDOW_MOVED, facts, "close", event.closes_at)
    facts["opens_at"] = event.opens_at.isoformat()
    return Told(Occasion.DESK_WINDOW_MOVED, facts, deadline=event.closes_at)


def told_close(closes_at: datetime, cycle: Cycle) -> datetime:
    """The close of payment that people are told: never the enforced one where the two differ."""
    window = cycle.windows.payment
    return window.told_closes if closes_at == window.closes else closes_at


def due(event: payment.Due, cycle: Cycle) -> Told:
    closes_at = told_close(event.closes_at, cycle)
    facts: Facts = {
        "amount_fen": event.amount_fen,
        "opens_at": event.opens_at.isoformat(),
        "closes_at": closes_at.isoformat(),
    }
    return Told(Occasion.DUE, facts, deadline=closes_at)


def closing_soon(event: payment.ClosingSoon, cycle: Cycle) -> Told:
    closes_at = told_close(event.closes_at, cycle)
    facts: Facts = {
        "amount_fen": event.amount_fen,
        "offset": event.offset,
        "closes_at": closes_at.isoformat(),
    }
    return Told(Occasion.CLOSING_SOON, facts, deadline=closes_at)


def once_more(
    occasion: Occasion, facts: Facts, variant: str, deadline: datetime | None, at: datetime
) -> Told:
    """The same, said later: what is left until the deadline is less by then."""
    if "offset" in facts and deadline is not None:
        facts = {**facts, "offset": int((deadline - at).total_seconds())}
    return Told(occasion, facts, variant, deadline)


def paid(event: payment.Paid) -> Told:
    return Told(Occasion.PAID, {"amount_fen": event.amount_fen, "paid_at": event.paid_at.isoformat()})


def expired(event: payment.Expired, cycle: Cycle) -> Told:
    # The event has the enforced close, also of a window that was moved: the grace between it and the told one is the cycle's.
    window = cycle.windows.payment
    closed_at = event.closes_at - (window.closes - window.told_closes)
    return Told(Occasion.EXPIRED, {"closed_at": closed_at.isoformat(), "why": str(event.cause)})


def reinstated(event: payment.Reinstated, cycle: Cycle) -> Told:
    if event.cause is ReinstatementCause.PAID_IN_TIME:
        return Told(Occasion.REINSTATED, {"why": str(event.cause)}, "paid")
    closes_at = told_close(event.closes_at, cycle)
    return Told(
        Occasion.REINSTATED,
        {"why": str(event.cause), "closes_at": closes_at.isoformat()},
        deadline=closes_at,
    )


def refunded(event: payment.Refunded) -> Told:
    return Told(Occasion.REFUNDED, {"amount_fen": event.amount_fen, "why": str(event.cause)})


def payment_window_moved(event: payment.WindowMoved, cycle: Cycle) -> Told:
    closes_at = told_close(event.closes_at, cycle)
    facts: Facts = {"why": str(event.reason_code), "closes_at": closes_at.isoformat()}
    return Told(Occasion.PAYMENT_WINDOW_MOVED, facts, deadline=closes_at)
