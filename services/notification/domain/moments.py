"""Moments as people read them: date, weekday, clock, 北京时间. One form everywhere, never 23:59:59.

A deadline at midnight is written as the end of the day before (8日24时), because "9日0时" is read as "some time
on the 9th". The sentence around it says what happens if it is missed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from services.notification.domain.phrases import ZH, Phrases

_MINUTE: Final = timedelta(minutes=1)


class UnknownZone(Exception):
    """A time zone that people here have no word for."""


def zone_in_words(zone: ZoneInfo, phrases: Phrases = ZH) -> str:
    """Raises UnknownZone."""
    try:
        return phrases.zones[zone.key]
    except KeyError:
        raise UnknownZone(f"no name for the time zone {zone.key} in {phrases.language}") from None


def _in_words(day: datetime, hour: int, minute: int, zone: ZoneInfo, phrases: Phrases) -> str:
    clock = (phrases.clock_and_minutes if minute else phrases.clock).format(hour=hour, minute=minute)
    return phrases.moment.format(
        year=day.year,
        month=phrases.months[day.month - 1],
        day=day.day,
        weekday=phrases.weekdays[day.weekday()],
        clock=clock,
        zone=zone_in_words(zone, phrases),
    )


@lru_cache(maxsize=4096)
def end_in_words(moment: datetime, zone: ZoneInfo, phrases: Phrases = ZH) -> str:
    """The last of something. Seconds are cut off: who acts by the minute told is never late."""
    local = moment.astimezone(zone).replace(second=0, microsecond=0)
    if local.hour == 0 and local.minute == 0:
        return _in_words(local - timedelta(days=1), 24, 0, zone, phrases)
    return _in_words(local, local.hour, local.minute, zone, phrases)


def deadline_in_words(moment: datetime, zone: ZoneInfo, phrases: Phrases = ZH) -> str:
    """By when: `2024年2月8日（星期四）24时（北京时间）前` for the first moment of the 9th."""
    return phrases.deadline.format(moment=end_in_words(moment, zone, phrases))


@lru_cache(maxsize=4096)
def start_in_words(moment: datetime, zone: ZoneInfo, phrases: Phrases = ZH) -> str:
    """The first of something. A begun minute counts as over: who comes at the minute told is never early."""
    local = moment.astimezone(zone)
    cut = local.replace(second=0, microsecond=0)
    if cut != local:
        cut += _MINUTE
    return _in_words(cut, cut.hour, cut.minute, zone, phrases)


@lru_cache(maxsize=4096)
def event_in_words(moment: datetime, zone: ZoneInfo, phrases: Phrases = ZH) -> str:
    """When something happened, to the minute in which it did."""
    local = moment.astimezone(zone)
    return _in_words(local, local.hour, local.minute, zone, phrases)


def span_in_words(seconds: int, phrases: Phrases = ZH) -> str:
    """Time left, in the largest unit that loses nothing that matters: days, hours, minutes, rounded down."""
    for size, one, many in ((86_400, phrases.day, phrases.days), (3_600, phrases.hour, phrases.hours)):
        if seconds >= size and (seconds % size == 0 or seconds >= 3 * size):
            return (one if seconds // size == 1 else many).format(n=seconds // size)
    minutes = seconds // 60
    if seconds >= 3_600:
        return phrases.hours_and_minutes.format(hours=minutes // 60, minutes=minutes % 60)
    return (phrases.minute if minutes == 1 else phrases.minutes).format(n=minutes)


def yuan(amount_fen: int, phrases: Phrases = ZH) -> str:
    """280元, 12.50元."""
    whole, rest = divmod(amount_fen, 100)
    return phrases.money.format(amount=f"{whole}.{rest:02d}" if rest else str(whole))
