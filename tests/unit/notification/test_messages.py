"""Every message in full, as it is sent. After a change of a text: KAOWU_GOLDEN=write, then read the difference."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from contracts.reasons import Carrier
from services.notification.domain.occasions import CONTENTS, VARIABLES, Occasion
from services.notification.domain.parts import parts
from services.notification.domain.told import Told, told_close
from services.notification.domain.words import variables
from services.notification.templates import layout
from services.notification.templates.linting import SIGNATURE
from services.notification.templates.wording import Text, Wording
from tests.unit.notification.stories import CYCLE, all_told

GOLDEN = Path(__file__).parent / "golden"
WORDING = Wording.load()
STORIES = dict(all_told())
# What one message costs more than: a text of three parts is three messages.
MOST_PARTS = 3
LANGUAGES = ("zh", "en")
DEADLINES = {
    "zh": re.compile(
        r"\d{4}年\d{1,2}月\d{1,2}日（星期[一二三四五六日]）(?:1?\d|2[0-4])时(?:[0-5]\d分)?（北京时间）"
    ),
    "en": re.compile(
        r"(?:[01]\d|2[0-4]):[0-5]\d (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) \d{1,2} "
        r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} Beijing time"
    ),
}
# Nothing that looks like a date stands outside the one form.
DATES = {"zh": re.compile("月"), "en": re.compile(r"\b(?:19|20)\d\d(?!年)\b")}
CONSEQUENCES = {"zh": "逾期", "en": "If you miss it"}


def text_of(told: Told, channel: Carrier, language: str = "zh") -> Text:
    phrases = WORDING.phrases(channel, told.occasion, told.variant, language)
    said = variables(told.occasion, told.facts, "4321", CYCLE, phrases)
    return WORDING.render(channel, told.occasion, told.variant, said, language)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", STORIES)
def test_the_message_reads_as_it_was_approved(name: str, language: str) -> None:
    sms, email = (text_of(STORIES[name], channel, language) for channel in (Carrier.SMS, Carrier.EMAIL))
    found = (
        f"[sms] {sms.template} 第{sms.version}版 {len(sms.body)}字 {parts(SIGNATURE + sms.body)}条\n{sms.body}\n\n"
        f"[email] 第{email.version}版\n主题：{email.subject}\n\n{email.body}\n"
    )
    path = GOLDEN / f"{name}.txt" if language == "zh" else GOLDEN / language / f"{name}.txt"
    if os.environ.get("KAOWU_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


def test_no_golden_text_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(STORIES)
    assert {path.stem for path in GOLDEN.glob("en/*.txt")} == set(STORIES)


def test_every_occasion_and_variant_has_its_story() -> None:
    assert {(told.occasion, told.variant) for told in STORIES.values()} == set(CONTENTS)
    assert {told.occasion for told in STORIES.values()} == set(Occasion)


@pytest.mark.parametrize("name", STORIES)
def test_an_sms_is_addressed_by_four_digits_and_stays_short(name: str) -> None:
    sms = text_of(STORIES[name], Carrier.SMS)
    assert sms.body.startswith("考生4321：")
    assert parts(SIGNATURE + sms.body) <= MOST_PARTS, f"{len(sms.body)} characters"
    assert "{" not in sms.body
    assert set(sms.variables) >= {"tail"}
    assert WORDING.approved()[sms.template].replace("${tail}", "4321").startswith("考生4321：")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("channel", Carrier)
@pytest.mark.parametrize("name", STORIES)
def test_every_moment_is_whole_and_every_deadline_has_its_consequence(
    name: str, channel: Carrier, language: str
) -> None:
    told = STORIES[name]
    text = text_of(told, channel, language)
    assert text.language == language
    assert not DATES[language].search(DEADLINES[language].sub("", text.body).replace(CYCLE.name, ""))
    # Somebody may have paid at that minute; nothing is ever due then.
    assert "23:59" not in text.body or told.occasion is Occasion.PAID
    assert "59秒" not in text.body
    if told.deadline is not None:
        assert DEADLINES[language].search(text.body)
        assert CONSEQUENCES[language] in text.body


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", STORIES)
def test_no_variable_of_an_sms_is_longer_than_a_carrier_takes(name: str, language: str) -> None:
    sms = text_of(STORIES[name], Carrier.SMS, language)
    assert {n: v for n, v in sms.variables.items() if len(v) > VARIABLES[n].longest} == {}
    assert WORDING.approved("tencent")[sms.codes["tencent"]].count("{") == len(sms.variables)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", STORIES)
def test_the_two_forms_of_an_email_say_the_same(name: str, language: str) -> None:
    email = text_of(STORIES[name], Carrier.EMAIL, language)
    assert email.html is not None
    page = Reader.read(email.html)
    assert page.lang == {"zh": "zh-CN", "en": "en"}[language]
    assert page.title == email.subject
    letters = re.compile(r"[\s：:-]+")
    assert letters.sub("", page.text) == letters.sub("", email.subject + email.body)
    # Nothing is fetched, run, or sent back.
    assert not page.tags & {"img", "script", "link", "a", "form", "iframe", "object", "video", "svg"}
    assert "http" not in email.html
    assert "url(" not in email.html
    if STORIES[name].deadline is not None:
        assert any(DEADLINES[language].search(strong) for strong in page.strong)


def test_what_a_fact_says_is_never_markup() -> None:
    told = STORIES["due"]
    said = variables(told.occasion, told.facts, "4321", CYCLE) | {"website": "<script>alert(1)</script>&"}
    html = WORDING.render(Carrier.EMAIL, told.occasion, told.variant, said).html
    assert html is not None
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in html
    assert "<script" not in html


@pytest.mark.parametrize("dark", [0, 1], ids=["light", "dark"])
def test_every_colour_can_be_read(dark: int) -> None:
    for ink in (layout.INK, layout.QUIET, layout.URGENT):
        assert contrast(ink[dark], layout.CARD[dark]) >= 4.5


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, 1.4.3."""

    def luminance(colour: str) -> float:
        light = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in light]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


class Reader(HTMLParser):
    """What a person, and a machine, sees of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text = self.title = self.lang = ""
        self.tags: set[str] = set()
        self.strong: list[str] = []
        self._inside: list[str] = []

    @classmethod
    def read(cls, page: str) -> Reader:
        reader = cls()
        reader.feed(page)
        return reader

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "html":
            self.lang = dict(attrs)["lang"] or ""
        if tag not in {"meta", "br"}:
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if "title" in self._inside:
            self.title += data
        elif "style" not in self._inside:
            self.text += data
        if "strong" in self._inside:
            self.strong.append(data)


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
