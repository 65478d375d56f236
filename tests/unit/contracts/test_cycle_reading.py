"""A bad cycle file is refused with line, key, reason and remedy, and with everything that is wrong with it at once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.cycle import Cycle, CycleInvalid, Problem

LESHAN = Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml"
TEXT = LESHAN.read_text(encoding="utf-8")

Edit = tuple[str, str]


# What is also wrong once the key is: a name that is gone is missed by those who speak of it.
CONSEQUENCES = {
    "subjects[1].number": tuple(f"papers[{index}].subject" for index in range(1, 20, 4)),
}


@pytest.fixture
def problems(tmp_path: Path) -> Callable[..., list[Problem]]:
    def of(*edits: Edit, text: str = TEXT) -> list[Problem]:
        for old, new in edits:
            assert text.count(old) >= 1, old
            text = text.replace(old, new, 1)
        file = tmp_path / "cycle.toml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(CycleInvalid) as raised:
            Cycle.read(file)
        found = raised.value.problems
        lines = text.splitlines()
        for problem in found:
            assert problem.reason, problem
            assert problem.remedy, problem
            assert 1 <= problem.line <= max(len(lines), 1), problem
        return found

    return of


def line_of(snippet: str, edit: Edit | None = None) -> int:
    text = TEXT.replace(*edit, 1) if edit else TEXT
    return text[: text.index(snippet)].count("\n") + 1


PAYMENT = "intervals = [{ opens = 2024-01-29T00:00:00+08:00, closes = 2024-02-09T00:00:00+08:00 }]"
SHIZHONG = (
    "window = { intervals = [{ opens = 2023-12-08T00:00:00+08:00, closes = 2023-12-14T12:00:00+08:00 }] }"
)

# name, edit, the line's text after the edit, key, a part of the reason, a part of the remedy
BAD: list[tuple[str, Edit, str, str, str, str]] = [
    (
        "window ends before it opens",
        ("2024-02-09T00:00:00+08:00", "2024-01-09T00:00:00+08:00"),
        "2024-01-09T00:00:00",
        "windows.payment.intervals[0].closes",
        "ends before it opens",
        "Write a close after the opening",
    ),
    (
        "a desk's window ends when it opens",
        ("2023-12-14T12:00:00+08:00", "2023-12-08T00:00:00+08:00"),
        "opens = 2023-12-08T00:00:00+08:00, closes = 2023-12-08",
        "sites[0].window.intervals[0].closes",
        "ends before it opens",
        "Write a close after the opening",
    ),
    (
        "unknown desk",
        ('site = "municipal"', 'site = "munizipal"'),
        '"munizipal"',
        "employers[0].site",
        "unknown desk 'munizipal'",
        "Write one of shizhong, wutongqiao",
    ),
    (
        "unknown level of a specialty",
        ('name = "药学", level = "junior-assistant"', 'name = "药学", level = "senior"'),
        'level = "senior"',
        "specialties[0].level",
        "unknown level 'senior'",
        "junior-assistant, junior, intermediate",
    ),
    (
        "unknown level of a fee",
        ('levels = ["intermediate"]', 'levels = ["intermediate", "senior"]'),
        '["intermediate", "senior"]',
        "fees[1].levels[1]",
        "unknown level 'senior'",
        "or add it to levels",
    ),
    (
        "unknown subject of a paper",
        ("subject = 1\nstarts", "subject = 9\nstarts"),
        "subject = 9",
        "papers[0].subject",
        "unknown subject 9",
        "1, 2, 3, 4",
    ),
    (
        "missing time zone",
        ("2024-02-09T00:00:00+08:00", "2024-02-09T00:00:00"),
        "closes = 2024-02-09T00:00:00 ",
        "windows.payment.intervals[0].closes",
        "time zone is missing",
        "+08:00",
    ),
    (
        "a day instead of a moment",
        ("2024-02-09T00:00:00+08:00", "2024-02-09"),
        "closes = 2024-02-09 ",
        "windows.payment.intervals[0].closes",
        "a day is not a moment",
        "2024-02-09T00:00:00+08:00",
    ),
    (
        "a moment in quotes",
        ("closes = 2024-02-09T00:00:00+08:00", 'closes = "2024-02-09T00:00:00+08:00"'),
        '"2024-02-09',
        "windows.payment.intervals[0].closes",
        "not a moment",
        "without quotes",
    ),
    (
        "23:59:59",
        ("2024-02-09T00:00:00+08:00", "2024-02-08T23:59:59+08:00"),
        "23:59:59",
        "windows.payment.intervals[0].closes",
        "23:59 is not the end of a day",
        "00:00:00 of the next day",
    ),
    (
        "23:59",
        ("2024-02-09T00:00:00+08:00", "2024-02-08T23:59:00+08:00"),
        "23:59:00",
        "windows.payment.intervals[0].closes",
        "23:59 is not the end of a day",
        "00:00:00 of the next day",
    ),
    (
        "quiet hours to the last second",
        ("ends = 08:00:00", "ends = 23:59:59"),
        "ends = 23:59:59",
        "quiet_hours.ends",
        "23:59 is not the end of a day",
        "00:00:00 of the next day",
    ),
    (
        "fee with a point",
        ("amount_fen = 5000", "amount_fen = 50.00"),
        "amount_fen = 50.00",
        "fees[0].amount_fen",
        "a fee is a whole number of fen",
        "50 yuan as 5000",
    ),
    (
        "fee in quotes",
        ("amount_fen = 5000", 'amount_fen = "5000"'),
        'amount_fen = "5000"',
        "fees[0].amount_fen",
        "a fee is a whole number of fen",
        "without quotes",
    ),
    (
        "fee below zero",
        ("amount_fen = 5000", "amount_fen = -1"),
        "amount_fen = -1",
        "fees[0].amount_fen",
        "a fee is a whole number of fen",
        "50 yuan as 5000",
    ),
    (
        "fee that is true",
        ("amount_fen = 5000", "amount_fen = true"),
        "amount_fen = true",
        "fees[0].amount_fen",
        "a fee is a whole number of fen",
        "50 yuan as 5000",
    ),
    (
        "unknown key",
        ("[switches]", '[switches]\non_mised = "lapse"'),
        "on_mised",
        "switches.on_mised",
        "unknown key",
        "Correct its spelling or remove it",
    ),
    (
        "unknown table",
        ("[switches]", "[extras]\na = 1\n\n[switches]"),
        "[extras]",
        "extras",
        "unknown key",
        "remove it",
    ),
    (
        "unknown key of a desk",
        ('phone = "0833-2422047"', 'telephone = "0833-2422047"'),
        "telephone",
        "sites[0].telephone",
        "unknown key",
        "Correct its spelling",
    ),
    (
        "two desks of one id",
        ('id = "wutongqiao"', 'id = "shizhong"'),
        'id = "shizhong"\n# “五通桥区',
        "sites[1].id",
        "'shizhong' is already the id of sites[0]",
        "its own id",
    ),
    (
        "two specialties of one code",
        ('code = "102"', 'code = "101"'),
        'code = "101", name = "中药学"',
        "specialties[1].code",
        "'101' is already the code of specialties[0]",
        "its own",
    ),
    (
        "two subjects of one number",
        ("number = 2", "number = 1"),
        "number = 1\n# “相关专业知识”",
        "subjects[1].number",
        "1 is already the number of subjects[0]",
        "its own",
    ),
    (
        "overlapping intervals",
        (
            PAYMENT,
            PAYMENT.replace(
                " }]", " }, { opens = 2024-02-08T00:00:00+08:00, closes = 2024-02-10T00:00:00+08:00 }]"
            ),
        ),
        "[windows.payment]",
        "windows.payment",
        "intervals of the window overlap",
        "Sort them",
    ),
    (
        "a key is missing",
        ('contact_phone = "0833-2495079"\n', ""),
        "# 2024年度",
        "contact_phone",
        "this key is missing",
        "Add it",
    ),
    (
        "a key of a desk is missing",
        ('id = "shizhong"\n', ""),
        "[[sites]]\n# “市中区",
        "sites[0].id",
        "this key is missing",
        "Add it",
    ),
    (
        "a desk neither dated nor undated",
        (SHIZHONG, ""),
        '[[sites]]\nid = "shizhong"',
        "sites[0]",
        "this desk has no window",
        "undated_note",
    ),
    (
        "a desk both dated and undated",
        (SHIZHONG, SHIZHONG + '\nundated_note = "另行通知"'),
        "undated_note",
        "sites[0].undated_note",
        "either dated or undated",
        "not both",
    ),
    (
        "no fee for a level",
        ('levels = ["intermediate"]', 'levels = ["junior"]'),
        '{ code = "301"',
        "specialties[23]",
        "no fee applies to level 'intermediate'",
        "Add an item to fees",
    ),
    (
        "two papers at once",
        ("starts = 2024-04-13T14:00:00+08:00", "starts = 2024-04-13T10:59:59+08:00"),
        "starts = 2024-04-13T10:59:59",
        "papers[1].starts",
        "overlaps papers[0] of the same session 'paper'",
        "Move one of them",
    ),
    (
        "a paper that ends before it starts",
        ("ends = 2024-04-13T11:00:00+08:00", "ends = 2024-04-13T08:00:00+08:00"),
        "ends = 2024-04-13T08:00:00",
        "papers[0].ends",
        "ends at or before it starts",
        "after the start",
    ),
    (
        "no such time zone",
        ('"Asia/Shanghai"', '"Asia/Leshan"'),
        "Asia/Leshan",
        "time_zone",
        "no such time zone",
        "Asia/Shanghai",
    ),
    (
        "no such switch",
        ('on_missed = "lapse"', 'on_missed = "forgive"'),
        "forgive",
        "switches.on_missed",
        "not one of 'lapse'",
        "one of these",
    ),
    (
        "a switch in quotes",
        ("auto_confirm = false", 'auto_confirm = "false"'),
        "auto_confirm",
        "switches.auto_confirm",
        "neither true nor false",
        "without quotes",
    ),
    (
        "a span nobody understands",
        ('no_orders_before_close = "2m"', "no_orders_before_close = 120"),
        "no_orders_before_close",
        "windows.payment.no_orders_before_close",
        "not a span of time",
        '"7d"',
    ),
    (
        "an id in capitals",
        ('id = "shizhong"', 'id = "Shizhong"'),
        "Shizhong",
        "sites[0].id",
        "not of the form",
        "contracts/README.md",
    ),
    (
        "told before it opens",
        (PAYMENT, PAYMENT + "\ntold_closes = 2024-01-29T00:00:00+08:00"),
        "told_closes",
        "windows.payment.told_closes",
        "ends before it opens",
        "after the opening",
    ),
]


@pytest.mark.parametrize(
    ("edit", "snippet", "key", "reason", "remedy"),
    [rest for _, *rest in BAD],
    ids=[name for name, *_ in BAD],
)
def test_one_mistake_is_one_problem(
    problems: Callable[..., list[Problem]], edit: Edit, snippet: str, key: str, reason: str, remedy: str
) -> None:
    found = [problem for problem in problems(edit) if problem.key not in CONSEQUENCES.get(key, ())]
    assert [problem.key for problem in found] == [key]
    assert reason in found[0].reason
    assert remedy in found[0].remedy
    assert found[0].line == line_of(snippet, edit)


def test_a_repaired_file_is_a_cycle(tmp_path: Path) -> None:
    """That the edits above are what is wrong, and nothing else."""
    file = tmp_path / "cycle.toml"
    file.write_text(TEXT, encoding="utf-8")
    assert Cycle.read(file) == Cycle.read(LESHAN)


def test_everything_is_told_at_once(problems: Callable[..., list[Problem]]) -> None:
    found = problems(
        ("amount_fen = 5000", "amount_fen = 50.5"),
        ("2024-02-09T00:00:00+08:00", "2024-02-08T23:59:59"),
        ("2023-12-14T12:00:00+08:00", "2023-12-07T12:00:00+08:00"),
        ('site = "municipal"', 'site = "nowhere"'),
        ('id = "wutongqiao"', 'id = "shizhong"'),
        ("[switches]", '[switches]\non_mised = "lapse"'),
    )
    assert {problem.key for problem in found} == {
        "fees[0].amount_fen",
        "windows.payment.intervals[0].closes",
        "sites[0].window.intervals[0].closes",
        "employers[0].site",
        "sites[1].id",
        "switches.on_mised",
    }
    assert [problem.line for problem in found] == sorted(problem.line for problem in found)
    assert all(problem.line > 0 for problem in found)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("id = \n", 1, "not TOML: Invalid value"),
        ("id = 'x'\nid = 'y'\n", 2, "not TOML: Cannot overwrite a value"),
        ("a = 1\nb = 2024-02-30T00:00:00+08:00\n", 2, "not TOML: Invalid date or datetime"),
        ("a = 1\n[b\n", 2, "not TOML: Expected ']'"),
        ("a = 2024-02-09T24:00:00+08:00\n", 1, "not TOML"),
        ("a = 'x", 1, "not TOML"),
        ("\ufeffid = 'x'\n", 1, "byte order mark"),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(
    problems: Callable[..., list[Problem]], text: str, line: int, reason: str
) -> None:
    (found,) = problems(text=text)
    assert found.line == line
    assert found.reason.startswith(reason) or reason in found.reason
    assert "at line" not in found.reason


def test_a_file_that_cannot_be_read_is_told_as_well(tmp_path: Path) -> None:
    latin = tmp_path / "latin.toml"
    latin.write_bytes("name = '乐山'".encode("gb18030"))
    for path, reason in (
        (tmp_path / "none.toml", "cannot be read"),
        (tmp_path, "cannot be read"),
        (latin, "UTF-8"),
    ):
        with pytest.raises(CycleInvalid, match=reason):
            Cycle.read(path)


@pytest.mark.parametrize(
    "text", ["", "sites = 1\nfees = [1, 2]\npapers = 'x'\ntime_zone = 3\n", "[sites]\nid = 1\n"]
)
def test_the_wrong_shape_altogether_is_no_crash(problems: Callable[..., list[Problem]], text: str) -> None:
    assert len(problems(text=text)) > 10
