"""`python -m tests.simulation --seeds 20000` plays many seeds; `--seed N` repeats one and cuts it down when it fails."""

from __future__ import annotations

import argparse
import contextlib
import os

from rich.console import Console

from tests.simulation import runner
from tests.simulation.planted import PLANTED


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20_000, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one only, twice; cut down when it fails")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so long")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--planted", choices=sorted(PLANTED), help="with --seed: with this protection taken away"
    )
    given = parser.parse_args()
    console = Console()
    if given.seed is not None:
        mutation = PLANTED[given.planted].mutation if given.planted else contextlib.nullcontext
        return 0 if runner.repeat(given.seed, console, mutation) else 1
    seeds = range(given.first, given.first + given.seeds)
    totals = runner.simulate(seeds, workers=given.workers, console=console, minutes=given.minutes)
    runner.show(totals, console)
    done = totals.seeds + len(totals.failures)
    if done < given.seeds and not totals.failures:
        console.print(f"only {done} of {given.seeds} seeds were played", style="red")
    return 0 if done == given.seeds and not totals.failures and not totals.missed else 1


if __name__ == "__main__":
    raise SystemExit(main())
