"""The first of every crowd, whose fate the seed does not decide: what an office is asked about most happens in each rehearsal.

They live as everybody does until they are approved; then each has a story of the close."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Any, Final

from contracts.cycle import Site
from deploy.rehearsal.people import Person, Step, Verb, WorldEvent, WorldVerb
from deploy.rehearsal.timetable import Calendar
from deploy.simulators.sms_carrier import DEAD_PREFIX, SILENT_PREFIX

MINUTE: Final = timedelta(minutes=1)
HOURS_LATER: Final = 4 * 3600  # when a callback comes that nobody waited for
SILENCE: Final = timedelta(minutes=30)
"""How long the first gateway gives no answer, across the close."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of the cast. Moments are counted from the close of payment."""

    ordered: timedelta | None = None
    paid: timedelta | None = None
    channel: str = "wechat"
    callback: Any = 3
    revived: bool = False
    """Two people lift the forfeiture next morning, and the fee is paid the day after."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """What carriers know of the number and the mailbox: simulated ones lose what goes to some."""


_PAYS: Final[Mapping[str, Any]] = {
    "ordered": -timedelta(days=2, hours=3),
    "paid": -timedelta(days=2, hours=3),
}
PARTS: Final = (
    # Pays in time and is heard of hours after: the close asks the gateway first.
    Part(ordered=-10 * MINUTE, paid=-9 * MINUTE, channel="alipay", callback=HOURS_LATER),
    # The same at the gateway that gives no answer: held, and decided when it answers.
    Part(ordered=-10 * MINUTE, paid=-9 * MINUTE, callback=HOURS_LATER),
    # Holds a code of the silent gateway and never pays: held, then forfeited.
    Part(ordered=-10 * MINUTE),
    Part(revived=True),
    # Whose number is not in use, so that every word comes by mail.
    Part(**_PAYS, given={"phone": f"{DEAD_PREFIX}0005"}),
    # Whose carrier never says what became of an SMS.
    Part(**_PAYS, given={"phone": f"{SILENT_PREFIX}0006"}),
    # Whose mailbox is full: every mail comes back, every SMS arrives.
    Part(**_PAYS, given={"email": "gone-full+p0007@example.cn"}),
    # Whom neither reaches: forfeited, and the desk has to call.
    Part(given={"phone": f"{DEAD_PREFIX}0008", "email": "gone+p0008@example.cn"}),
)


def cast(calendar: Calendar, names: list[str]) -> list[Person]:
    """As many of the cast as there are names."""
    return [_play(name, part, calendar) for name, part in zip(names, PARTS, strict=False)]


def around_them(calendar: Calendar, persons: list[Person]) -> Iterator[WorldEvent]:
    """What happens to those of the cast who are there."""
    payment = calendar.cycle.windows.payment
    if len(persons) > 1:
        fields = {"channel": "wechat", "for": (SILENCE + MINUTE / 2).total_seconds()}
        yield WorldEvent(payment.closes - MINUTE / 2, WorldVerb.GATEWAY_DOWN, fields)
    for person, part in zip(persons, PARTS, strict=False):
        if part.revived:
            fields = {"person": person.name, "reason": "住院，有医院证明"}
            yield WorldEvent(_morning_after(calendar), WorldVerb.REVIVE, fields)


def _play(name: str, part: Part, calendar: Calendar) -> Person:
    site, closes = _desk(calendar), calendar.cycle.windows.payment.closes
    acts: list[tuple[datetime, Verb, dict[str, Any]]] = []
    registered_at = calendar.local(calendar.cycle.windows.pre_registration.opens) + timedelta(hours=10)
    acts.append((registered_at, Verb.PRE_REGISTER, {}))
    confirmed_at = calendar.next_visit(site, registered_at)
    assert confirmed_at is not None, "this desk has hours"
    acts.append((confirmed_at, Verb.CONFIRM, {}))
    # All on the days that the first of them drew: reviewers decide them together.
    chance = random.Random("cast")
    for number, level in enumerate(calendar.cycle.review_levels[1:]):
        acts.append((calendar.review(number, chance), Verb.APPROVE, {"level": level.id}))
    if part.ordered is not None:
        acts.append((closes + part.ordered, Verb.ORDER, {"channel": part.channel}))
    if part.paid is not None:
        acts.append((closes + part.paid, Verb.PAY, {"callback": part.callback}))
    if part.revived:
        at = _morning_after(calendar) + timedelta(days=1)
        acts += [(at, Verb.ORDER, {"channel": part.channel}), (at + MINUTE, Verb.PAY, {"callback": 3})]
    steps = tuple(Step(index, *act) for index, act in enumerate(acts))
    specialty = calendar.specialty(random.Random(f"cast:{name}"))
    return Person(name, site.id, specialty.code, (1, 2, 3, 4), False, steps, None, part.given)


def _desk(calendar: Calendar) -> Site:
    """The first that people can register for to the end, else the first with days."""
    dated = [site for site in calendar.cycle.sites if not site.undated]
    return next(
        (site for site in dated if not calendar.is_dead_end(site)), (dated or calendar.cycle.sites)[0]
    )


def _morning_after(calendar: Calendar) -> datetime:
    closes = calendar.local(calendar.cycle.windows.payment.closes)
    return datetime.combine(closes.date(), time(10), calendar.zone) + (
        timedelta(days=1) if closes.hour >= 9 else timedelta()
    )
