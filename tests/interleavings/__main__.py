"""`python -m tests.interleavings` plays many runs; `--first N --sum FILE` cuts them in parts, `--batch N` repeats some."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rich.console import Console

from tests.interleavings import runner
from tests.interleavings.playing import SIZE


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.interleavings", description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000, help=f"how many, in batches of {SIZE}")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--sum", type=Path, help="a file to which this part is added; judged is the sum")
    parser.add_argument("--batch", type=int, help="this one only, twice")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so long")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    console = Console(width=120)
    if given.batch is not None:
        return 0 if runner.repeat(given.batch, console) else 1
    first = given.first // SIZE
    batches = range(first, first + -(-given.runs // SIZE))
    totals = runner.play(batches, workers=given.workers, minutes=given.minutes, say=console.print)
    complete = totals.runs >= given.runs
    if given.sum is not None:
        totals = totals.add_to(given.sum)
    runner.show(totals, console)
    if not complete and not totals.failures:
        console.print("not all of them were played", style="red")
    return 0 if complete and not totals.failures and not totals.missed else 1


if __name__ == "__main__":
    raise SystemExit(main())
