"""What a measurement says: ours, the peer, their ratio, the goal, and what was checked about what they left behind."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

_HOLDS: Final[Mapping[str, Callable[[float, float], bool]]] = {"≥": operator.ge, "≤": operator.le}


@dataclass(frozen=True, slots=True)
class Goal:
    """What the ratio must be."""

    relation: str
    value: float

    def met(self, ratio: float) -> bool:
        return _HOLDS[self.relation](ratio, self.value)

    def __str__(self) -> str:
        return f"{self.relation} {self.value:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. `ratio` is ours ÷ peer. A peer that could not be had leaves no ratio and no met goal."""

    name: str
    unit: str
    ours: float | None
    peer: float | None
    peer_name: str
    goal: Goal | None
    checked: Sequence[str] = ()
    violated: str = ""
    not_measured: str = ""
    spread: Mapping[str, Sequence[float]] = field(default_factory=dict)  # of each side, round by round
    notes: Sequence[str] = ()

    @property
    def ratio(self) -> float | None:
        return self.ours / self.peer if self.ours is not None and self.peer else None

    @property
    def met(self) -> bool:
        """Never of what was not measured, nor where something was lost."""
        if self.violated or self.not_measured or self.ratio is None:
            return False
        return self.goal is None or self.goal.met(self.ratio)

    @property
    def invariants(self) -> str:
        """One line: whether they held, and of what."""
        if self.violated:
            return f"violated: {self.violated}"
        if not self.checked:
            return f"not checked: {self.not_measured or 'nothing was measured'}"
        return "held: " + "; ".join(self.checked)

    def as_json(self) -> dict[str, Any]:
        """The shape that `--json` promises."""
        return {
            "name": self.name,
            "ours": _rounded(self.ours),
            "peer": _rounded(self.peer),
            "unit": self.unit,
            "ratio": _rounded(self.ratio),
            "goal": None if self.goal is None else str(self.goal),
            "met": self.met,
            "invariants": self.invariants,
        }


def middle(values: Sequence[float]) -> float:
    """What stands for several rounds: noise of the machine hits single ones."""
    return float(median(values))


def percentile(values: Sequence[float], hundredth: float) -> float:
    """The smallest value that so many hundredths of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-len(ordered) * hundredth // 100) - 1))]


def number(value: float | None) -> str:
    """As people read it: four digits that count."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
