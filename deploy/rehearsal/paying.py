"""How the people of a crowd pay: most in the evenings, many at the end, some in the last minutes, a few never; and
what the gateway's callbacks do meanwhile."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any, Protocol

from contracts.cycle import Cycle
from deploy.rehearsal.people import Verb
from deploy.rehearsal.timetable import Calendar

MINUTE = timedelta(minutes=1)


class Do(Protocol):
    def __call__(self, at: datetime, verb: Verb, **fields: Any) -> None: ...


def pay_story(
    cycle: Cycle, calendar: Calendar, chance: random.Random, approved_at: datetime, channel: str, do: Do
) -> None:
    payment = cycle.windows.payment
    if chance.random() < 0.008 and approved_at < payment.opens - timedelta(days=2):
        do(calendar.before(payment, chance), Verb.ORDER, channel=channel)
    kind = chance.random()
    if kind < 0.018:
        return
    at = calendar.arrival(payment, chance, payment.closes - timedelta(hours=2), not_before=approved_at)
    hesitates = timedelta()
    if kind < 0.036:
        do(at, Verb.ORDER, channel=channel)
        return
    if kind < 0.06:
        at, hesitates = payment.closes - MINUTE * chance.randint(5, 60), MINUTE
    elif kind < 0.064:
        at, hesitates = payment.closes - MINUTE * 3, MINUTE
    elif kind < 0.067:
        # The last two minutes: no new order any more, and so a forfeiture.
        do(payment.closes - MINUTE, Verb.ORDER, channel=channel)
        return
    elif kind < 0.07:
        # Ordered in time, paid at the very close: windows are half-open, the gateway refuses.
        do(payment.closes - MINUTE * 30, Verb.ORDER, channel=channel)
        do(payment.closes, Verb.PAY, callback=3)
        return
    elif kind < 0.073:
        do(payment.closes + calendar.QUARTER, Verb.ORDER, channel=channel)
        return
    if chance.random() < 0.03 and at - calendar.QUARTER > max(payment.opens, approved_at):
        # The code of the other gateway is let go unopened.
        do(at - calendar.QUARTER, Verb.ORDER, channel="alipay" if channel == "wechat" else "wechat")
    do(at, Verb.ORDER, channel=channel)
    # On the coarse grid the order and its payment are one moment; minutes count only in the last hour.
    paid_at = at + hesitates
    do(paid_at, Verb.PAY, callback=_callback(chance))
    if chance.random() < 0.006 and paid_at + timedelta(days=1) < payment.closes:
        do(calendar.grid(paid_at + timedelta(hours=9)), Verb.ORDER, channel=channel)


def _callback(chance: random.Random) -> Any:
    kind = chance.random()
    if kind < 0.01:
        return "never"
    if kind < 0.03:
        return [3, 180]
    if kind < 0.06:
        return chance.choice((600, 1800, 7200))
    if kind < 0.064:
        return 25 * 3600
    return 3
