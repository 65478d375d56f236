"""What a check of an evidence file came to: each thing that is wrong, where, what it should be and what it is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from deploy.evidence.form import Evidence

NO_TIME = timedelta(0)


class Unreadable(Exception):
    """No evidence file that this program can read; says why."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    path: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, found {self.found}"


@dataclass
class Verdict:
    """`notes`: what holds and by what, and what nobody can prove."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    evidence: Evidence | None = None

    def add(self, path: str, expected: object, found: object) -> None:
        self.problems.append(Problem(path, _short(expected), _short(found)))

    def same(self, path: str, expected: object, found: object, by: str = "") -> None:
        """`by`: whose word the expected value is."""
        if expected != found:
            self.add(path, f"{_short(expected)} ({by})" if by else expected, found)

    def before(self, path: str, earlier: str, later: str) -> None:
        if instant(earlier) >= instant(later):
            self.add(path, f"a moment before {later}", earlier)

    def not_before(self, path: str, earlier: str, later: str, apart: timedelta = NO_TIME) -> None:
        """`apart`: by how much the clocks of two services may differ."""
        if instant(later) < instant(earlier) - apart:
            self.add(path, f"a moment not before {earlier}", later)


def instant(text: str) -> datetime:
    """A moment of the file."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text)} characters)"
