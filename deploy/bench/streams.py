"""`kaowu bench streams`: P4, P5, P6 and scale of the issue on streams, in one run on one broker and one PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
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

    title: str  # also of its section in the record
    measure: Measurement
    steps: Callable[[Scale], int]


PARTS: Final[Mapping[str, Part]] = {
    "P4": Part("P4 relay", relay, lambda scale: 2 + 3 * scale.rounds),
    "P5": Part("P5 commit to handler", latency, lambda scale: 3 * scale.rounds),
    "P6": Part("P6 pipeline step", steps, lambda scale: 1 + 3 * scale.rounds),
    "scale": Part(
        "scale of the pipeline", backlog, lambda scale: 2 + 2 * scale.rounds * len(scale.processes)
    ),
}


async def measure(
    directory: Path, scale: Scale, name: str, advance: Advance, parts: Mapping[str, Part] = PARTS
) -> list[Figure]:
    """One part on a stage of its own, so that none inherits the disk and the memory of another."""
    part = parts[name]
    data = directory / name.lower()
    shutil.rmtree(data, ignore_errors=True)
    try:
        async with standing(data) as stage:
            return await part.measure(stage, scale, advance)
    except Failed as failure:
        # Not measured is no better than violated: either way nobody may read a figure into it.
        shutil.copytree(data / "logs", directory / "logs" / name.lower(), dirs_exist_ok=True)
        nothing = Figure(part.title, "", None, None, "", None, not_measured=str(failure))
        if isinstance(failure, Violated):
            nothing = replace(nothing, violated=str(failure))
        return [nothing]
    finally:
        shutil.rmtree(data, ignore_errors=True)
