"""Moments as people read them: date, weekday, clock, 北京时间. One form everywhere, never 23:59:59.

A deadline at midnight is written as the end of the day before (8日24时), because "9日0时" is read as "some time
on the 9th". The sentence around it says what happens if it is missed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

_WEEKDAYS: Final = "一二三四五六日"
_ZONE_NAMES: Final = {"Asia/Shanghai": "北京时间"}
_MINUTE: Final = timedelta(minutes=1)


class UnknownZone(Exception):
    """A time zone that people here have no word for."""


def zone_in_words(zone: ZoneInfo) -> str:
    """Raises UnknownZone."""
    try:
        return _ZONE_NAMES[zone.key]
    except KeyError:
        raise UnknownZone(f"no Chinese name for the time zone {zone.key}") from None


def _in_words(day: datetime, hour: int, minute: int, zone: ZoneInfo) -> str:
    clock = f"{hour}时{minute:02d}分" if minute else f"{hour}时"
    weekday = _WEEKDAYS[day.weekday()]
    return f"{day.year}年{day.month}月{day.day}日（星期{weekday}）{clock}（{zone_in_words(zone)}）"


@lru_cache(maxsize=4096)
def end_in_words(moment: datetime, zone: ZoneInfo) -> str:
    """The last of something. Seconds are cut off: who acts by the minute told is never late."""
    local = moment.astimezone(zone).replace(second=0, microsecond=0)
    if local.hour == 0 and local.minute == 0:
        return _in_words(local - timedelta(days=1), 24, 0, zone)
    return _in_words(local, local.hour, local.minute, zone)


def deadline_in_words(moment: datetime, zone: ZoneInfo) -> str:
    """By when: `2024年2月8日（星期四）24时（北京时间）前` for the first moment of the 9th."""
    return end_in_words(moment, zone) + "前"


@lru_cache(maxsize=4096)
def start_in_words(moment: datetime, zone: ZoneInfo) -> str:
    """The first of something. A begun minute counts as over: who comes at the minute told is never early."""
    local = moment.astimezone(zone)
    cut = local.replace(second=0, microsecond=0)
    if cut != local:
        cut += _MINUTE
    return _in_words(cut, cut.hour, cut.minute, zone)


@lru_cache(maxsize=4096)
def event_in_words(moment: datetime, zone: ZoneInfo) -> str:
    """When something happened, to the minute in which it did."""
    local = moment.astimezone(zone)
    return _in_words(local, local.hour, local.minute, zone)


def span_in_words(seconds: int) -> str:
    """Time left, in the largest unit that loses nothing that matters: days, hours, minutes, rounded down."""
    for size, word in ((86_400, "天"), (3_600, "小时")):
        if seconds >= size and (seconds % size == 0 or seconds >= 3 * size):
            return f"{seconds // size}{word}"
    if seconds >= 3_600:
        return f"{seconds // 3_600}小时{seconds % 3_600 // 60}分钟"
    return f"{seconds // 60}分钟"


def yuan(amount_fen: int) -> str:
    """280元, 12.50元."""
    whole, rest = divmod(amount_fen, 100)
    return f"{whole}.{rest:02d}元" if rest else f"{whole}元"
