"""What `kaowu replay verify` and `kaowu replay topics` do and say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.replay.standing import standing
from deploy.replay.tables import TABLES, Table, Unrebuilt
from deploy.replay.topics import republish
from deploy.replay.verify import Source, Verified, verify


async def verify_system(data: Path, source: Source | None) -> int:
    """Rebuild and compare; what differs is named. 1 when something does."""
    console = Console(highlight=False)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, transient=True,
    ) as bars:  # fmt: skip

        def begin(service: str, steps: int) -> Callable[[int], None]:
            bar = bars.add_task(service, total=steps)
            return lambda count: bars.advance(bar, count)

        def say(line: str) -> None:
            console.print(line, markup=False, soft_wrap=True, style="dim")

        async with standing(data, say=say) as place:
            verified = await verify(place, source=source, say=say, begin=begin)
    show(verified, console)
    return 1 if verified.differences else 0


def show(verified: Verified, console: Console) -> None:
    """What was compared, what never can be, and every difference."""
    for one in verified.services:
        done = one.replayed
        console.print(
            f"{one.service}: {done.heard} events heard again, {done.folded} of its own folded, "
            f"{done.reacted} said again by its consumers" + (f", {one.waiting} wait" if one.waiting else ""),
            markup=False,
            soft_wrap=True,
        )
        for name, counted in one.tables.items():
            console.print(
                f"  {name:<20} {counted.rows:>8} rows, {counted.values:>9} values compared",
                markup=False,
                soft_wrap=True,
            )
        for line in not_compared(one.service):
            console.print(f"  {line}", markup=False, soft_wrap=True, style="dim")
    for difference in verified.differences:
        console.print(str(difference), markup=False, soft_wrap=True, style="red")
    console.print(
        f"{len(verified.differences) or 'no'} differences: {verified.events} events from "
        f"{'topics' if verified.source == 'topics' else 'logs'}",
        markup=False,
        soft_wrap=True,
        style="red" if verified.differences else "green",
    )


def not_compared(service: str) -> list[str]:
    """Lines that say what events cannot give back, and why."""
    lines: list[str] = []
    for name, table in TABLES[service].items():
        if isinstance(table, Unrebuilt):
            lines.append(f"{name}: not compared: {table.reason}")
            continue
        by_reason: dict[str, list[str]] = {}
        for column, reason in table.not_compared.items():
            by_reason.setdefault(reason, []).append(column)
        lines.extend(
            f"{name}: {', '.join(columns)} not compared: {why}" for why, columns in by_reason.items()
        )
        if isinstance(table, Table) and table.some:
            lines.append(f"{name}: only rows that events give: {table.some}")
    return lines


async def republish_topics(data: Path) -> int:
    """Publish every log again from its beginning. The services must be stopped."""
    console = Console(highlight=False)
    async with standing(data, stopped=True) as place:
        for service, count in (await republish(place)).items():
            console.print(f"{service}: {count} events published again", markup=False, soft_wrap=True)
    console.print(
        "every group reads from the beginning at the next start; its inbox drops what it knows",
        soft_wrap=True,
    )
    return 0
