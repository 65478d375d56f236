"""`kaowu cycle lint` and `kaowu cycle show`, as somebody at a terminal meets them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cycle_commands import app

FILE = Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml"
TEXT = FILE.read_text(encoding="utf-8")


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_lint_of_a_good_file_lists_warnings_and_succeeds() -> None:
    code, output = run("lint", str(FILE))
    assert code == 0
    lines = output.splitlines()
    assert [line.split()[0] for line in lines] == ["warning"] * 8 + ["ok"]
    for name in ("市中区", "高新区", "峨边", "井研", "沐川"):
        assert sum(name in line and "dead end" in line for line in lines) == 1
    assert sum("undated desk" in line for line in lines) == 1
    assert "13 desks, 115 specialties, 8 warnings, fingerprint " in lines[-1]


def test_lint_of_a_bad_file_lists_every_error_on_a_line_of_its_own_and_fails(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    text = TEXT.replace("amount_fen = 7000", "amount_fen = 70.0").replace(
        "2024-02-09T00:00:00+08:00", "2024-02-08T23:59:59+08:00"
    )
    bad.write_text(text, encoding="utf-8")
    code, output = run("lint", str(bad))
    assert code == 1
    lines = output.splitlines()
    assert len(lines) == 3
    close = text[: text.index("23:59:59")].count("\n") + 1
    fee = text[: text.index("amount_fen = 70.0")].count("\n") + 1
    assert lines[0].startswith(
        f"error {bad}:{close}: windows.payment.intervals[0].closes: 23:59 is not the end"
    )
    assert lines[0].endswith("Write 00:00:00 of the next day.")
    assert lines[1].startswith(f"error {bad}:{fee}: fees[1].amount_fen: a fee is a whole number of fen")
    assert lines[2] == "2 errors: this is no cycle"
    assert run("show", str(bad)) == (1, output)


def test_a_missing_file_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    for command in ("lint", "show"):
        code, output = run(command, str(tmp_path / "none.toml"))
        assert code == 1
        assert "cannot be read" in output
        assert "1 error: this is no cycle" in output


def test_show_says_everything_an_office_looks_for() -> None:
    code, output = run("show", str(FILE))
    assert code == 0
    for text in (
        "2024年度卫生专业技术资格考试（乐山考点）",
        "0833-2495079",
        "网上缴费",
        "2024年1月29日（星期一）00:00",
        "2024年2月8日（星期四）24:00",
        "12月8日（五）00:00 至 12月14日（四）12:00",
        "以单位人事科通知为准",
        "50元/科",
        "70元/科",
        "4月20日 10:45-12:15",
        "413×579",
        "报名点 → 考点 → 考区",
        "7天、3天、1天、6小时、2小时",
        "截止前2分钟",
        "视为自动放弃考试",
        "22:00 至 08:00",
        "死角（5处）",
    ):
        assert text in output, text
    dead_ends = output[output.index("死角（5处）") :]
    for name in ("市中区", "井研县", "峨边彝族自治县", "沐川县", "高新区"):
        assert f"{name}：" in dead_ends
    assert "2023年12月12日（星期二）24:00停止确认" in dead_ends


def test_show_names_told_closes_hours_and_uneven_fees(tmp_path: Path) -> None:
    text = TEXT.replace(
        "closes = 2024-02-09T00:00:00+08:00 }]",
        "closes = 2024-02-09T00:10:00+08:00 }]\n"
        "told_closes = 2024-02-09T00:00:00+08:00\n"
        "daily = { opens = 00:00:00, closes = 22:30:00 }",
    )
    text = text.replace("amount_fen = 5000", "amount_fen = 5050").replace(
        'levels = ["intermediate"]', 'modes = ["paper", "computer"]'
    )
    file = tmp_path / "cycle.toml"
    file.write_text(text, encoding="utf-8")
    code, output = run("show", str(file))
    assert code == 0
    assert "2024年2月8日（星期四）24:00     2024年2月9日（星期五）00:10" in output
    assert "00:00-22:30" in output
    assert "50.50元/科" in output
    assert "纸笔作答、人机对话" in output


def test_show_says_when_there_is_no_dead_end(tmp_path: Path) -> None:
    file = tmp_path / "cycle.toml"
    file.write_text(
        TEXT.replace("closes = 2023-12-15T00:00:00+08:00 }]", "closes = 2023-12-12T00:00:00+08:00 }]", 1)
    )
    code, output = run("show", str(file))
    assert code == 0
    assert "死角（0处）" in output
    assert "没有" in output


@pytest.mark.parametrize("command", ["lint", "show"])
def test_help_names_the_file(command: str) -> None:
    code, output = run(command, "--help")
    assert code == 0
    assert "FILE" in output
