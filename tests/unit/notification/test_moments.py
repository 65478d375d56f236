"""Deadlines in words: one form, both sides of every boundary."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notification.domain.moments import (
    UnknownZone,
    deadline_in_words,
    end_in_words,
    event_in_words,
    span_in_words,
    start_in_words,
    yuan,
)

BEIJING = ZoneInfo("Asia/Shanghai")
MICROSECOND = timedelta(microseconds=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("2024-02-09T00:00:00+08:00", "2024年2月8日（星期四）24时（北京时间）前"),
        ("2024-02-08T16:00:00+00:00", "2024年2月8日（星期四）24时（北京时间）前"),
        ("2023-12-14T12:00:00+08:00", "2023年12月14日（星期四）12时（北京时间）前"),
        ("2024-01-01T00:00:00+08:00", "2023年12月31日（星期日）24时（北京时间）前"),
        ("2024-03-01T00:00:00+08:00", "2024年2月29日（星期四）24时（北京时间）前"),
        ("2024-02-08T09:05:00+08:00", "2024年2月8日（星期四）9时05分（北京时间）前"),
        ("2024-02-08T23:59:59.999999+08:00", "2024年2月8日（星期四）23时59分（北京时间）前"),
        ("2024-02-09T00:00:00.000001+08:00", "2024年2月8日（星期四）24时（北京时间）前"),
        ("2024-02-09T00:01:00+08:00", "2024年2月9日（星期五）0时01分（北京时间）前"),
    ],
)
def test_a_deadline_names_date_weekday_clock_and_zone(moment: str, words: str) -> None:
    assert deadline_in_words(at(moment), BEIJING) == words


def test_an_opening_at_midnight_is_the_beginning_of_its_day() -> None:
    assert (
        start_in_words(at("2024-01-29T00:00:00+08:00"), BEIJING) == "2024年1月29日（星期一）0时（北京时间）"
    )
    almost = at("2024-01-29T00:00:00+08:00") - MICROSECOND
    assert start_in_words(almost, BEIJING) == "2024年1月29日（星期一）0时（北京时间）"
    assert start_in_words(almost + 2 * MICROSECOND, BEIJING) == "2024年1月29日（星期一）0时01分（北京时间）"


def test_what_happened_keeps_its_own_day() -> None:
    assert event_in_words(at("2024-02-09T00:00:00+08:00"), BEIJING).startswith("2024年2月9日（星期五）0时（")


@given(st.timedeltas(timedelta(0), timedelta(days=5000)))
def test_who_keeps_the_told_minute_keeps_the_real_deadline(after: timedelta) -> None:
    moment = datetime(2020, 1, 1, tzinfo=UTC) + after
    words = end_in_words(moment, BEIJING)
    date, _, clock = words.partition("日（星期")
    year, month, day = (int(part) for part in date.replace("年", "-").replace("月", "-").split("-"))
    hours, _, minutes = clock[2:].removesuffix("（北京时间）").partition("时")
    told = datetime(year, month, day, tzinfo=BEIJING) + timedelta(
        hours=int(hours), minutes=int(minutes.removesuffix("分") or 0)
    )
    assert timedelta() <= moment - told < timedelta(minutes=1)
    assert "一二三四五六日"[datetime(year, month, day, tzinfo=BEIJING).weekday()] == clock[0]


def test_a_zone_nobody_has_a_word_for_is_refused() -> None:
    with pytest.raises(UnknownZone):
        deadline_in_words(at("2024-02-09T00:00:00+08:00"), ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (604_800, "7天"),
        (259_200, "3天"),
        (86_400, "1天"),
        (86_399, "23小时"),
        (100_000, "27小时"),
        (21_600, "6小时"),
        (7_200, "2小时"),
        (5_400, "1小时30分钟"),
        (3_599, "59分钟"),
        (60, "1分钟"),
    ],
)
def test_time_left_is_never_rounded_up(seconds: int, words: str) -> None:
    assert span_in_words(seconds) == words


def test_money_is_written_without_empty_decimals() -> None:
    assert (yuan(28_000), yuan(20_000), yuan(1_250), yuan(5)) == ("280元", "200元", "12.50元", "0.05元")
