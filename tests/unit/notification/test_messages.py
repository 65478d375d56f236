"""Every message in full, as it is sent. After a change of a text: KAOWU_GOLDEN=write, then read the difference."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path

import pytest

from contracts.reasons import Carrier
from services.notification.domain.occasions import CONTENTS, Occasion
from services.notification.domain.told import Told, told_close
from services.notification.domain.words import variables
from services.notification.templates.wording import Text, Wording
from tests.unit.notification.stories import CYCLE, all_told

GOLDEN = Path(__file__).parent / "golden"
WORDING = Wording.load()
STORIES = dict(all_told())
# What one message costs more than: a text of three parts is three messages.
MOST_PARTS = 3
DEADLINE = re.compile(
    r"\d{4}年\d{1,2}月\d{1,2}日（星期[一二三四五六日]）(?:1?\d|2[0-4])时(?:[0-5]\d分)?（北京时间）"
)


def text_of(told: Told, channel: Carrier) -> Text:
    said = variables(told.occasion, told.facts, "4321", CYCLE)
    return WORDING.render(channel, told.occasion, told.variant, said)


@pytest.mark.parametrize("name", STORIES)
def test_the_message_reads_as_it_was_approved(name: str) -> None:
    sms, email = (text_of(STORIES[name], channel) for channel in (Carrier.SMS, Carrier.EMAIL))
    found = (
        f"[sms] {sms.template} 第{sms.version}版 {len(sms.body)}字 {sms.parts}条\n{sms.body}\n\n"
        f"[email] 第{email.version}版\n主题：{email.subject}\n\n{email.body}\n"
    )
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("KAOWU_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


def test_no_golden_text_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(STORIES)


def test_every_occasion_and_variant_has_its_story() -> None:
    assert {(told.occasion, told.variant) for told in STORIES.values()} == set(CONTENTS)
    assert {told.occasion for told in STORIES.values()} == set(Occasion)


@pytest.mark.parametrize("name", STORIES)
def test_an_sms_is_addressed_by_four_digits_and_stays_short(name: str) -> None:
    sms = text_of(STORIES[name], Carrier.SMS)
    assert sms.body.startswith("考生4321：")
    assert sms.parts <= MOST_PARTS, f"{len(sms.body)} characters"
    assert "{" not in sms.body
    assert set(sms.variables) >= {"tail"}
    assert WORDING.approved()[sms.template].replace("${tail}", "4321").startswith("考生4321：")


@pytest.mark.parametrize("channel", Carrier)
@pytest.mark.parametrize("name", STORIES)
def test_every_moment_is_whole_and_every_deadline_has_its_consequence(name: str, channel: Carrier) -> None:
    told = STORIES[name]
    body = text_of(told, channel).body
    # Nothing that looks like a date stands outside the one form.
    assert "月" not in DEADLINE.sub("", body)
    assert "23:59" not in body
    assert "59秒" not in body
    if told.deadline is not None:
        assert DEADLINE.search(body)
        assert "逾期" in body


def test_the_carrier_fills_the_approved_text_to_what_is_kept_here() -> None:
    approved = WORDING.approved()
    for told in STORIES.values():
        sms = text_of(told, Carrier.SMS)
        filled = re.sub(r"\$\{(\w+)\}", lambda m: sms.variables[m[1]], approved[sms.template])  # noqa: B023
        assert filled == sms.body


def test_the_pre_registered_are_told_desk_address_phone_and_last_hour() -> None:
    for channel in Carrier:
        body = text_of(STORIES["pre-registered"], channel).body
        for said in (
            "市中区",
            "市中区卫生健康局",
            "0833-2422047",
            "2023年12月14日（星期四）12时（北京时间）前",
        ):
            assert said in body


def test_the_forfeited_are_told_why_and_whom_to_call() -> None:
    for channel in Carrier:
        body = text_of(STORIES["expired"], channel).body
        assert "视为自动放弃考试" in body
        assert "未" in body
        assert "网上缴费" in body
        assert "0833-2495079" in body
        assert "2024年2月8日（星期四）24时（北京时间）" in body


def test_a_told_close_is_named_and_not_the_enforced_one() -> None:
    closes = CYCLE.windows.payment.closes
    window = CYCLE.windows.payment.model_copy(update={"told": closes - timedelta(minutes=30)})
    cycle = CYCLE.model_copy(update={"windows": CYCLE.windows.model_copy(update={"payment": window})})
    assert told_close(window.closes, cycle) == window.told_closes < window.closes
    extended = window.closes + (window.closes - window.opens)
    assert told_close(extended, cycle) == extended
