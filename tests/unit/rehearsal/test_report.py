"""What an office head reads in a report adds up and is in Chinese."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from contracts.cycle import Cycle
from deploy.rehearsal import commands
from deploy.rehearsal.invariants import judge
from deploy.rehearsal.invariants.evidence import Evidence, Fact, Finding
from deploy.rehearsal.invariants.privacy import Canaries, search
from deploy.rehearsal.outcomes import STATES
from deploy.rehearsal.report import Run, charts, figures, tables, words
from deploy.rehearsal.report.figures import Stage

FILE = Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml"
CYCLE = Cycle.read(FILE)
AT = datetime(2024, 1, 1, tzinfo=UTC)
STAGES = ("registration.pre-registered", "confirmation.confirmed", "confirmation.approved")
# How far somebody of each state has come at least: `stages` they have behind them.
AT_LEAST = {"refused": 0, "confirmed": 2, "approved": 3, "paid": 3, "expired": 3, "held": 3}


def run_of(people: Iterable[tuple[str, int, int]]) -> Run:
    """(state, stages behind them, earlier registrations that came to nothing)."""
    evidence = Evidence(CYCLE)
    outcomes = []
    for state, behind, earlier in people:
        ids = [str(uuid4()) for _ in range(earlier + (behind > 0))]
        for number, key in enumerate(ids, start=1):
            reached = STAGES[: behind if number == len(ids) else 1]
            for kind in reached:
                service, _, word = kind.partition(".")
                fact = Fact(uuid4(), "", key, f"kaowu.{service}.{word}.v1", 1, AT, {}, None)
                evidence.facts.setdefault(service, []).append(fact)
        outcomes.append(SimpleNamespace(state=state, registration_id=ids[-1] if behind else None))
    return cast("Run", SimpleNamespace(evidence=evidence, outcomes=outcomes))


@given(st.lists(st.tuples(st.sampled_from(STATES), st.integers(1, 3), st.integers(0, 2)), max_size=30))
def test_each_stage_less_those_it_names_is_the_next_one(people: list[tuple[str, int, int]]) -> None:
    lived = [
        (
            state,
            0 if state == "refused" else max(behind, AT_LEAST.get(state, 1)),
            0 if state == "refused" else earlier,
        )
        for state, behind, earlier in people
    ]
    stages = figures.stages(run_of(lived))
    assert stages[0].count == len(people)
    for one, following in pairwise(stages):
        assert one.count - sum(count for _, count in one.lost) == following.count, (one, following)


def test_whoever_came_again_is_one_person() -> None:
    stages = figures.stages(run_of([("paid", 3, 2), ("refused", 0, 0)]))
    assert [stage.count for stage in stages] == [2, 1, 1, 1, 1]


def test_every_check_says_what_was_checked_in_chinese() -> None:
    evidence = Evidence(CYCLE)
    search(evidence, Canaries({}, [("13800000000", "somebody")]), "logs", [("a.log", b"nothing")])
    for finding in judge(evidence):
        said = words.checked(finding.id, finding.checked)
        assert said != finding.checked, finding
        assert not any("a" <= letter <= "z" for letter in said.replace("MiB", "")), said
        assert finding.id in words.INVARIANTS


def test_money_is_in_yuan_where_an_office_reads_it() -> None:
    said = words.checked("I1", "69 payments, 1465000 fen, against 74 orders in the gateway's book")
    assert said == "缴费 69 笔，共 14,650.00 元"


def test_every_number_of_the_funnel_stands_where_a_phone_shows_it() -> None:
    """A phone shows the left half of a chart: 360 pixels of it, drawn 600 wide."""
    stages = [Stage("参加演练", 80, (("未能预报名", 3),)), Stage("网上预报名", 77, ()), Stage("缴费", 1, ())]
    drawn = charts.funnel(stages)
    places = {words: float(x) for x, words in re.findall(r'<text x="([0-9.]+)"[^>]*>([^<]+)<', drawn)}
    assert {"80", "77", "1", "− 未能预报名 3"} <= set(places)
    assert max(places.values()) < charts.WIDE / 2


def test_people_are_whole_at_every_line_of_the_last_minutes() -> None:
    minutes = [figures.Minute(AT, paid=1, refused=0, expired=0, unpaid=9)]
    drawn = charts.close(minutes, AT, AT, CYCLE.zone)
    right = re.findall(rf'<text x="{charts.WIDE - 50:.1f}"[^>]*>(\d+)<', drawn)
    assert right == ["0", "3", "6", "9", "12"]


def test_a_check_that_says_something_new_is_shown_as_it_was_said() -> None:
    assert words.checked("I1", "7 payments and a half") == "7 payments and a half"
    assert words.checked("I99", "x") == "x"


@pytest.mark.parametrize(
    ("at", "read"),
    [
        ("2024-02-09T00:00:00+08:00", "2024年2月8日 24:00"),
        ("2024-01-01T00:00:00+08:00", "2023年12月31日 24:00"),
        ("2023-12-14T12:00:00+08:00", "2023年12月14日 12:00"),
        ("2024-02-08T16:00:00+00:00", "2024年2月8日 24:00"),
    ],
)
def test_a_close_at_midnight_is_read_as_the_end_of_the_day_before(at: str, read: str) -> None:
    assert words.moment_of_close(datetime.fromisoformat(at), CYCLE.zone) == read


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("kill payment", "服务进程被终止（缴费）"),
        ("wechat-down", "微信支付网关不应答"),
        ("two-person-move", "两人办理的时间变更"),
        ("callback-replay", "支付回调重放"),
        ("meteor", "meteor"),
    ],
)
def test_a_fault_that_was_met_is_named_in_chinese(name: str, read: str) -> None:
    assert words.fault(name) == read


async def test_where_no_report_can_be_written_nothing_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a-file"
    file.touch()
    data = tmp_path / "system"
    code = await commands.rehearse(cycle=FILE, candidates=2, seed=1, people=None, report=file, data=data)
    said = capsys.readouterr().out
    assert code == 1
    assert "no report can be written" in said
    assert "name a directory" in said
    assert not data.exists()


def test_a_finding_is_one_line_however_narrow_the_terminal_and_whatever_it_quotes() -> None:
    """What is piped into a file or a filter has 80 columns: what was checked must not be cut in two there."""
    said = io.StringIO()
    checked = (
        "4,000 obligations, 3,812 payments, 188 forfeitures and 12 refunds [/red] of every desk of the cycle"
    )
    violations = tuple(
        f"registration {number} of [desk] shizhong is paid, which its ledger denies: {'0' * 64}"
        for number in range(tables.SHOWN + 2)
    )
    findings = [
        Finding("I1", "nobody who paid loses a place", checked, violations),
        Finding("I2", "b", "c", ()),
    ]
    tables.show_findings(findings, Console(file=said, width=40, color_system=None))
    assert said.getvalue().splitlines() == [
        f"FAIL I1   nobody who paid loses a place: {checked}",
        *(f"          {violation}" for violation in violations[: tables.SHOWN]),
        "          … and 2 more",
        "ok   I2   b: c",
    ]
