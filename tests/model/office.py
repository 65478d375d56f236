"""Runs a people file through the rules, moment by moment, and says what becomes of each person."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.model import notice
from tests.model.notice import CONFIRMATION, PAYMENT, PRE_REGISTRATION, REMINDERS, end_of_the_third_day
from tests.model.registration import Desks, No, Registration

WITHOUT_REGISTRATION = {"approve": "not-confirmed", "order": "not-approved", "pay": "gateway-refused"}
CHANNELS = ("sms", "email")
LOST_MAILBOXES = ("gone+", "gone-full+", "nobody+")
LOST_NUMBERS = {"1990000": "undelivered", "1990001": "expired", "1990002": "undelivered"}


@dataclass
class Predicted:
    """What the model says of one person."""

    person: str
    state: str = "refused"
    paid_fen: int = 0
    refunded_fen: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)
    messages: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(occasion, channel, state) → how many"""
    told: list[tuple[str, datetime]] = field(default_factory=list)


@dataclass
class Someone:
    data: dict[str, Any]
    registrations: list[Registration] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)

    @property
    def now(self) -> Registration | None:
        return self.registrations[-1] if self.registrations else None


Moment = tuple[datetime, int, int]


def predict(lines: Iterable[str], until: Moment | None = None) -> dict[str, Predicted]:
    """What becomes of everybody in this file. Only those who share an identity meet; the world meets everybody.

    `until` (moment, line, number of a step): what everybody is before that step, when its moment has come.
    """
    groups: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    world: list[tuple[int, dict[str, Any]]] = []
    humans: dict[str, str] = {}
    for number, line in enumerate(lines):
        data = json.loads(line) if line.strip() else {}
        if "world" in data:
            world.append((number, data))
        elif "person" in data:
            other = data.get("same_person_as", data["person"])
            humans[data["person"]] = humans.get(other, other)
            groups.setdefault(humans[data["person"]], []).append((number, data))
    found: dict[str, Predicted] = {}
    for group in groups.values():
        found.update(Office([*group, *world]).run(until))
    return found


