"""The committed cycle against the notice itself, read by another hand: the table of the notice as a table here."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from contracts.cycle import Cycle, Site

FILE = Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml"
NOTICE = Path(__file__).parent / "notice-2024-leshan.txt"
SHANGHAI = ZoneInfo("Asia/Shanghai")
TICK = timedelta(microseconds=1)


@pytest.fixture(scope="module")
def cycle() -> Cycle:
    return Cycle.read(FILE)


def at(month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2023 if month == 12 else 2024, month, day, hour, minute, tzinfo=SHANGHAI)


# 报名点 ｜ 现场确认地点 ｜ 咨询电话 ｜ from ｜ to (exclusive)
DESKS = [
    ("shizhong", "市中区", "市中区卫生健康局", "0833-2422047", at(12, 8), at(12, 14, 12)),
    ("wutongqiao", "五通桥区", "五通桥区卫生健康局", "0833-3308263", at(12, 13), at(12, 16)),
    ("shawan", "沙湾区", "沙湾区卫生健康局", "0833-3443388", at(12, 13), at(12, 16)),
    ("qianwei", "犍为县", "犍为县卫生健康局", "0833-4268976", at(12, 11), at(12, 15)),
    ("jingyan", "井研县", "井研县卫生健康局", "0833-3715323", at(12, 11), at(12, 14)),
    ("jiajiang", "夹江县", "夹江县卫生健康局", "0833-5686923", at(12, 12), at(12, 15)),
    ("emeishan", "峨眉山市", "峨眉山市卫生健康局", "0833-3077049", at(12, 13), at(12, 16)),
    ("mabian", "马边彝族自治县", "马边彝族自治县卫生健康局", "0833-4520431", at(12, 12), at(12, 15)),
    ("jinkouhe", "金口河区", "金口河区卫生健康局", "0833-2716169", at(12, 12), at(12, 15)),
    ("ebian", "峨边彝族自治县", "峨边彝族自治县卫生健康局", "0833-5288776", at(12, 11), at(12, 13)),
    ("muchuan", "沐川县", "沐川县卫生健康局", "0833-4601456", at(12, 11), at(12, 14)),
    ("gaoxin", "高新区", "高新区公共服务局", "0833-2596446", at(12, 11), at(12, 13)),
]


def test_the_desks_are_those_of_the_notice(cycle: Cycle) -> None:
    dated = [
        (site.id, site.name, site.place, site.phone, site.window.opens, site.window.closes)
        for site in cycle.sites
        if site.window is not None
    ]
    assert dated == DESKS
    (undated,) = (site for site in cycle.sites if site.undated)
    assert (undated.id, undated.undated_note) == ("municipal", "以单位人事科通知为准")
    assert (
        undated.name
        == "武警四川省总队医院，解放军第42医院，乐山市精神病医院，乐山老年病专科医院及市直医疗单位"
    )
    assert {employer.site for employer in cycle.employers} == {"municipal"}
    assert all(employer.name in undated.name for employer in cycle.employers)


def test_the_stages_are_open_on_the_days_of_the_notice(cycle: Cycle) -> None:
    windows = cycle.windows
    assert (windows.pre_registration.opens, windows.pre_registration.closes) == (at(12, 1), at(12, 15))
    assert (windows.confirmation.opens, windows.confirmation.closes) == (at(12, 2), at(12, 16))
    assert (windows.payment.opens, windows.payment.closes) == (at(1, 29), at(2, 9))
    assert windows.payment.told_closes == at(2, 9)
    assert windows.results.opens == at(4, 22)
    assert windows.results.closes == at(6, 22), "two months after the last day of the exam, that day included"
    assert windows.payment.no_orders_before_close == timedelta(minutes=2)
    assert windows.payment.reminders == (
        timedelta(days=7),
        timedelta(days=3),
        timedelta(days=1),
        timedelta(hours=6),
        timedelta(hours=2),
    )


def test_the_close_of_the_payment_window_to_the_microsecond(cycle: Cycle) -> None:
    close = datetime(2024, 2, 8, 16, tzinfo=UTC)
    assert cycle.windows.payment.is_open(close - TICK)
    assert not cycle.windows.payment.is_open(close)
    assert cycle.site("shizhong").window is not None


@pytest.mark.parametrize(
    ("level", "mode", "subjects", "fen"),
    [
        ("junior-assistant", "computer", (1, 2, 3, 4), 20000),
        ("junior", "computer", (1, 2, 3, 4), 20000),
        ("junior", "paper", (3,), 5000),
        ("intermediate", "computer", (1, 2, 3, 4), 28000),
        ("intermediate", "computer", (1, 4), 14000),
    ],
)
def test_the_fee_is_per_subject_and_level(
    cycle: Cycle, level: str, mode: str, subjects: tuple[int, ...], fen: int
) -> None:
    assert cycle.fee_fen(level, subjects, mode) == fen


def test_a_fee_that_nobody_fixed_is_an_error_and_not_free(cycle: Cycle) -> None:
    with pytest.raises(KeyError):
        cycle.fee_fen("senior", (1,), "computer")
    with pytest.raises(KeyError):
        cycle.fee_fen("junior", (1,), "oral")


def test_every_specialty_of_the_table_that_can_be_offered_is_there_with_its_status(cycle: Cycle) -> None:
    counts = Counter((specialty.level, specialty.mode, specialty.status) for specialty in cycle.specialties)
    assert counts == {
        ("junior-assistant", "computer", "verified"): 2,
        ("junior-assistant", "computer", "code-range"): 7,
        ("junior", "paper", "verified"): 1,
        ("junior", "computer", "verified"): 2,
        ("junior", "computer", "code-range"): 11,
        ("intermediate", "computer", "verified"): 28,
        ("intermediate", "computer", "code-range"): 64,
    }
    merged = {"109", "110", "211", "212"}
    assert merged.isdisjoint(specialty.code for specialty in cycle.specialties)
    assert len(cycle.specialties) == 115
    assert [s.code for s in cycle.specialties if s.mode == "paper"] == ["203"]
    assert {s.code[0] for s in cycle.specialties if s.level == "junior-assistant"} == {"1"}
    assert {s.code[0] for s in cycle.specialties if s.level == "junior"} == {"2"}
    assert {s.code[0] for s in cycle.specialties if s.level == "intermediate"} == {"3"}


def test_the_papers_are_those_of_the_notice(cycle: Cycle) -> None:
    assert [cycle.subject(number).name for number in (1, 2, 3, 4)] == [
        "基础知识",
        "相关专业知识",
        "专业知识",
        "专业实践能力",
    ]
    on_paper = [(p.subject, p.starts, p.ends) for p in cycle.papers if p.mode == "paper"]
    assert on_paper == [
        (1, at(4, 13, 9), at(4, 13, 11)),
        (2, at(4, 13, 14), at(4, 13, 16)),
        (3, at(4, 14, 9), at(4, 14, 11)),
        (4, at(4, 14, 14), at(4, 14, 16)),
    ]
    on_computer = [p for p in cycle.papers if p.mode == "computer"]
    assert [(p.subject, p.starts, p.ends) for p in on_computer] == [
        paper
        for day in (13, 14, 20, 21)
        for paper in (
            (1, at(4, day, 8, 30), at(4, day, 10)),
            (2, at(4, day, 10, 45), at(4, day, 12, 15)),
            (3, at(4, day, 14), at(4, day, 15, 30)),
            (4, at(4, day, 16, 15), at(4, day, 17, 45)),
        )
    ]
    assert {len([p for p in cycle.papers if p.session == one.session]) for one in cycle.papers} == {4}
    assert cycle.last_paper_ends_at == at(4, 21, 17, 45)


def test_the_other_facts_of_the_notice(cycle: Cycle) -> None:
    assert cycle.id == "2024-health-leshan"
    assert cycle.contact_phone == "0833-2495079"
    assert cycle.notice.website == "www.21wecan.com"
    assert [level.id for level in cycle.review_levels] == ["desk", "site", "district"]
    assert cycle.review_level("district").name == "考区"
    assert (cycle.switches.auto_confirm, cycle.switches.on_missed) == (False, "lapse")
    assert {level.id: level.name for level in cycle.levels} == {
        "junior-assistant": "初级士",
        "junior": "初级师",
        "intermediate": "中级",
    }
    assert cycle.level("junior").name == "初级师"
    assert cycle.mode("paper").name == "纸笔作答"
    assert [document.id for document in cycle.documents if not document.needed] == ["other"]
    assert cycle.document("education").note == "提供电子备案注册表可不提供原件"
    assert (cycle.photo.processed.min_bytes, cycle.photo.processed.max_bytes) == (20 * 1024, 45 * 1024)
    assert cycle.photo.source.min_bytes == 45 * 1024 + 1
    assert cycle.returning_rule("intermediate").consecutive_years == 2


def test_quiet_hours_are_those_of_the_clock_on_the_wall(cycle: Cycle) -> None:
    assert not cycle.is_quiet(at(2, 8, 22) - TICK)
    assert cycle.is_quiet(at(2, 8, 22).astimezone(UTC))
    assert cycle.quiet_until(at(2, 8, 22)) == at(2, 9, 8)
    assert cycle.quiet_until(at(2, 9, 0)) == at(2, 9, 8)
    assert cycle.quiet_until(at(2, 9, 8)) == at(2, 9, 8)
    assert not cycle.is_quiet(at(2, 9, 8))


def test_dead_ends_are_no_longer_reachable(cycle: Cycle) -> None:
    def gone(moment: datetime) -> set[str]:
        return {site.id for site in cycle.sites} - {site.id for site in cycle.still_reachable(moment)}

    assert gone(at(12, 13) - TICK) == set()
    assert gone(at(12, 13)) == {"ebian", "gaoxin"}
    assert gone(at(12, 14)) == {"ebian", "gaoxin", "jingyan", "muchuan"}
    assert gone(at(12, 14, 12)) == {"ebian", "gaoxin", "jingyan", "muchuan", "shizhong"}
    assert gone(at(12, 16)) == {site.id for site in cycle.sites} - {"municipal"}


def test_lookups_name_what_is_not_there(cycle: Cycle) -> None:
    assert cycle.site("ebian") is next(site for site in cycle.sites if site.id == "ebian")
    assert cycle.specialty("203").mode == "paper"
    for look_up in (cycle.site, cycle.specialty, cycle.level, cycle.mode, cycle.document, cycle.review_level):
        with pytest.raises(KeyError, match="nowhere"):
            look_up("nowhere")


def test_an_undated_desk_falls_back_to_the_overall_window(cycle: Cycle) -> None:
    assert cycle.confirmation_window(cycle.site("municipal")) == cycle.windows.confirmation
    shizhong = cycle.site("shizhong")
    assert cycle.confirmation_window(shizhong) is shizhong.window


def test_a_cycle_is_one_value(cycle: Cycle) -> None:
    again = Cycle.read(FILE)
    assert again == cycle
    assert hash(again) == hash(cycle)
    assert {cycle: 1}[again] == 1
    assert cycle != "2024-health-leshan"
    with pytest.raises(ValueError, match="frozen"):
        cycle.id = "2025-health-leshan"  # type: ignore[misc]  # that it cannot is what is tested
    site: Site = cycle.site("ebian")
    assert hash(site) == hash(again.site("ebian"))


def test_the_fingerprint_is_of_the_content_not_of_the_spelling(cycle: Cycle, tmp_path: Path) -> None:
    def read(text: str) -> Cycle:
        file = tmp_path / "cycle.toml"
        file.write_text(text, encoding="utf-8")
        return Cycle.read(file)

    text = FILE.read_text(encoding="utf-8")
    spelled = text.replace("2024-02-09T00:00:00+08:00", "2024-02-08T16:00:00Z").replace("# ", "#  ")
    assert spelled != text
    assert read(spelled).fingerprint == cycle.fingerprint
    for old, new in (
        ("amount_fen = 5000", "amount_fen = 5001"),
        ("2024-02-09T00:00:00+08:00", "2024-02-09T00:00:01+08:00"),
        ('"2h"]', '"1h"]'),
        ("starts = 22:00:00", "starts = 22:30:00"),
        ("0833-2495079", "0833-2495070"),
    ):
        assert old in text
        assert read(text.replace(old, new)).fingerprint != cycle.fingerprint


def test_every_value_of_the_file_has_its_source() -> None:
    """In each block of values the words of the notice, or the rule that fills its silence."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    blocks: list[list[str]] = [[]]
    for line in lines:
        if not line.strip():
            blocks.append([])
        else:
            blocks[-1].append(line)
    for block in blocks:
        has_values = any("=" in line and not line.startswith(("#", " ")) for line in block)
        sources = [line for line in block if line.startswith("#") and ("“" in line or "rules.md" in line)]
        assert sources or not has_values, block


