"""Plays that a number decides, many of them on several processes: each process has a loop, a database and a processor of its own.

def _play(numbers: Iterable[int], say: Callable[[Any], None]) -> None:
    ...  # in each process: plays these, says what came of each

with contextlib.closing(played(_play, range(200), workers=2, minutes=8)) as results:
    for result in results:
        ...
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractAsyncContextManager
from multiprocessing.context import ForkServerContext
from pathlib import Path
from queue import Empty
from typing import Any, TypeAlias, TypeVar

import uvloop
from rich.console import Console
from rich.table import Table

PlaceT = TypeVar("PlaceT")
T = TypeVar("T")
JobT = TypeVar("JobT")
Play: TypeAlias = Callable[[Iterable[JobT], Callable[[Any], None]], None]


class Violation(AssertionError):
    """A promise was broken; its text begins with the invariant's name, or with `model`."""


async def outcome_of(play: Awaitable[T]) -> T | str:
    """What it came to, or what was violated or went wrong in it."""
    try:
        return await play
    except Violation as violation:
        return str(violation)
    except Exception as error:  # whoever raises where they must not is a finding too
        return f"{type(error).__name__}: {error}"


# One process


def _processes_for(work: Callable[..., Any]) -> ForkServerContext:
    """Clean ones, which need not import all that the work needs once more: whoever forks them has."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    return context


def apart(work: Callable[..., T], *given: Any) -> T:
    """In a process of its own: what is played on changes much of the one that it stands in."""
    with ProcessPoolExecutor(1, mp_context=_processes_for(work)) as worker:
        return worker.submit(work, *given).result()


@contextlib.contextmanager
def directory_of_our_own(name: str) -> Iterator[Path]:
    """Gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix=f"kaowu-{name}-"))
    directory.chmod(0o711)  # PostgreSQL runs as another account when we are root
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def played_on(place: AbstractAsyncContextManager[PlaceT], work: Callable[[PlaceT], Awaitable[T]]) -> T:
    """Run it on this, in this process. Nobody else collects garbage meanwhile."""

    async def inside() -> T:
        async with place as one:
            # What was imported stays; to collect it again and again is a fifth of a run's time.
            gc.collect()
            gc.freeze()
            gc.disable()
            try:
                return await work(one)
            finally:
                gc.enable()
                gc.unfreeze()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(inside())


def _keep_to_one_processor(number: int) -> None:
    """This worker and its database, which work in turn: to wake up another processor costs more than most statements."""
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {processors[number % len(processors)]})


# Several


def played(
    play: Play[JobT], jobs: Sequence[JobT], *, workers: int, minutes: float
) -> Generator[Any, None, None]:
    """What is said of these, as it comes, until all are played or time is up. Close it to stop early."""
    context = _processes_for(play)
    waiting, results, over = context.Queue(), context.Queue(), context.Event()
    for job in jobs:
        waiting.put(job)
    until = time.monotonic() + minutes * 60
    processes = [
        context.Process(target=_work, args=(play, place, waiting, results, over, until), daemon=True)
        for place in range(workers)
    ]
    for process in processes:
        process.start()
    left = workers
    try:
        while left:
            try:
                result = results.get(timeout=2.0)
            except Empty:
                if not any(process.is_alive() for process in processes):
                    break
                continue
            if result is None:
                left -= 1
            else:
                yield result
    finally:
        over.set()
        waiting.cancel_join_thread()
        for process in processes:
            process.join(60)
            process.terminate()


def _work(play: Play[Any], place: int, waiting: Any, results: Any, over: Any, until: float) -> None:
    def jobs() -> Iterator[Any]:
        while time.monotonic() < until and not over.is_set():
            try:
                yield waiting.get_nowait()
            except Empty:
                return

    _keep_to_one_processor(place)
    try:
        play(jobs(), results.put)
    finally:
        results.put(None)


# What is said about them


def show(
    console: Console,
    title: str,
    reached: Mapping[str, int],
    *,
    missed: Sequence[str],
    failures: Sequence[tuple[str, str, str]],
) -> None:
    """How often each was reached, what never was, and of each failure its name, what broke and what repeats it."""
    table = Table(title=title)
    table.add_column("what happened")
    table.add_column("times", justify="right")
    for what, times in sorted(reached.items()):
        table.add_row(what, f"{times}")
    console.print(table)
    for what in missed:
        console.print(f"never reached, or not often enough: {what}", style="red")
    for name, broken, command in failures:
        console.print(f"{name}: {broken}", style="red", highlight=False, markup=False)
        console.print(f"    repeat: {command}", highlight=False)