class Office:
    """Those who share one identity, and the world around them."""

    def __init__(self, lines: Iterable[tuple[int, dict[str, Any]]]) -> None:
        self.people: dict[str, Someone] = {}
        self.desks = Desks()
        self.agenda: list[tuple[datetime, int, int, str, Any]] = []
        for number, data in lines:
            if "world" in data:
                for index, event in enumerate(data["world"]):
                    self.agenda.append((_moment(event["at"]), number, index, "world", event))
                continue
            self.people[data["person"]] = Someone(data)
            for index, step in enumerate(data["steps"]):
                self.agenda.append((_moment(step["at"]), number, index, data["person"], step))
        self.agenda.sort(key=lambda one: one[:3])

    def run(self, until: Moment | None = None) -> dict[str, Predicted]:
        last = PAYMENT[0]
        for moment, number, index, who, what in self.agenda:
            if until is not None and (moment, number, index) >= until:
                break
            self._time_passes(last, moment)
            last = moment
            if who == "world":
                self._world(what)
            else:
                self._step(self.people[who], index, moment, what)
        end = max([PAYMENT[1], *(_closes(one) for one in self._all())])
        self._time_passes(last, end if until is None else until[0])
        return {name: self._predict(someone) for name, someone in self.people.items()}

    # What time does

    def _time_passes(self, since: datetime, until: datetime) -> None:
        stops = {at for one in self._all() for at in (*_reminders(one), _closes(one)) if at <= until}
        stops |= {
            deadline
            for one in self._all()
            if one.is_waiting_for_the_desk and (deadline := one.deadline()) <= until
        }
        stops |= {o.heard_at for one in self._all() for o in one.orders if o.heard_at and o.heard_at <= until}
        for at in sorted(stops):
            for one in self._all():
                one.hear_what_is_due(at)
                if one.is_waiting_for_the_desk and one.deadline() <= at:
                    one.lapse(at)
                if at in _reminders(one) and at not in one.reminded:
                    one.reminded.add(at)
                    one.remind(at)
                if at == _closes(one):
                    one.close(at)

    def _all(self) -> Iterator[Registration]:
        for someone in self.people.values():
            yield from someone.registrations

    def _world(self, event: dict[str, Any]) -> None:
        if event["do"] == "revive":
            someone = self.people.get(event["person"])
            if someone is not None and someone.now is not None:
                at = _moment(event["at"])
                someone.now.revive(
                    at, _moment(event["closes"]) if "closes" in event else end_of_the_third_day(at)
                )
            return
        window, _, desk = str(event.get("window", "")).partition(":")
        if window == "payment":
            self._move_payment(_moment(event["at"]), desk or None, _moment(event["closes"]))
        site = event.get("site") or (desk if window == "confirmation" else "")
        if site not in self.desks.hours:
            return
        before = self.desks.hours[site]
        opens = _moment(event["opens"]) if "opens" in event else (before or CONFIRMATION)[0]
        self.desks.hours[site] = (opens, _moment(event["closes"]))
        for one in self._all():
            if one.site == site and one.is_waiting_for_the_desk:
                one.tell("desk-window-moved", _moment(event["at"]), _moment(event["closes"]))

    def _move_payment(self, at: datetime, desk: str | None, closes: datetime) -> None:
        for site in [desk] if desk else list(self.desks.payment):
            self.desks.payment[site] = max(self.desks.payment[site], closes)
        for one in self._all():
            if desk in (None, one.site):
                one.move_close(at, closes)

    # What people do

    def _step(self, someone: Someone, index: int, at: datetime, step: dict[str, Any]) -> None:
        try:
            if step["do"] == "pre-register":
                self._pre_register(someone, at, step)
            elif someone.now is None:
                raise No(WITHOUT_REGISTRATION.get(step["do"], "not-allowed"))
            else:
                _act(someone.now, at, step)
        except No as no:
            someone.refused.append((index, no.code))

    def _pre_register(self, someone: Someone, at: datetime, step: dict[str, Any]) -> None:
        chosen = {**someone.data, **step}
        if at < PRE_REGISTRATION[0]:
            raise No("window-not-open")
        if at >= PRE_REGISTRATION[1]:
            raise No("window-closed")
        if is_invalid(chosen):
            raise No("invalid")
        if at >= self.desks.closes(chosen["site"]):
            raise No("desk-closed")
        if any(one.state not in ("withdrawn", "lapsed") for one in self._all()):
            raise No("already-registered")
        made = Registration(self.desks, chosen["site"], chosen["specialty"], chosen["subjects"], at)
        made.tell("pre-registered", at, made.deadline())
        someone.registrations.append(made)

    def _predict(self, someone: Someone) -> Predicted:
        predicted = Predicted(someone.data["person"], refused=someone.refused)
        if someone.now is not None:
            predicted.state = someone.now.outcome
            predicted.paid_fen = sum(one.paid_fen for one in someone.registrations)
            predicted.refunded_fen = sum(one.refunded_fen for one in someone.registrations)
        for one in someone.registrations:
            for occasion, at, deadline in one.told:
                predicted.told.append((occasion, at))
                for channel in CHANNELS:
                    state = _becomes(one, occasion, at, deadline, channel)
                    if state == "delivered":
                        state = _arrives(someone.data, channel)
                    predicted.messages[occasion, channel, state] += 1
        return predicted


def _closes(one: Registration) -> datetime:
    return one.pays_until or one.desks.payment_closes(one.site)


def _reminders(one: Registration) -> set[datetime]:
    """Of one's own close; a reminder whose moment lies before that close was set is none."""
    return {at for offset in REMINDERS if (at := _closes(one) - offset) >= one.pays_since}


