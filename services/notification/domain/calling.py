"""Whom a desk must call because neither SMS nor email told them in time: when, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from services.notification.domain.life import OVERTAKEN_BY
from services.notification.domain.occasions import Occasion
from services.notification.domain.urgency import LAST_DAY

# Whoever does not hear of these loses something that a call can still save, or is owed the word in person.
_ENDED: Final = frozenset({Occasion.EXPIRED, Occasion.LAPSED, Occasion.REJECTED, Occasion.REINSTATED})
_ASKED: Final = frozenset({Occasion.RETURNED, Occasion.DESK_WINDOW_MOVED})
# Once one of these is told, a call about what it undoes is off the list.
UNDOES_A_CALL: Final = frozenset(
    later
    for earlier in _ENDED | _ASKED | {Occasion.CLOSING_SOON}
    for later in OVERTAKEN_BY.get(earlier, ())
    if later is not earlier
)
# Whoever gives another number or address hears of these there, if nothing told them before.
WORTH_ANOTHER_TRY: Final = (
    _ENDED | _ASKED | {Occasion.CLOSING_SOON, Occasion.DUE, Occasion.APPROVED, Occasion.PAYMENT_WINDOW_MOVED}
)


class CallOutcome(StrEnum):
    """How a call ended. The first three are said by whoever called."""

    REACHED = "reached"
    NOT_REACHED = "not-reached"  # stays on the list, behind the others
    WRONG_NUMBER = "wrong-number"
    TOLD = "told"  # a receipt or a mail came through after all
    SETTLED = "settled"  # paid, reinstated, moved: there is nothing to tell any more
    OVER = "over"  # its moment has passed
    ERASED = "erased"

    @property
    def text(self) -> str:
        return _OUTCOMES[self]


SAID_BY_PEOPLE: Final = frozenset({CallOutcome.REACHED, CallOutcome.NOT_REACHED, CallOutcome.WRONG_NUMBER})
_OUTCOMES: Final = {
    CallOutcome.REACHED: "已通知本人",
    CallOutcome.NOT_REACHED: "无人接听",
    CallOutcome.WRONG_NUMBER: "号码错误",
    CallOutcome.TOLD: "短信或邮件已送达",
    CallOutcome.SETTLED: "无需再通知",
    CallOutcome.OVER: "已过截止时间",
    CallOutcome.ERASED: "联系方式已删除",
}

# Why somebody is on the list, as the desk reads it. Any other word is the carrier's refusal.
UNCONFIRMED: Final = "unconfirmed"  # nothing came back yet
REASONS: Final = {
    UNCONFIRMED: "短信无回执，邮件未送达",
    "no-receipt": "短信七十二小时无回执",
    "too-late": "未能在截止前发出",
    "bad-number": "手机号码有误",
    "number-not-in-use": "空号或停机",
    "number-blocked": "号码拒收",
    "no-address": "未留手机号码",
    "given-up": "多次发送失败",
    "template-refused": "短信内容被运营商拒绝",
}


def reason_in_words(code: str) -> str:
    """Why the SMS did not tell them."""
    return REASONS.get(code, "短信被运营商拒绝")


@dataclass(frozen=True, slots=True)
class CallPatience:
    """How long a message may stay unconfirmed before somebody calls, by what hangs on it."""

    last_day_before_close: timedelta = timedelta(hours=8)
    ended: timedelta = timedelta(hours=24)
    asked: timedelta = timedelta(hours=48)
    least: timedelta = timedelta(minutes=30)  # a receipt needs its time, also in the last hours

    def call_at(self, occasion: Occasion, deadline: datetime | None, first: datetime) -> datetime | None:
        """When to look whether a message that may go out from `first` on has told its person. None: never."""
        if occasion in _ENDED:
            return first + self.ended
        if occasion in _ASKED:
            at = first + self.asked
            # Whoever must act by a moment is called while there is time to act.
            return at if deadline is None else max(min(at, deadline - LAST_DAY), first + self.least)
        if occasion is Occasion.CLOSING_SOON and deadline is not None and deadline - first <= LAST_DAY:
            return max(deadline - self.last_day_before_close, first + self.least)
        return None
