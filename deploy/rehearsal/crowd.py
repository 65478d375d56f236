"""A believable crowd, determined by its seed alone but for its first few (`cast`): when people come, what goes wrong for
some of them, how they pay.

Every person draws from a source of chance of their own, so a larger crowd begins with the same people as a smaller one.
People act on a coarse grid: quarter hours, and minutes in the last hours of payment."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from contracts.cycle import Cycle, Site, Specialty
from deploy.rehearsal.cast import around_them, cast
from deploy.rehearsal.paying import pay_story
from deploy.rehearsal.people import People, Person, Step, Verb, WorldEvent, WorldVerb
from deploy.rehearsal.timetable import Calendar

QUARTER = timedelta(minutes=15)
ALL_SUBJECTS = (1, 2, 3, 4)

WRONG_FIELDS: tuple[dict[str, Any], ...] = (
    {"phone": "12345678901"},
    {"id_number": "999001198802300017"},
    {"employer": "青屏镇中心卫生院内科"},
    {"subjects": []},
)
RETURN_REASONS = ("documents", "photo", "employer", "years")
REJECT_REASONS = ("education", "years", "specialty", "identity")


def crowd(cycle: Cycle, candidates: int, seed: int) -> People:
    """`candidates` people; a few of them appear on a second line of the file under the same identity."""
    calendar = Calendar(cycle)
    width = max(4, len(str(candidates)))
    names = [f"p{number:0{width}d}" for number in range(1, candidates + 1)]
    fixed = cast(calendar, names)
    persons = list(fixed)
    for number, name in enumerate(names[len(fixed) :], start=len(fixed) + 1):
        chance = random.Random(f"{seed}:crowd:{name}")
        other = persons[-1] if number > len(fixed) + 1 and chance.random() < 0.004 else None
        if other is not None and other.same_person_as is None:
            persons.append(_double(name, other, calendar, chance))
        else:
            persons.append(_Story(name, calendar, chance).person())
    world = [*_undated_desks(calendar), *_replays(calendar), *around_them(calendar, fixed)]
    lined = [
        Person(
            one.name,
            one.site,
            one.specialty,
            one.subjects,
            one.returning,
            one.steps,
            one.same_person_as,
            one.given,
            line,
        )
        for line, one in enumerate(persons, start=1)
    ]
    events = [
        WorldEvent(event.at, event.verb, event.fields, len(lined) + 1, index)
        for index, event in enumerate(world)
    ]
    return People(tuple(lined), tuple(events))


def _undated_desks(calendar: Calendar) -> list[WorldEvent]:
    """The employer's office names its days in the middle of the confirmation, as such offices do."""
    events = []
    for site in calendar.cycle.sites:
        if site.undated:
            opens, closes = calendar.late_window()
            fields = {
                "site": site.id,
                "opens": opens.isoformat(),
                "closes": closes.isoformat(),
                "reason": "单位人事科通知",
            }
            events.append(WorldEvent(calendar.window_named_at(), WorldVerb.SET_DESK_WINDOW, fields))
    return events


def _replays(calendar: Calendar) -> list[WorldEvent]:
    payment = calendar.cycle.windows.payment
    return [WorldEvent(payment.opens + timedelta(days=4, hours=3), WorldVerb.CALLBACK_REPLAY, {})]


def _double(name: str, other: Person, calendar: Calendar, chance: random.Random) -> Person:
    """The same human once more, hours later, perhaps at another desk: one registration per person and cycle."""
    first = next((step.at for step in other.steps if step.verb is Verb.PRE_REGISTER), calendar.opens)
    at = calendar.grid(first + timedelta(hours=chance.randint(1, 30)))
    steps = (Step(0, at, Verb.PRE_REGISTER, {}),)
    return Person(name, other.site, other.specialty, other.subjects, other.returning, steps, other.name)


