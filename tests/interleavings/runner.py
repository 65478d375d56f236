"""Many batches on several processes; what failed is named with the command that repeats it, what was never reached as well."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.console import Console

from tests.interleavings.playing import SIZE, Batch
from tests.interleavings.reaching import missed
from tests.interleavings.town import Town, town
from tests.support import plays

T = TypeVar("T")
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
    return batch, await plays.outcome_of(batch.play()) or ""


def digest(batch: Batch) -> str:
    """Of everything that happened to everybody in it."""
    stories = "\n".join(line for one in batch.candidates for line in (f"run {one.number}", *one.log))
    counted = json.dumps(sorted(batch.reached.items()), ensure_ascii=False)
    return hashlib.sha256(f"{stories}\n{counted}".encode()).hexdigest()


def in_a_town(work: Callable[[Town], Awaitable[T]]) -> T:
    """Run it in this process, in a town of its own."""
    return plays.played_on(town(), work)


def _play(numbers: Iterable[int], say: Callable[[Any], None]) -> None:
    async def all_of_them(one: Town) -> None:
        for number in numbers:
            batch, broken = await attempt(one, number)
            say((number, broken, dict(batch.reached)))

    in_a_town(all_of_them)


def play(
    batches: Sequence[int],
    *,
    workers: int,
    minutes: float = 60.0,
    say: Callable[[str], None] = lambda _: None,
) -> Totals:
    """Play these batches. Stops early after a few failures, or when time is up."""
    totals, started = Totals(), time.monotonic()
    with contextlib.closing(plays.played(_play, batches, workers=workers, minutes=minutes)) as results:
        for number, broken, reached in results:
            totals.reached.update(reached)
            if broken:
                totals.failures.append((number, broken))
            else:
                totals.runs += SIZE
            if (totals.runs // SIZE) % 25 == 0:
                pace = totals.runs / (time.monotonic() - started)
                say(f"{totals.runs} runs, {pace:.0f} a second, {len(totals.failures)} violations")
            if len(totals.failures) >= MOST_FAILURES:
                break
    totals.seconds = time.monotonic() - started
    return totals


def show(totals: Totals, console: Console) -> None:
    """How often each was reached, what never was, and how to repeat what failed."""
    plays.show(
        console,
        f"{totals.runs} runs, {totals.seconds:.0f} s: {totals.runs / max(totals.seconds, 1.0):.0f} a second, "
        f"{len(totals.failures)} violations",
        totals.reached,
        missed=totals.missed,
        failures=[
            (f"batch {number}", broken, f"python -m tests.interleavings --batch {number}")
            for number, broken in totals.failures
        ],
    )


def repeat(number: int, console: Console) -> bool:
    """One batch again, twice over to see that it repeats. True when it passes."""

    async def twice(one: Town) -> bool:
        first, broken = await attempt(one, number)
        again, _ = await attempt(one, number)
        same = digest(first) == digest(again)
        console.print(f"repeats step by step: {'yes' if same else 'NO'}")
        console.print(broken or f"batch {number} passes", highlight=False, markup=False)
        return same and not broken

    return in_a_town(twice)
