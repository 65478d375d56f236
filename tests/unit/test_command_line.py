"""What the command line says of wrong input: one line or a few, what, where and what to do; never a traceback."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console

from contracts.cycle import Cycle
from deploy import cli
from deploy.backup.archive import CannotBackUp, place_for, target_of
from deploy.backup.commands import _then
from deploy.bench import counter
from deploy.evidence.commands import check, show_preview
from deploy.evidence.verdict import Unreadable
from deploy.evidence.verifying import verify
from deploy.local.foreground import _hints

AT = datetime(2024, 2, 8, 16, tzinfo=UTC)
LESHAN = Path(__file__).resolve().parents[2] / "deploy" / "cycles" / "2024-health-leshan.toml"
SOMEBODY = UUID("0190a000-0000-7000-8000-000000000001")


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> tuple[int, str]:
    """The exit code of `kaowu …` as the console script runs it, and all that it says."""
    monkeypatch.setattr(sys, "argv", ["kaowu", *(str(one) for one in arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, shown.out + shown.err


def test_a_cycle_that_is_none_is_said_line_by_line_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(LESHAN.read_text(encoding="utf-8").replace("+08:00", ""), encoding="utf-8")
    code, text = said(monkeypatch, capsys, "rehearse", "--cycle", file, "--report", tmp_path / "report")
    lines = text.splitlines()
    assert code == 1
    assert lines[0] == f"kaowu: {file} is no cycle:"
    assert lines[1].startswith("  line ")
    assert "Write the offset behind the moment" in lines[1]
    assert len(lines) == 10
    assert lines[-1].endswith(f"more: kaowu cycle lint {file}")


def test_a_directory_that_cannot_be_made_is_named_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a-file"
    file.touch()
    code, text = said(
        monkeypatch, capsys, "rehearse", "--candidates", "1", "--report", tmp_path / "r", "--data", file
    )
    assert (code, text) == (1, f"kaowu: {file}: File exists\n")
    code, text = said(monkeypatch, capsys, "templates", "preview", "--to", file / "page.html")
    assert code == 1
    assert text.startswith(f"kaowu: {file}")
    assert "Traceback" not in text


def test_an_evidence_file_that_cannot_be_written_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere" / "x.json"
    data = tmp_path / "no-system"
    code, text = said(monkeypatch, capsys, "evidence", str(SOMEBODY), "-o", nowhere, "--data", data)
    assert code == 1
    assert "no evidence was written: there is no directory" in text
    assert str(nowhere.parent) in text
    assert not data.exists()


def test_a_slash_at_the_end_makes_a_directory_for_backups(tmp_path: Path) -> None:
    directory = target_of(f"{tmp_path}/backups/")
    assert directory.is_dir()
    assert place_for(directory, "leshan", AT).name == "leshan-20240208T160000Z.kaowu-backup"
    one_file = target_of(f"{tmp_path}/one")
    assert place_for(one_file, "leshan", AT) == tmp_path / "one"
    (tmp_path / "file").touch()
    with pytest.raises(CannotBackUp, match="cannot be made a directory"):
        target_of(f"{tmp_path}/file/")


def test_a_file_that_is_no_backup_is_not_written_over(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("not to be lost")
    with pytest.raises(CannotBackUp, match="is no backup of kaowu's: it is left as it is"):
        place_for(notes, "leshan", AT)
    with pytest.raises(CannotBackUp, match="there is no directory"):
        place_for(tmp_path / "none" / "x", "leshan", AT)


def test_nobody_is_told_to_start_a_rehearsal_again(tmp_path: Path) -> None:
    assert "kaowu up" in _then(tmp_path, virtual=False)
    assert "kaowu up" not in _then(tmp_path, virtual=True)


def _preview(people: int, limit: int) -> str:
    text = io.StringIO()
    order = {
        "order_no": "K1", "channel": "wechat", "state": "open", "amount_fen": 20000,
        "expires_at": AT - timedelta(minutes=1),
    }  # fmt: skip
    items: list[dict[str, Any]] = [
        {
            "registration_id": UUID(int=SOMEBODY.int + number),
            "site_id": "ebian",
            "would": "ask" if number else "forfeit",
            "why": "order-under-way" if number else "never-ordered",
            "amount_fen": 20000,
            "open_order": order if number else None,
        }
        for number in range(people)
    ]
    counted = {"registrations": people, "amount_fen": 20000 * people}
    reason = {
        "closes_at": AT, "would": "forfeit", "words": "从未下单", "in_flight_fen": 0, **counted,
    }  # fmt: skip
    totals = {
        "forfeit": counted,
        "ask": {**counted, "in_flight_fen": 0},
        "spare": counted,
        "by_reason": [reason] if people else [],
        "by_site": [
            {"site_id": one, "forfeit": counted, "ask": counted, "spare": counted} for one in ("ebian", None)
        ],
    }
    console = Console(file=text, width=132, color_system=None)
    show_preview(console, totals, items, Cycle.read(counter.CYCLE_FILE), limit)
    return text.getvalue()


def test_the_preview_of_a_close_speaks_the_offices_language_and_clock() -> None:
    shown = _preview(people=3, limit=2)
    assert "2024-02-09 00:00" in shown
    assert "2024-02-08 23:59" in shown
    assert "从未下单" in shown
    assert "有未了结订单" in shown
    assert "另有 1 人: --limit 3, --json" in shown
    assert "ebian" in shown
    assert "不明" in shown
    assert str(UUID(int=SOMEBODY.int + 2)) not in shown
    # Whoever scrolls no further reads the sums.
    assert shown.index("假如现在截止") > shown.index(str(SOMEBODY))


@pytest.mark.parametrize("root", ["xyz", "c6ffbb83…0e1b", "0" * 63, "g" * 64])
def test_a_root_that_is_none_is_no_verdict_about_the_file(
    root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path / "forfeiture.json", root) == 2
    assert "64 hexadecimal digits" in capsys.readouterr().out


def test_a_preview_of_nobody_says_so_instead_of_showing_empty_tables() -> None:
    shown = _preview(people=0, limit=2)
    assert "没有人欠费" in shown
    assert "合计" not in shown


def test_where_nobody_names_a_system_it_is_said_which_one_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An `ok` about another system than the one that is on fire is worse than none."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for command in (["check"], ["close", "show"], ["reconcile", "show"], ["messages"]):
        code, text = said(monkeypatch, capsys, *command)
        assert code == 1
        assert text.splitlines()[0] == f"of the system in {tmp_path / 'kaowu'} (--data names another)"
        assert text.count("of the system in") == 1, command
        assert f"no local system in {tmp_path / 'kaowu'}" in text
    for command in (["check"], ["close", "show"], ["close", "preview"]):
        code, text = said(monkeypatch, capsys, *command, "--given")
        assert code == 1
        assert "of the system in" not in text


def test_whoever_ends_it_is_told_that_it_was_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    with pytest.raises(SystemExit) as ended:
        cli.run(work)
    assert ended.value.code == 130
    assert "stopped by SIGINT before it was done; what it had started was ended" in capsys.readouterr().err


def test_a_cycle_that_is_over_is_said_to_be() -> None:
    cycle = Cycle.read(LESHAN)
    closes = cycle.windows.payment.closes
    (hint,) = _hints(cycle, closes)
    assert "this cycle is over: its payment closed 2024-02-09 00:00 +0800" in hint
    assert list(_hints(cycle, closes - timedelta(microseconds=1))) == []


def test_what_an_evidence_file_lacks_or_has_too_much_is_said_in_words() -> None:
    problems = verify(b'{"format": "kaowu.evidence", "version": 1, "hello": 9}').problems
    assert "checksums: expected a value, found nothing" in map(str, problems)
    assert "hello: expected nothing here, found 9" in map(str, problems)
    # Whose checksums say so already is named once.
    raw = b'{"format": "kaowu.evidence", "version": 1, "hello": 9, "checksums": {}}'
    assert [str(one) for one in verify(raw).problems if one.path == "hello"] == [
        "hello: expected nothing here when the file was written, found 9"
    ]
    with pytest.raises(Unreadable, match="no JSON, or cut short at line 1, column 12: have it sent again"):
        verify(b'{"format": ')
