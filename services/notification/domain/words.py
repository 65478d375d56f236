"""Facts in the words people read."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

from contracts.cycle import Cycle
from contracts.reasons import ReasonCode
from services.notification.domain.moments import (
    deadline_in_words,
    end_in_words,
    event_in_words,
    span_in_words,
    start_in_words,
    yuan,
)
from services.notification.domain.occasions import VARIABLES, Occasion
from services.notification.domain.phrases import ZH, Phrases
from services.notification.domain.told import Facts

Variables: TypeAlias = "dict[str, str | list[str]]"


def variables(occasion: Occasion, facts: Facts, tail: str, cycle: Cycle, phrases: Phrases = ZH) -> Variables:
    """Every variable that these facts give. Which of them a text uses is the template's affair."""
    said: Variables = {
        "tail": tail,
        "exam": cycle.name,
        "contact": cycle.contact_phone,
        "website": cycle.notice.website,
    }
    for fact, value in facts.items():
        if isinstance(value, str):
            _text(said, occasion, fact, value, cycle, phrases)
        elif isinstance(value, int):
            _number(said, fact, value, phrases)
        else:
            reasons = [ReasonCode(code) for code in value]
            said["reasons"] = phrases.separator.join(phrases.reasons[reason] for reason in reasons)
            said["remedies"] = [phrases.remedies[reason] for reason in reasons]
    if "remedies" in said and "site_id" not in facts:
        said |= {"desk": phrases.your_desk, "place": phrases.your_desk, "phone": cycle.contact_phone}
    return said


def fit(value: str, longest: int, phrases: Phrases) -> str:
    """So much of a value as an SMS has room for: whole members of an enumeration, and that there are more."""
    if len(value) <= longest:
        return value
    room = longest - len(phrases.and_more)
    # Where a member ends: before a separator, which may be the first thing that has no room.
    cut = max(value.rfind(mark, 0, room + 1) for mark in "、，,")
    return value[: cut if cut > 0 else room] + phrases.and_more


def unfit(cycle: Cycle) -> list[str]:
    """What the cycle says that no SMS has room for and nobody may shorten: an address, a phone, who is to be asked."""
    said = [("contact_phone", "contact", cycle.contact_phone)]
    for site in cycle.sites:
        said += [
            (f"site {site.id}: place", "place", site.place or ""),
            (f"site {site.id}: phone", "phone", site.phone or ""),
            (f"site {site.id}: undated_note", "note", site.undated_note or ""),
        ]
    said += [(f"review level {level.id}: name", "by", level.name) for level in cycle.review_levels]
    return [
        f"{where} has {len(value)} characters, an SMS has room for {VARIABLES[name].longest}"
        for where, name, value in said
        if len(value) > VARIABLES[name].longest
    ]


def _number(said: Variables, fact: str, value: int, phrases: Phrases) -> None:
    match fact:
        case "amount_fen":
            said["amount"] = yuan(value, phrases)
        case "form_version":
            said["form"] = phrases.form.format(n=value)
        case "offset":
            said["left"] = span_in_words(value, phrases)


def _text(said: Variables, occasion: Occasion, fact: str, value: str, cycle: Cycle, phrases: Phrases) -> None:
    zone = cycle.zone
    match fact:
        case "site_id":
            site = cycle.site(value)
            said["desk"] = site.name
            said["place"] = site.place or phrases.its_place
            said["phone"] = site.phone or cycle.contact_phone
            said["note"] = site.undated_note or phrases.ask_the_desk
        case "opens_at":
            said["opening"] = start_in_words(_moment(value), zone, phrases)
        case "closes_at":
            said["deadline"] = deadline_in_words(_moment(value), zone, phrases)
        case "reopens_until":
            said["reopening"] = deadline_in_words(_moment(value), zone, phrases)
        case "closed_at":
            said["closed"] = end_in_words(_moment(value), zone, phrases)
        case "paid_at":
            said["paid"] = event_in_words(_moment(value), zone, phrases)
        case "level":
            said["by"] = phrases.levels.get(value) or cycle.review_level(value).name
        case "why":
            said["why"] = phrases.causes[occasion][value]


def _moment(value: str) -> datetime:
    return datetime.fromisoformat(value)
