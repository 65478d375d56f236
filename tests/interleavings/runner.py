"""Many batches on several processes; what failed is named with the command that repeats it, what was never reached as well."""

from __future__ import annotations

import asyncio
import hashlib
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any, Final

import uvloop
from rich.console import Console
from rich.table import Table

from tests.interleavings.judging import Violation
from tests.interleavings.playing import SIZE, Batch
from tests.interleavings.reaching import missed
from tests.interleavings.town import Town, keep_to_one_processor, town

MOST_FAILURES: Final = 5


@dataclass
class Totals:
    runs: int = 0
    seconds: float = 0.0
    reached: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)
    """Batch, and what was broken in it."""

    @property
    def missed(self) -> list[str]:
        return missed(self.runs, self.reached)

    def add_to(self, file: Path) -> Totals:
        """With the parts that were played before; kept there."""
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        everything = Totals(
            known.get("runs", 0) + self.runs,
            known.get("seconds", 0.0) + self.seconds,
            Counter(known.get("reached", {})) + self.reached,
            [*map(tuple, known.get("failures", [])), *self.failures],
        )
        file.write_text(json.dumps(everything.__dict__, ensure_ascii=False, indent=1), encoding="utf-8")
        return everything


async def attempt(one: Town, number: int) -> tuple[Batch, str]:
    """A batch and what was broken in it; nothing, if nothing was."""
    batch = Batch(one, number)
    try:
        await batch.play()
    except Violation as violation:
        return batch, str(violation)
    except Exception as error:  # a handler that raises where it must not is a finding too
        return batch, f"{type(error).__name__}: {error}"
    return batch, ""


def digest(batch: Batch) -> str:
    """Of everything that happened to everybody in it."""
    stories = "\n".join(line for one in batch.candidates for line in (f"run {one.number}", *one.log))
    counted = json.dumps(sorted(batch.reached.items()), ensure_ascii=False)
    return hashlib.sha256(f"{stories}\n{counted}".encode()).hexdigest()


def in_a_town(work: Callable[[Town], Any]) -> Any:
    """Run it in this process, in a town of its own."""

    async def inside() -> Any:
        async with town() as one:
            return await work(one)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(inside())


def _work(number: int, numbers: Any, results: Any, over: Any, until: float) -> None:
    async def all_of_them(one: Town) -> None:
        while time.monotonic() < until and not over.is_set():
            try:
                batch_number = numbers.get_nowait()
            except Empty:
                return
            batch, broken = await attempt(one, batch_number)
            results.put((batch_number, broken, dict(batch.reached)))

    keep_to_one_processor(number)
    try:
        in_a_town(all_of_them)
    finally:
        results.put(None)


def play(
    batches: Sequence[int],
    *,
    workers: int,
    minutes: float = 60.0,
    say: Callable[[str], None] = lambda _: None,
) -> Totals:
    """Play these batches. Stops early after a few failures, or when time is up."""
    context = multiprocessing.get_context("spawn")
    numbers, results, over = context.Queue(), context.Queue(), context.Event()
    for number in batches:
        numbers.put(number)
    totals, started = Totals(), time.monotonic()
    processes = [
        context.Process(
            target=_work, args=(number, numbers, results, over, started + minutes * 60), daemon=True
        )
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    left = workers
    try:
        while left and len(totals.failures) < MOST_FAILURES:
            try:
                came = results.get(timeout=2.0)
            except Empty:
                if not any(process.is_alive() for process in processes):
                    break
                continue
            if came is None:
                left -= 1
                continue
            batch_number, broken, reached = came
            totals.reached.update(reached)
            if broken:
                totals.failures.append((batch_number, broken))
            else:
                totals.runs += SIZE
            if (totals.runs // SIZE) % 25 == 0:
                pace = totals.runs / (time.monotonic() - started)
                say(f"{totals.runs} runs, {pace:.0f} a second, {len(totals.failures)} violations")
    finally:
        over.set()
        numbers.cancel_join_thread()
        for process in processes:
            process.join(60)
            process.terminate()
    totals.seconds = time.monotonic() - started
    return totals


def show(totals: Totals, console: Console) -> None:
    """How often each was reached, what never was, and how to repeat what failed."""
    table = Table(
        title=f"{totals.runs} runs, {totals.seconds:.0f} s: {totals.runs / max(totals.seconds, 1.0):.0f} a second, "
        f"{len(totals.failures)} violations"
    )
    table.add_column("what happened")
    table.add_column("times", justify="right")
    for what, times in sorted(totals.reached.items()):
        table.add_row(what, f"{times}")
    console.print(table)
    for what in totals.missed:
        console.print(f"never reached, or not often enough: {what}", style="red")
    for number, broken in totals.failures:
        console.print(f"batch {number}: {broken}", style="red", highlight=False, markup=False)
        console.print(f"    repeat: python -m tests.interleavings --batch {number}", highlight=False)


def repeat(number: int, console: Console) -> bool:
    """One batch again, twice over to see that it repeats. True when it passes."""

    async def twice(one: Town) -> bool:
        first, broken = await attempt(one, number)
        again, _ = await attempt(one, number)
        same = digest(first) == digest(again)
        console.print(f"repeats step by step: {'yes' if same else 'NO'}")
        console.print(broken or f"batch {number} passes", highlight=False, markup=False)
        return same and not broken

    return bool(in_a_town(twice))
