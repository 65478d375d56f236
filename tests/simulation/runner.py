"""Many seeds on several processes, with a bar; a failing one is named with the command that repeats it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any, Final, TypeAlias, TypeVar

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.simulation.chance import Chance
from tests.simulation.run import Run, Told
from tests.simulation.scene import Violation
from tests.simulation.shrink import Plan, shrunk
from tests.simulation.stage import Stage, server, stage
from tests.support.postgres import TestDatabases

T = TypeVar("T")
Mutation: TypeAlias = Callable[[], AbstractContextManager[Any]]

# Each must be met in a run of many seeds, or the simulation has gone blind to it.
KINDS: Final = (
    "work put off", "two at once", "death with another transaction open", "one waited for the other's row", "batch lost",
    "acknowledgement lost", "offset commit lost", "offsets reset", "delivered twice at once", "callback lost", "callback twice",
    "receipt twice", "carrier away", "carrier busy", "carrier's answer lost", "number out of service",
    "gateway away while an order is placed", "gateway away while it is asked", "gateway away while an order is closed",
    "gateway's answer to an order lost", "gateway's answer to a close lost", "died at before-commit", "died at after-commit",
    "died at consumer-in-transaction", "died at consumer-before-offset-commit", "died at relay-before-publish",
    "died at relay-after-ack", "died at sms-accepted", "died at email-accepted", "died at sms-before-record",
    "paid by wechat", "paid by alipay", "asked about a code that nobody had opened", "extend-payment asked for",
    "extend-payment decided: approve", "extend-payment decided: reject", "revive decided: approve", "decision refused: forbidden",
)  # fmt: skip
ENOUGH_FOR_EVERY_KIND: Final = 200  # seeds


@dataclass
class Totals:
    seeds: int = 0
    late: int = 0
    actions: int = 0
    looks: int = 0
    reached: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, told: Told) -> None:
        self.seeds += 1
        self.late += told.late
        self.actions += told.actions
        self.looks += told.looks
        self.reached.update(told.reached)

    @property
    def missed(self) -> list[str]:
        """Kinds of trouble that never came, where enough seeds ran for each to come."""
        return (
            [kind for kind in KINDS if not self.reached[kind]] if self.seeds >= ENOUGH_FOR_EVERY_KIND else []
        )


def on_a_stage(work: Callable[[Stage], Awaitable[T]]) -> T:
    """Run it on a stage of its own, in this process."""
    directory = Path(tempfile.mkdtemp(prefix="kaowu-simulation-"))
    directory.chmod(0o711)  # PostgreSQL runs as another account when we are root

    async def inside() -> T:
        async with (
            server(directory / "postgres") as found,
            stage(TestDatabases(found), directory / "stage") as one,
        ):
            # What was imported stays; to collect it again and again is a fifth of a run's time. The stage does so now and then.
            gc.collect()
            gc.freeze()
            gc.disable()
            try:
                return await work(one)
            finally:
                gc.enable()
                gc.unfreeze()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(inside())
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def attempt(one: Stage, seed: int, plan: dict[int, int] | None = None) -> tuple[Run, Told | str]:
    """A run and what it came to: its outcome, or what was violated or went wrong."""
    run = Run(one, seed, Chance(seed, plan))
    try:
        return run, await run.play()
    except Violation as violation:
        return run, str(violation)
    except Exception as error:  # a service that raises where it must not is a finding too
        return run, f"{type(error).__name__}: {error}"


def traces(seeds: Sequence[int]) -> dict[int, str]:
    """A digest of everything that happened in each of these runs, played in this order on one stage."""

    async def play(one: Stage) -> dict[int, str]:
        found = {}
        for seed in seeds:
            run, outcome = await attempt(one, seed)
            told = outcome if isinstance(outcome, str) else outcome.digest
            found[seed] = hashlib.sha256("\n".join((*run.trace, told)).encode()).hexdigest()
        return found

    return on_a_stage(play)


def _keep_to_one_processor(number: int) -> None:
    """This worker and its database, which work in turn: to wake up another processor costs more than most statements."""
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {processors[number % len(processors)]})


def _work(number: int, numbers: Any, results: Any, over: Any, until: float) -> None:
    async def all_of_them(one: Stage) -> None:
        while time.monotonic() < until and not over.is_set():
            try:
                seed = numbers.get_nowait()
            except Empty:
                return
            _, outcome = await attempt(one, seed)
            results.put((seed, outcome))

    _keep_to_one_processor(number)
    try:
        on_a_stage(all_of_them)
    finally:
        results.put(None)


def simulate(
    seeds: Sequence[int], *, workers: int, console: Console, minutes: float = 60.0, most_failures: int = 5
) -> Totals:
    """Play these seeds. Stops early after `most_failures`."""
    context = multiprocessing.get_context("spawn")
    numbers, results, over = context.Queue(), context.Queue(), context.Event()
    for seed in seeds:
        numbers.put(seed)
    totals, started = Totals(), time.monotonic()
    processes = [
        context.Process(
            target=_work, args=(number, numbers, results, over, started + minutes * 60), daemon=True
        )
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    columns = (
        TextColumn("seeds"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    try:
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("", total=len(seeds))
            left = workers
            while left and len(totals.failures) < most_failures:
                try:
                    came = results.get(timeout=2.0)
                except Empty:
                    if not any(process.is_alive() for process in processes):
                        break
                    continue
                if came is None:
                    left -= 1
                    continue
                seed, outcome = came
                if isinstance(outcome, str):
                    totals.failures.append((seed, outcome))
                else:
                    totals.add(outcome)
                done = totals.seeds + len(totals.failures)
                pace = f"{done / (time.monotonic() - started):.1f} a second"
                failed = f", {len(totals.failures)} failed" if totals.failures else ""
                progress.update(bar, advance=1, description=pace + failed)
    finally:
        over.set()
        numbers.cancel_join_thread()
        for process in processes:
            process.join(60)
            process.terminate()
    totals.seconds = time.monotonic() - started
    return totals


def show(totals: Totals, console: Console) -> None:
    """What was met, as a table, and how to repeat what failed."""
    table = Table(
        title=f"{totals.seeds} seeds, {totals.late} of them late, {totals.actions} actions, {totals.looks} looks, "
        f"{totals.seconds:.0f} s: {totals.seeds / max(totals.seconds, 1.0):.1f} a second"
    )
    table.add_column("what went wrong on purpose")
    table.add_column("times", justify="right")
    for kind, times in sorted(totals.reached.items()):
        table.add_row(kind, f"{times}")
    console.print(table)
    for kind in totals.missed:
        console.print(f"never met: {kind}", style="red")
    for seed, what in totals.failures:
        console.print(f"seed {seed}: {what}", style="red", highlight=False, markup=False)
        console.print(f"    repeat and cut down: make simulate SEED={seed}", highlight=False)


def repeat(seed: int, console: Console, mutation: Mutation = contextlib.nullcontext) -> bool:
    """One seed again, twice over to see that it repeats; a failing one is cut down. True when it passes."""

    async def look(one: Stage) -> bool:
        with mutation():
            return await _again(one, seed, console)

    return on_a_stage(look)


async def _again(one: Stage, seed: int, console: Console) -> bool:
    run, outcome = await attempt(one, seed)
    again, second = await attempt(one, seed)
    same = run.trace == again.trace
    console.print(f"repeats step by step: {'yes' if same else 'NO'}")
    if not isinstance(outcome, str):
        console.print(f"seed {seed} passes: {outcome.actions} actions, outcome {outcome.digest}")
        return same and not isinstance(second, str)
    console.print(outcome, style="red", highlight=False, markup=False)
    plan = run.chance.plan
    small = await cut_down(one, seed, plan, outcome)
    smallest, found = await attempt(one, seed, small)
    console.print(f"cut down from {len(plan)} to {len(small)} decisions that are not calm: {small}")
    for line in smallest.trace[-120:]:
        console.print(f"  {line}", highlight=False, markup=False)
    console.print(str(found), style="red", highlight=False, markup=False)
    return False


async def cut_down(one: Stage, seed: int, plan: Plan, outcome: str, *, tries: int = 400) -> dict[int, int]:
    """As few decisions of this run as still break what it broke."""
    word = what_broke(outcome)

    async def fails(candidate: Plan) -> bool:
        _, found = await attempt(one, seed, dict(candidate))
        return isinstance(found, str) and what_broke(found) == word

    return await shrunk(plan, fails, tries=tries)


def what_broke(outcome: str) -> str:
    """The invariant or the exception that comes first."""
    return outcome.partition(":")[0].split()[0]