class _Story:
    """One person from the first visit to the last payment. Steps are noted as they come and numbered at the end."""

    def __init__(self, name: str, calendar: Calendar, chance: random.Random) -> None:
        self.name = name
        self.calendar = calendar
        self.chance = chance
        self.cycle = calendar.cycle
        self.site: Site = calendar.site(chance)
        self.specialty: Specialty = calendar.specialty(chance)
        self.returning, self.subjects = self.choose_subjects()
        self.home = self.site
        # Of a chance of its own, so that whoever pays elsewhere lives the same life.
        self.channel = "alipay" if random.Random(f"{name}:{self.specialty.code}").random() < 0.3 else "wechat"
        self.steps: list[tuple[datetime, Verb, dict[str, Any]]] = []

    def person(self) -> Person:
        self.live()
        self.steps.sort(key=lambda step: step[0])
        steps = tuple(Step(index, at, verb, fields) for index, (at, verb, fields) in enumerate(self.steps))
        return Person(self.name, self.home.id, self.specialty.code, self.subjects, self.returning, steps)

    def happens(self, share: float) -> bool:
        return self.chance.random() < share

    def do(self, at: datetime, verb: Verb, **fields: Any) -> None:
        self.steps.append((at, verb, fields))

    def choose_subjects(self) -> tuple[bool, tuple[int, ...]]:
        if not self.happens(0.2):
            return False, ALL_SUBJECTS
        rest = sorted(self.chance.sample(ALL_SUBJECTS, self.chance.choice((1, 1, 2, 2, 3))))
        return True, tuple(rest)

    def live(self) -> None:
        if self.happens(0.006):
            self.do(self.calendar.after(self.cycle.windows.pre_registration, self.chance), Verb.PRE_REGISTER)
            return
        registered_at = self.pre_register()
        if registered_at is None:
            return
        if self.happens(0.012):
            registered_at = self.withdraw(registered_at)
            if registered_at is None:
                return
        changed_at = self.change_mind(registered_at)
        confirmed_at = self.go_to_the_desk(changed_at)
        if confirmed_at is None:
            return
        if self.happens(0.004):
            self.do(self.calendar.grid(confirmed_at + timedelta(hours=3)), Verb.AMEND, phone="13800000000")
        approved_at = self.be_reviewed(confirmed_at)
        if approved_at is not None:
            pay_story(self.cycle, self.calendar, self.chance, approved_at, self.channel, self.do)

    def pre_register(self) -> datetime | None:
        window = self.cycle.windows.pre_registration
        at = self.calendar.arrival(window, self.chance, self.calendar.last_useful(self.site))
        if self.happens(0.008):
            self.do(self.calendar.before(window, self.chance), Verb.PRE_REGISTER)
        if self.calendar.is_dead_end(self.site) and self.happens(0.06):
            return self.come_too_late_for_the_desk()
        if self.happens(0.02):
            self.do(at, Verb.PRE_REGISTER, **self.chance.choice(WRONG_FIELDS))
            at += QUARTER
        self.do(at, Verb.PRE_REGISTER)
        return at

    def come_too_late_for_the_desk(self) -> datetime | None:
        """Pre-registration still runs, this desk is already over: some choose another, some give up."""
        at = self.calendar.after_desk(self.site, self.chance)
        self.do(at, Verb.PRE_REGISTER)
        still_open = [
            site for site in self.cycle.sites if self.calendar.reachable(site, at + timedelta(hours=24))
        ]
        if not still_open or self.happens(0.4):
            return None
        self.site = self.chance.choice(still_open)
        self.do(at + QUARTER, Verb.PRE_REGISTER, site=self.site.id)
        return at + QUARTER

    def withdraw(self, registered_at: datetime) -> datetime | None:
        at = self.calendar.grid(registered_at + timedelta(hours=self.chance.randint(4, 20)))
        self.do(at, Verb.WITHDRAW)
        again = self.calendar.grid(at + timedelta(hours=self.chance.randint(3, 10)))
        if self.happens(0.5) or not self.calendar.reachable(self.site, again + timedelta(hours=12)):
            return None
        self.do(again, Verb.PRE_REGISTER)
        return again

    def change_mind(self, registered_at: datetime) -> datetime:
        """A few amend what they wrote; each save makes a new form."""
        at = registered_at
        if self.happens(0.07):
            at = self.calendar.grid(at + timedelta(minutes=self.chance.choice((120, 180, 240, 420, 720))))
            self.do(at, Verb.AMEND, **self.amendment())
        if self.happens(0.015):
            reachable = [
                site for site in self.cycle.sites if self.calendar.reachable(site, at + timedelta(hours=30))
            ]
            if reachable and self.calendar.reachable(self.site, at + timedelta(hours=4)):
                at = self.calendar.grid(at + timedelta(hours=3))
                self.site = self.chance.choice(reachable)
                self.do(at, Verb.AMEND, site=self.site.id)
        return at

    def amendment(self) -> dict[str, Any]:
        kind = self.chance.random()
        if kind < 0.45:
            return {"phone": f"1{self.chance.choice('356789')}{self.chance.randrange(10**9):09d}"}
        if kind < 0.8:
            return {"employer": f"{self.chance.choice('云青桐白松')}岭镇卫生院"}
        other = self.calendar.specialty(self.chance)
        return {"specialty": other.code}

    def go_to_the_desk(self, ready_at: datetime) -> datetime | None:
        if self.happens(0.03):
            return None
        if self.site.undated and self.happens(0.05):
            self.do(self.calendar.before_named(self.chance), Verb.CONFIRM)
        at = self.calendar.desk_visit(self.site, ready_at, self.chance)
        if at is None:
            return None
        if self.happens(0.006):
            other = self.chance.choice([site for site in self.cycle.sites if site.id != self.site.id])
            self.do(at, Verb.CONFIRM, desk=other.id)
            at = self.calendar.next_visit(self.site, at)
        if at is not None and self.happens(0.015) and any(verb is Verb.AMEND for _, verb, _ in self.steps):
            self.do(at, Verb.CONFIRM, form_version=1)
            at = self.calendar.next_visit(self.site, at)
        if at is not None and self.happens(0.02):
            needed = [document.id for document in self.cycle.documents if document.needed]
            self.do(at, Verb.CONFIRM, missing=[self.chance.choice(needed)])
            at = self.calendar.next_visit(self.site, at)
        if at is not None and self.happens(0.025):
            at = self.be_returned(at)
        if at is not None and self.happens(0.003):
            self.do(at, Verb.REJECT, level="desk", reasons=["identity"])
            return None
        if at is not None:
            self.do(at, Verb.CONFIRM)
        return at

    def be_returned(self, at: datetime) -> datetime | None:
        """The desk sends the person home to mend something, until the evening of the next day."""
        fix_until = self.calendar.end_of_day(at + timedelta(days=1))
        self.do(
            at, Verb.RETURN, reasons=[self.chance.choice(RETURN_REASONS)], fix_until=fix_until.isoformat()
        )
        if self.happens(0.12):
            return None
        mended_at = self.calendar.grid(at + timedelta(hours=self.chance.randint(2, 5)))
        self.do(mended_at, Verb.AMEND, employer="双河岭镇中心卫生院")
        # Sent home on the last day, one may come back after the desk's window: until fix_until the desk still sees one.
        return self.calendar.desk_hour_after(mended_at, fix_until)

    def be_reviewed(self, confirmed_at: datetime) -> datetime | None:
        levels = [level.id for level in self.cycle.review_levels[1:]]
        last_at = confirmed_at
        if self.happens(0.003):
            self.do(self.calendar.review(0, self.chance), Verb.APPROVE, level=levels[-1])
        for number, level in enumerate(levels):
            at = self.calendar.review(
                number, self.chance, late=number == len(levels) - 1 and self.happens(0.01)
            )
            if number == 0 and self.happens(0.006):
                at = self.be_sent_back(at, level)
            if self.happens(0.014):
                self.do(at, Verb.REJECT, level=level, reasons=[self.chance.choice(REJECT_REASONS)])
                if self.happens(0.2):
                    self.do(self.calendar.first_evening(self.chance), Verb.ORDER, channel="wechat")
                return None
            if number and self.happens(0.002):
                return None
            self.do(at, Verb.APPROVE, level=level)
            last_at = at
        return last_at

    def be_sent_back(self, at: datetime, level: str) -> datetime:
        """A reviewer sends the person back: mend, be confirmed at the desk again, and all levels start over."""
        fix_until = self.calendar.end_of_day(at + timedelta(days=3))
        self.do(at, Verb.RETURN, level=level, reasons=["documents"], fix_until=fix_until.isoformat())
        mended_at = self.calendar.grid(at + timedelta(hours=5))
        self.do(mended_at, Verb.AMEND, employer="虹桥岭镇中心卫生院")
        again = self.calendar.desk_hour_after(mended_at + timedelta(hours=12), fix_until)
        assert again is not None, "three days hold a desk hour"
        self.do(again, Verb.CONFIRM)
        return self.calendar.review_after(again)


def counted(people: People) -> Sequence[int]:
    """Persons, steps and distinct moments: what a rehearsal of these people amounts to."""
    moments = {step.at for person in people.persons for step in person.steps}
    return len(people.persons), sum(len(person.steps) for person in people.persons), len(moments)
