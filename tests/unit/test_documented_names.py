"""What README and docs tell people to type, and the metrics and log words that they tell operators to look for, exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest
import typer
from typer.core import TyperGroup

from contracts.cycle import Cycle
from deploy.cli import app

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "services").glob("*/README.md")]
)
_COMMAND: Final = re.compile(r"(?:`|^|[(;&]\s*|then: )kaowu ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", re.MULTILINE)
_METRIC: Final = re.compile(r"kaowu_[a-z_]*[a-z]")
# What Prometheus adds to a name, and names that are not metrics.
_ADDED: Final = ("_total", "_seconds", "_bucket", "_count", "_sum")


def _groups() -> dict[str, frozenset[str] | None]:
    """The commands of the command line; of a group, those inside it."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    return {
        name: frozenset(command.commands) if isinstance(command, TyperGroup) else None
        for name, command in root.commands.items()
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    groups = _groups()
    for name, second in _COMMAND.findall(page.read_text(encoding="utf-8")):
        assert name in groups, f"kaowu {name}"
        inside = groups[name]
        # `kaowu evidence REGISTRATION` is a command as well, and so is a group that is only spoken of.
        if inside is not None and second and name != "evidence":
            assert second in inside, f"kaowu {name} {second}"


def test_every_metric_that_a_page_names_exists() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "services").rglob("*.py"))
    known = set(_METRIC.findall(source))
    for page in PAGES:
        for name in set(_METRIC.findall(page.read_text(encoding="utf-8"))):
            bare = next((name.removesuffix(one) for one in _ADDED if name.removesuffix(one) in known), name)
            assert bare in known or any(one.startswith(f"{name}_") for one in known), (
                f"{page.relative_to(ROOT)}: {name}"
            )


def test_every_word_of_the_log_that_the_night_runbook_names_is_said() -> None:
    page = (ROOT / "docs" / "runbooks" / "night.md").read_text(encoding="utf-8")
    source = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("services", "deploy", "contracts")
        for path in (ROOT / folder).rglob("*.py")
    )
    words = {
        word
        for line in page.splitlines()
        if line.startswith("| ")
        for word in re.findall(r"`([a-z]+(?:-[a-z]+)+)`", line)
    }
    assert len(words) >= 6
    for word in words:
        assert f'"{word}"' in source, word


def test_the_days_of_a_cycle_are_given_to_another_year_as_the_readme_says(tmp_path: Path) -> None:
    (line,) = re.findall(
        r"^sed '([^']+)' (\S+) > ", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    script, file = line
    done = subprocess.run(["sed", script, ROOT / file], capture_output=True, check=True)
    (tmp_path / "mine.toml").write_bytes(done.stdout)
    before, after = Cycle.read(ROOT / file), Cycle.read(tmp_path / "mine.toml")
    assert after.id != before.id
    for name in ("pre_registration", "confirmation", "payment"):
        then, now = getattr(before.windows, name), getattr(after.windows, name)
        assert (now.opens.year - then.opens.year, now.closes.year - then.closes.year) == (3, 3)
