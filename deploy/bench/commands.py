"""What `kaowu bench streams` does and says."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.bench import peers, rabbitmq, record
from deploy.bench.figures import Figure
from deploy.bench.scale import SCALES
from deploy.bench.stage import load, machine
from deploy.bench.streams import PARTS, Advance, Part, measure
from deploy.local.kafka import kafka_version
from deploy.local.postgres import VERSION


async def streams(scale: str, parts: Sequence[str], *, as_json: bool, directory: Path, whole: bool) -> int:
    """1 if something was lost, doubled or disordered, or could not be measured although it was there."""
    console, err = Console(highlight=False), Console(file=sys.stderr, highlight=False)
    _say_what_is_missing(err)
    began, before = datetime.now(UTC), load()
    with Progress(
        TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[step]}"), console=err, transient=err.is_terminal, disable=not err.is_terminal,
    ) as bars:  # fmt: skip

        def begin(part: Part) -> Advance:
            bar = bars.add_task(part.title, total=part.steps(SCALES[scale]), step="")
            done = 0

            def advance(step: str) -> None:
                nonlocal done
                bars.update(bar, completed=done, step=step)
                done += 1
                if not err.is_terminal:
                    err.print(f"{part.title}: {step}", markup=False)

            return advance

        rows = await measure(directory, SCALES[scale], parts, begin)
    run = record.Run("streams", scale, began, datetime.now(UTC), machine(), before, _versions())
    if as_json:
        print(record.as_json(rows))
    else:
        record.show(rows, console)
    _keep(run, rows, directory, err, to_docs=whole and scale == "full")
    return 1 if any(_broken(row) for row in rows) else 0


def _broken(row: Figure) -> bool:
    return bool(row.violated) or (row.ours is None)


def _keep(run: record.Run, rows: Sequence[Figure], directory: Path, err: Console, *, to_docs: bool) -> None:
    place = (
        record.DOCUMENT if to_docs and not any(_broken(row) for row in rows) else directory / "performance.md"
    )
    record.write(run, rows, place)
    err.print(f"recorded in {place}", markup=False)


def _say_what_is_missing(err: Console) -> None:
    if peers.interpreter() is None:
        err.print(f"left out: {peers.absent()}", markup=False)
    elif rabbitmq.home() is None:
        err.print(f"left out: {rabbitmq.absent()}", markup=False)


def _versions() -> str:
    names = ("aiokafka", "asyncpg", "faststream")
    own = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"Kafka {kafka_version()}, PostgreSQL {VERSION} (fsync on), {own}"


__all__ = ["PARTS", "streams"]
