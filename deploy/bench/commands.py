"""What `kaowu bench streams`, `close` and `messages` do and say."""

from __future__ import annotations

import importlib.metadata
import itertools
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.bench import close as closes
from deploy.bench import messages as storms
from deploy.bench import peers, pretix, rabbitmq, record
from deploy.bench.figures import Figure
from deploy.bench.scale import SCALES, Scale
from deploy.bench.stage import load, machine
from deploy.bench.streams import PARTS, Advance, Part, measure
from deploy.local.kafka import kafka_version
from deploy.local.postgres import VERSION


async def streams(scale: str, parts: Sequence[str], *, as_json: bool, directory: Path, recorded: bool) -> int:
    """1 if something was lost, doubled or disordered, or could not be measured although it was there."""
    _say_what_is_missing(Console(file=sys.stderr, highlight=False))
    return await _bench(
        "streams", PARTS, SCALES[scale], parts, as_json=as_json, directory=directory, recorded=recorded
    )


async def close(scale: str, parts: Sequence[str], *, as_json: bool, directory: Path, recorded: bool) -> int:
    """1 if somebody was forfeited who must not be, or the other way round, or something could not be measured."""
    err = Console(file=sys.stderr, highlight=False)
    for found, why in ((peers.interpreter(), peers.absent()), (pretix.interpreter(), pretix.absent())):
        if found is None:
            err.print(f"left out: {why}", markup=False)
    return await _bench(
        "close", closes.PARTS, SCALES[scale], parts, as_json=as_json, directory=directory, recorded=recorded
    )


async def messages(
    scale: str,
    parts: Sequence[str],
    *,
    as_json: bool,
    directory: Path,
    recorded: bool,
    people: int | None = None,
) -> int:
    """1 if somebody was told twice without reason, or not at all. Its peers need no packages but ours."""
    size = SCALES[scale] if people is None else SCALES[scale].of_people(people)
    return await _bench(
        "messages", storms.PARTS, size, parts, as_json=as_json, directory=directory, recorded=recorded
    )


async def _bench(
    kind: str,
    known: Mapping[str, Part],
    scale: Scale,
    parts: Sequence[str],
    *,
    as_json: bool,
    directory: Path,
    recorded: bool,
) -> int:
    console, err = Console(highlight=False), Console(file=sys.stderr, highlight=False)
    rows: list[Figure] = []
    with Progress(
        TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[step]}"), console=err, transient=err.is_terminal, disable=not err.is_terminal,
    ) as bars:  # fmt: skip
        for name in parts:
            part = known[name]
            began, before = datetime.now(UTC), load()
            found = await measure(directory, scale, name, _advance(bars, part, scale, err), known)
            run = record.Run(
                f"{kind}: {part.title}", scale.name, began, datetime.now(UTC), machine(), before, _versions()
            )
            rows += found
            # Each part when it is over: what comes later may be cut short.
            place = (
                record.DOCUMENT if recorded and not any(map(_broken, found)) else directory / "performance.md"
            )
            record.write(run, found, place)
            err.print(f"{part.title}: recorded in {place}", markup=False)
    if as_json:
        print(record.as_json(rows))
    else:
        record.show(rows, console)
    return 1 if any(map(_broken, rows)) else 0


def _advance(bars: Progress, part: Part, scale: Scale, err: Console) -> Advance:
    total = part.steps(scale)
    bar = bars.add_task(part.title, total=total, step="")
    done = itertools.count()

    def advance(step: str) -> None:
        bars.update(bar, completed=next(done), step=step)
        if not err.is_terminal:
            err.print(f"{part.title}: {step}", markup=False)

    return advance


def _broken(row: Figure) -> bool:
    return bool(row.violated) or row.ours is None


def _say_what_is_missing(err: Console) -> None:
    if peers.interpreter() is None:
        err.print(f"left out: {peers.absent()}", markup=False)
    elif rabbitmq.home() is None:
        err.print(f"left out: {rabbitmq.absent()}", markup=False)


def _versions() -> str:
    names = ("aiokafka", "asyncpg", "faststream")
    own = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"Kafka {kafka_version()}, PostgreSQL {VERSION} (fsync on), {own}"
