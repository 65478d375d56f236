"""`kaowu bench streams`: P4, P5, P6 and scale of the issue on streams, in one run on one broker and one PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from deploy.bench.backlog import backlog
from deploy.bench.contender import Failed, Violated
from deploy.bench.figures import Figure
from deploy.bench.latency import latency
from deploy.bench.relaying import relay
from deploy.bench.scale import Scale
from deploy.bench.stage import Stage, standing
from deploy.bench.steps import steps

Advance: TypeAlias = Callable[[str], None]
Measurement: TypeAlias = Callable[[Stage, Scale, Advance], Awaitable[list[Figure]]]


@dataclass(frozen=True, slots=True)
class Part:
    """One measurement: what it shows, and how many steps it tells of while it runs."""

    title: str
    measure: Measurement
    steps: Callable[[Scale], int]


PARTS: Final[Mapping[str, Part]] = {
    "P4": Part("P4 relay", relay, lambda scale: 2 + 3 * scale.rounds),
    "P5": Part("P5 commit to handler", latency, lambda scale: 3 * scale.rounds),
    "P6": Part("P6 pipeline step", steps, lambda scale: 1 + 3 * scale.rounds),
    "scale": Part("scale", backlog, lambda scale: 1 + 3 * len(scale.processes)),
}


async def measure(
    directory: Path, scale: Scale, only: Sequence[str], begin: Callable[[Part], Advance]
) -> list[Figure]:
    """Every part on a stage of its own, so that none inherits the disk and the memory of another."""
    rows: list[Figure] = []
    for name in only:
        part = PARTS[name]
        data = directory / name.lower()
        shutil.rmtree(data, ignore_errors=True)
        advance = begin(part)
        try:
            async with standing(data) as stage:
                rows += await part.measure(stage, scale, advance)
        except Failed as failure:
            # Not measured is no better than violated: either way nobody may read a figure into it.
            why = str(failure)
            broken = isinstance(failure, Violated)
            rows.append(
                Figure(
                    part.title,
                    "",
                    None,
                    None,
                    "",
                    None,
                    violated=why if broken else "",
                    not_measured="" if broken else why,
                )
            )
            shutil.copytree(data / "logs", directory / "logs" / name.lower(), dirs_exist_ok=True)
        finally:
            shutil.rmtree(data, ignore_errors=True)
    return rows
