"""What may be wrong with a cycle file: errors that stop it, findings that somebody should know."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FindingKind = Literal[
    "dead-end",
    "undated-desk",
    "told-later",
    "overlap",
    "outside",
    "specialty-count",
    "zone-offset",
    "results-early",
]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """An error: where it stands, what is wrong, what to write instead."""

    line: int
    key: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.key or 'file'}: {self.reason}. {self.remedy}"


@dataclass(frozen=True, slots=True)
class Finding:
    """A warning: the cycle is valid, and this will hurt somebody unless it is meant."""

    kind: FindingKind
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


class CycleInvalid(ValueError):
    """The file is no cycle. Holds every problem that could be found at once, and which file, where there is one."""

    file: Path | None = None

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("; ".join(str(problem) for problem in self.problems))
