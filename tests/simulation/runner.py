"""Many seeds on several processes, with a bar; a failing one is named with the command that repeats it."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.simulation.finding import Found, first
from tests.simulation.planted import PLANTED
from tests.simulation.playing import attempt, digest, on_a_stage
from tests.simulation.run import Told
from tests.simulation.shrink import Plan, shrunk
from tests.simulation.stage import Stage
from tests.support import plays
from tests.support.switched_off import Mutation

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
    traces: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Seed → a digest of everything that happened, one for each way in which it played out."""
    failures: list[tuple[int, str]] = field(default_factory=list)
    found: dict[str, Found | None] = field(default_factory=dict)
    """Planted bug → who missed what it takes away."""
    seconds: float = 0.0

    def add(self, result: _Seed) -> None:
        self.traces[result.seed].add(result.trace)
        told = result.outcome
        if isinstance(told, str):
            self.failures.append((result.seed, told))
            return
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

    @property
    def differing(self) -> list[int]:
        """Seeds that were played more than once, and not alike."""
        return [seed for seed, traces in self.traces.items() if len(traces) > 1]


@dataclass(frozen=True, slots=True)
class _Seed:
    """What a worker says of one that it played."""

    seed: int
    trace: str
    outcome: Told | str


@dataclass(frozen=True, slots=True)
class _Search:
    """What a worker says of a planted bug that it looked for."""

    planted: str
    found: Found | None


def _play(jobs: Iterable[int | str], say: Callable[[Any], None]) -> None:
    async def all_of_them(one: Stage) -> None:
        for job in jobs:
            if isinstance(job, str):
                planted = PLANTED[job]
                say(_Search(job, await first(one, planted.mutation, planted.seeds)))
            else:
                run, outcome = await attempt(one, job)
                say(_Seed(job, digest(run, outcome), outcome))

    on_a_stage(all_of_them)


def simulate(
    seeds: Sequence[int],
    *,
    planted: Sequence[str] = (),
    workers: int,
    console: Console,
    minutes: float = 60.0,
    most_failures: int = 5,
) -> Totals:
    """Look for these planted bugs and play these seeds, some perhaps more than once. Stops early after `most_failures`."""
    totals, started = Totals(), time.monotonic()
    columns = (
        TextColumn("seeds"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    jobs: list[int | str] = [*planted, *seeds]
    results = plays.played(_play, jobs, workers=workers, minutes=minutes)
    with contextlib.closing(results), Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=len(seeds))
        for result in results:
            if isinstance(result, _Search):
                totals.found[result.planted] = result.found
                continue
            totals.add(result)
            done = totals.seeds + len(totals.failures)
            pace = f"{done / (time.monotonic() - started):.1f} a second"
            failed = f", {len(totals.failures)} failed" if totals.failures else ""
            progress.update(bar, advance=1, description=pace + failed)
            if len(totals.failures) >= most_failures:
                break
    totals.seconds = time.monotonic() - started
    return totals


def show(totals: Totals, console: Console) -> None:
    """What was met, as a table, and how to repeat what failed."""
    plays.show(
        console,
        f"{totals.seeds} seeds, {totals.late} of them late, {totals.actions} actions, {totals.looks} looks, "
        f"{totals.seconds:.0f} s: {totals.seeds / max(totals.seconds, 1.0):.1f} a second",
        totals.reached,
        missed=totals.missed,
        failures=[
            (f"seed {seed}", what, f"and cut down: make simulate SEED={seed}")
            for seed, what in totals.failures
        ],
    )


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
