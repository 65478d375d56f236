"""Which carrier would refuse which of our texts, and why; and how many parts each is at its longest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from contracts.reasons import Carrier
from services.notification.domain.moments import deadline_in_words, start_in_words
from services.notification.domain.occasions import VARIABLES, Kind
from services.notification.domain.parts import parts
from services.notification.domain.phrases import Phrases
from services.notification.templates.reading import Key
from services.notification.templates.rules import CARRIERS, RULES, Rule, Sms
from services.notification.templates.wording import Wording

SIGNATURE: Final = "【考点签名六字】"  # put in front by the carrier, and counted
_BEIJING: Final = ZoneInfo("Asia/Shanghai")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One rule that one text breaks."""

    file: str
    rule: Rule
    why: str


@dataclass(frozen=True, slots=True)
class Judged:
    """One text of ours: what is said against it, and its parts when everything in it is as long as it may be."""

    key: Key
    file: str
    parts: int
    verdicts: tuple[Verdict, ...]

    def of(self, carrier: str) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.rule.carrier == carrier]


def judge(
    wording: Wording, carriers: Iterable[str] = CARRIERS, signature: str = SIGNATURE
) -> Iterator[Judged]:
    """Every SMS, in every language, by these carriers' rules."""
    asked = [rule for rule in RULES if rule.carrier in set(carriers)]
    for key in sorted(key for key in wording if key[0] is Carrier.SMS):
        sms = as_carriers_see(wording.source(key), wording.languages[key[3]], signature)
        file = file_of(key)
        found = ((rule, rule.check(sms)) for rule in asked)
        yield Judged(
            key, file, parts(sms.longest), tuple(Verdict(file, rule, why) for rule, why in found if why)
        )


def as_carriers_see(source: str, phrases: Phrases, signature: str = SIGNATURE) -> Sms:
    """A text with the longest values that its variables may take in this language."""
    return Sms(source, {name: _worst(name, phrases) for name in VARIABLES}, signature)


def file_of(key: Key) -> str:
    """Where a text stands."""
    channel, occasion, variant, language = key
    return f"{occasion}/{channel}{'.' if variant else ''}{variant}.{language}.txt"


@lru_cache(maxsize=256)
def _worst(name: str, phrases: Phrases) -> str:
    of = VARIABLES[name]
    if of.kind in {Kind.DEADLINE, Kind.MOMENT}:
        words = deadline_in_words if of.kind is Kind.DEADLINE else start_in_words
        # A year of days, so that every weekday, month and length of a number comes by; the clock has its minutes.
        first = datetime(2024, 1, 1, 15, 30, tzinfo=UTC)
        return max((words(first + timedelta(days=day), _BEIJING, phrases) for day in range(366)), key=len)
    filler = "8" if of.kind in {Kind.PHONE, Kind.TAIL, Kind.MONEY} else "字"
    return filler * of.longest