# What waits for the morning is not said any more once one of these was said after it.
DONE_AT_THE_DESK = {"confirmed", "rejected", "lapsed", "withdrawn"}
TAKEN_BACK = {"returned", "rejected"}
OVERTAKEN_BY = {
    "pre-registered": DONE_AT_THE_DESK | {"amended"},
    "amended": DONE_AT_THE_DESK | {"amended"},
    "returned": DONE_AT_THE_DESK | {"returned"},
    "desk-window-moved": DONE_AT_THE_DESK | {"desk-window-moved"},
    "confirmed": TAKEN_BACK,
    "approved": TAKEN_BACK,
    "due": TAKEN_BACK,
    "rejected": {"returned"},
    "closing-soon": {"paid", "rejected"},
}


def _becomes(one: Registration, occasion: str, at: datetime, deadline: datetime | None, channel: str) -> str:
    """Everything goes out, but for an SMS that waits for the morning and is overtaken by then."""
    if channel != "sms" or not notice.is_night(at):
        return "delivered"
    morning = notice.morning_after(at)
    if deadline is not None and deadline <= morning:
        return "delivered"
    later = OVERTAKEN_BY.get(occasion, set())
    return (
        "superseded"
        if any(what in later and at < when <= morning for what, when, _ in one.told)
        else "delivered"
    )


def _arrives(data: dict[str, Any], channel: str) -> str:
    """What becomes of a message to this number or mailbox of the people files: some are dead, full, or silent for ever."""
    if channel == "email":
        return "undelivered" if str(data.get("email", "")).startswith(LOST_MAILBOXES) else "delivered"
    return LOST_NUMBERS.get(str(data.get("phone", ""))[:7], "delivered")


def _act(one: Registration, at: datetime, step: dict[str, Any]) -> None:
    one.hear_what_is_due(at)
    desk = step.get("desk", one.site)
    match step["do"]:
        case "amend":
            if is_invalid(step):
                raise No("invalid")
            one.amend(at, step)
        case "withdraw":
            one.withdraw(at)
        case "confirm":
            complete = (
                not step.get("missing") and step.get("identity_seen", True) and step.get("stamped", True)
            )
            one.confirm(at, desk, step.get("form_version"), complete)
        case "return":
            until = _moment(step["fix_until"]) if step.get("fix_until") else None
            one.send_back(at, step.get("level", "desk"), desk, until)
        case "reject":
            one.reject(at, step.get("level", "desk"), desk)
        case "approve":
            one.approve(at, step["level"])
        case "order":
            one.order(at, step.get("channel", "wechat"))
        case "pay":
            one.pay(at, step.get("order", -1), _first_call(step.get("callback", 1)))


def _first_call(callback: Any) -> float | None:
    """Seconds until the gateway first calls back; None for never."""
    if callback in ("never", []):
        return None
    return float(min(callback)) if isinstance(callback, list) else float(callback)


def is_invalid(fields: dict[str, Any]) -> bool:
    """The few kinds of wrong fields that the people files of the tests try; rules.md §3 has all of them."""
    phone, number = fields.get("phone"), fields.get("id_number")
    if phone is not None and not (
        len(phone) == 11 and phone.isdigit() and phone[0] == "1" and phone[1] in "3456789"
    ):
        return True
    if number is not None and not _is_id_number(number):
        return True
    if not fields.get("name", "given").strip() or "@" not in fields.get("email", "given@"):
        return True
    if fields.get("employer", "").endswith(("科", "科室", "病区", "护理部")):
        return True
    if "site" in fields and fields["site"] not in notice.DESKS:
        return True
    subjects = fields.get("subjects")
    return subjects is not None and (
        not subjects or len(set(subjects)) < len(subjects) or not set(subjects) <= {1, 2, 3, 4}
    )


def _is_id_number(number: str) -> bool:
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    if len(number) != 18 or not number[:17].isdigit():
        return False
    total = sum(int(digit) * weight for digit, weight in zip(number, weights, strict=False))
    return "10X98765432"[total % 11] == number[17]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
