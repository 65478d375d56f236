"""What a run leaves to be read: lines on a terminal, one JSON document, and its section of docs/performance.md."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from deploy.bench.contender import ROOT
from deploy.bench.figures import Figure, number

DOCUMENT: Final = ROOT / "docs" / "performance.md"
_HEAD: Final = """\
# Performance

Ratios in one run on real Kafka and real PostgreSQL, with what was checked at the end of each.
Written by `kaowu bench`, never by hand.
"""


@dataclass(frozen=True, slots=True)
class Run:
    """When, where and how large."""

    bench: str
    scale: str
    began: datetime
    ended: datetime
    machine: str
    load: float  # before the beginning
    versions: str

    def section(self, rows: Sequence[Figure]) -> str:
        """In Markdown."""
        minutes = (self.ended - self.began).total_seconds() / 60
        lines = [
            f"## {self.bench}",
            "",
            (
                f"{self.began:%Y-%m-%d %H:%M} UTC, scale {self.scale}, {minutes:.0f} min. {self.machine}. {self.versions}. "
                f"Load before the beginning: {self.load:.2f}."
            ),
            "",
            "| | ours | peer | unit | ratio | goal | met |",
            "|---|---:|---:|---|---:|---|---|",
        ]
        lines += [f"| {' | '.join(cells(row))} |" for row in rows]
        lines.append("")
        for row in rows:
            lines += [f"**{row.name}.** " + " ".join(f"{sentence}." for sentence in _told(row)), ""]
        return "\n".join(lines)


def cells(row: Figure) -> list[str]:
    """In the order of the headings."""
    values = (number(row.ours), number(row.peer), row.unit, number(row.ratio), str(row.goal or "–"))
    return [row.name, *values, verdict(row)]


def verdict(row: Figure) -> str:
    """One word, and never yes for what nobody measured."""
    if row.violated:
        return "**violated**"
    if row.not_measured:
        return "not measured"
    if row.goal is None:
        return "–"
    return "yes" if row.met else "**no**"


def _told(row: Figure) -> list[str]:
    found = [f"Peer: {row.peer_name}"] if row.peer_name else []
    if row.not_measured:
        found.append(f"Not measured: {row.not_measured}")
    for side, values in row.spread.items():
        if len(values) > 1:
            found.append(
                f"{side.capitalize()}, round by round: {', '.join(number(value) for value in values)}"
            )
    found += row.notes
    found.append(f"Invariants {row.invariants}")
    return [sentence.rstrip(".") for sentence in found]


def write(run: Run, rows: Sequence[Figure], document: Path = DOCUMENT) -> None:
    """Put this run in the place of the last one of the same part; the others' sections stay."""
    before = document.read_text(encoding="utf-8") if document.exists() else _HEAD
    sections = sections_of(before)
    sections[run.bench] = run.section(rows)
    document.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join([_HEAD, *(sections[name] for name in sorted(sections))])
    document.write_text(text.rstrip() + "\n", encoding="utf-8")


def sections_of(text: str) -> dict[str, str]:
    """By their headings."""
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0].removeprefix("## ").strip(): part.rstrip() + "\n" for part in parts}


def as_json(rows: Sequence[Figure]) -> str:
    return json.dumps([row.as_json() for row in rows], ensure_ascii=False, indent=1)


def show(rows: Sequence[Figure], console: Console) -> None:
    """On a terminal."""
    table = Table(box=None, pad_edge=False)
    for heading, right in _COLUMNS.items():
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*cells(row)[:-1], verdict(row).strip("*"))
    console.print(table)
    for row in rows:
        console.print(
            f"{row.name}: {'. '.join(_told(row))}", markup=False, highlight=False, style="dim", soft_wrap=True
        )


_COLUMNS: Final[Mapping[str, bool]] = {
    "": False, "ours": True, "peer": True, "unit": False, "ratio": True, "goal": False, "met": False,
}  # fmt: skip
