"""Warnings about a valid cycle: each kind seen, and not seen where there is no reason."""

from pathlib import Path

import pytest

from contracts.cycle import Cycle, Finding

FILE = Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml"
TEXT = FILE.read_text(encoding="utf-8")
PAYMENT = "closes = 2024-02-09T00:00:00+08:00 }]"


def findings(tmp_path: Path, *edits: tuple[str, str]) -> tuple[Finding, ...]:
    text = TEXT
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    file = tmp_path / "cycle.toml"
    file.write_text(text, encoding="utf-8")
    return Cycle.read(file).lint()


def keys(found: tuple[Finding, ...], kind: str) -> list[str]:
    return [finding.key for finding in found if finding.kind == kind]


def test_the_five_dead_ends_of_leshan_are_named() -> None:
    found = [finding for finding in Cycle.read(FILE).lint() if finding.kind == "dead-end"]
    assert [finding.key for finding in found] == [
        "sites.shizhong",
        "sites.jingyan",
        "sites.ebian",
        "sites.muchuan",
        "sites.gaoxin",
    ]
    for finding, name in zip(found, ("市中区", "井研", "峨边", "沐川", "高新区"), strict=True):
        assert name in finding.message
    assert "closes 2023-12-14 12:00" in found[0].message
    assert "until 2023-12-15 00:00" in found[0].message


def test_everything_leshan_is_warned_of() -> None:
    assert [
        (finding.kind, finding.key) for finding in Cycle.read(FILE).lint() if finding.kind != "dead-end"
    ] == [
        ("undated-desk", "sites.municipal"),
        ("overlap", "windows.confirmation"),
        ("specialty-count", "modes.computer"),
    ]


def test_a_desk_that_closes_with_pre_registration_is_no_dead_end(tmp_path: Path) -> None:
    to_the_end = ("2023-12-14T12:00:00+08:00", "2023-12-15T00:00:00+08:00")
    assert "sites.shizhong" not in keys(findings(tmp_path, to_the_end), "dead-end")
    one_second_less = ("2023-12-14T12:00:00+08:00", "2023-12-14T23:58:59+08:00")
    assert "sites.shizhong" in keys(findings(tmp_path, one_second_less), "dead-end")


def test_a_dated_desk_is_not_undated(tmp_path: Path) -> None:
    dated = (
        'undated_note = "以单位人事科通知为准"',
        "window = { intervals = [{ opens = 2023-12-12T00:00:00+08:00, closes = 2023-12-16T00:00:00+08:00 }] }",
    )
    assert keys(findings(tmp_path, dated), "undated-desk") == []


@pytest.mark.parametrize(
    ("told", "warned"),
    [
        ("2024-02-09T00:00:00+08:00", []),
        ("2024-02-08T23:50:00+08:00", []),
        ("2024-02-09T00:00:01+08:00", ["windows.payment.told_closes"]),
    ],
)
def test_a_close_told_later_than_enforced_is_warned_of(tmp_path: Path, told: str, warned: list[str]) -> None:
    assert keys(findings(tmp_path, (PAYMENT, f"{PAYMENT}\ntold_closes = {told}")), "told-later") == warned


def test_a_desk_told_later_than_enforced_is_warned_of(tmp_path: Path) -> None:
    shizhong = "closes = 2023-12-14T12:00:00+08:00 }] }"
    edit = (shizhong, shizhong.replace("}] }", "}], told_closes = 2023-12-14T17:00:00+08:00 }"))
    assert keys(findings(tmp_path, edit), "told-later") == ["sites.shizhong.window.told_closes"]


def test_a_desk_outside_the_overall_window_is_warned_of(tmp_path: Path) -> None:
    for edit in (
        ("closes = 2023-12-16T00:00:00+08:00 }] }", "closes = 2023-12-17T00:00:00+08:00 }] }"),
        ("opens = 2023-12-13T00:00:00+08:00", "opens = 2023-12-01T00:00:00+08:00"),
    ):
        assert keys(findings(tmp_path, edit), "outside") == ["sites.wutongqiao.window"]


def test_stages_that_overlap_are_warned_of_and_adjacent_ones_are_not(tmp_path: Path) -> None:
    adjacent = ("opens = 2023-12-02T00:00:00+08:00", "opens = 2023-12-15T00:00:00+08:00")
    assert keys(findings(tmp_path, adjacent), "overlap") == []
    early = ("opens = 2024-01-29T00:00:00+08:00", "opens = 2023-12-15T12:00:00+08:00")
    assert keys(findings(tmp_path, adjacent, early), "overlap") == ["windows.payment"]


def test_results_before_the_last_paper_are_warned_of(tmp_path: Path) -> None:
    early = ("opens = 2024-04-22T00:00:00+08:00", "opens = 2024-04-21T17:44:59+08:00")
    assert keys(findings(tmp_path, early), "results-early") == ["windows.results"]


def test_a_count_that_agrees_is_not_warned_of(tmp_path: Path) -> None:
    assert keys(findings(tmp_path, ("specialties = 112", "specialties = 114")), "specialty-count") == []
    assert keys(findings(tmp_path, ("\nspecialties = 112", "")), "specialty-count") == []
    assert keys(findings(tmp_path, ("specialties = 1\n", "specialties = 2\n")), "specialty-count") == [
        "modes.paper",
        "modes.computer",
    ]


def test_a_moment_in_another_offset_is_warned_of(tmp_path: Path) -> None:
    edit = (PAYMENT, PAYMENT.replace("2024-02-09T00:00:00+08:00", "2024-02-09T00:00:00Z"))
    (found,) = (each for each in findings(tmp_path, edit) if each.kind == "zone-offset")
    assert found.key == "windows.payment"
    assert "there it is 2024-02-09 08:00" in found.message
    told = (PAYMENT, f"{PAYMENT}\ntold_closes = 2024-02-08T15:00:00Z")
    assert keys(findings(tmp_path, told), "zone-offset") == ["windows.payment"]