def test_what_the_file_quotes_the_notice_says() -> None:
    said = "".join(NOTICE.read_text(encoding="utf-8").split())
    quoted = [
        part.partition("”")[0]
        for line in FILE.read_text(encoding="utf-8").splitlines()
        if line.startswith("# ")
        for part in line.split("“")[1:]
    ]
    assert len(quoted) > 100
    for quote in quoted:
        for piece in quote.replace("｜", "……").split("……"):
            assert "".join(piece.split()) in said, f"the notice does not say: {piece}"


# Another notice, of another shape: what this one does not need must be writable all the same.

OTHER = """
id = "2025-civil-province"
name = "某省公务员考试"
time_zone = "Asia/Shanghai"
currency = "CNY"
contact_phone = "12345"
levels = [{ id = "clerk", name = "科员" }]
modes = [{ id = "paper", name = "纸笔" }, { id = "oral", name = "面试" }]
subjects = [{ number = 1, name = "行测" }, { number = 2, name = "申论" }]
specialties = [
  { code = "0001", name = "综合", level = "clerk", mode = "paper", status = "verified" },
  { code = "0002", name = "外语", level = "clerk", mode = "oral", status = "verified" },
]
fees = [
  { name = "报名费", amount_fen = 1000, per = "candidate" },
  { name = "笔试费", amount_fen = 4500, per = "subject", modes = ["paper"] },
  { name = "面试费", amount_fen = 8050, per = "subject", levels = ["clerk"], modes = ["oral"] },
]
review_levels = [{ id = "office", name = "人社局" }]
documents = []
returning = []
papers = []
sites = [{ id = "online", name = "网上", window = { intervals = [
  { opens = 2025-01-01T00:00:00+08:00, closes = 2025-01-03T00:00:00+08:00 },
  { opens = 2025-01-05T00:00:00+08:00, closes = 2025-01-06T00:00:00+08:00 },
], daily = { opens = 09:00:00, closes = 17:00:00 } } }]

[notice]
title = "公告"
website = "example.cn"

[windows.pre_registration]
intervals = [{ opens = 2025-01-01T00:00:00+08:00, closes = 2025-01-03T00:00:00+08:00 }]
[windows.confirmation]
intervals = [{ opens = 2025-01-01T00:00:00+08:00, closes = 2025-01-06T00:00:00+08:00 }]
[windows.payment]
intervals = [{ opens = 2025-01-06T00:00:00+08:00, closes = 2025-01-08T00:10:00+08:00 }]
told_closes = 2025-01-08T00:00:00+08:00
daily = { opens = 00:00:00, closes = 22:00:00 }
no_orders_before_close = "2m"
reminders = []
[windows.results]
intervals = [{ opens = 2025-02-01T00:00:00+08:00, closes = 2025-03-01T00:00:00+08:00 }]

[photo]
format = "jpeg"
background = "蓝底"
pose = "免冠"
not_accepted = []
source = { min_bytes = 1, min_width = 1, min_height = 1 }
processed = { min_bytes = 1, max_bytes = 9999, width = 1, height = 1, tolerance = 0 }

[quiet_hours]
starts = 12:00:00
ends = 14:00:00

[switches]
auto_confirm = true
on_missed = "lapse"
"""


def test_another_notice_fits_the_same_shape(tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text(OTHER, encoding="utf-8")
    other = Cycle.read(file)
    assert other.fee_fen("clerk", (1, 2), "paper") == 1000 + 2 * 4500
    assert other.fee_fen("clerk", (1,), "oral") == 1000 + 8050
    window = other.site("online").window
    assert window is not None
    assert len(window.spans) == 3
    assert window.is_open(datetime(2025, 1, 5, 9, tzinfo=SHANGHAI))
    assert not window.is_open(datetime(2025, 1, 4, 9, tzinfo=SHANGHAI))
    assert window.closes == datetime(2025, 1, 5, 17, tzinfo=SHANGHAI)
    assert other.last_paper_ends_at is None
    assert other.windows.payment.told_closes == datetime(2025, 1, 8, tzinfo=SHANGHAI)
