"""Which tests of broken systems a run plays: all of them, or a few that a seed picks.

pytest                             a few, picked by the seed that the header names
pytest --faults 5 --faults-seed 7  other ones, more of them
pytest --faults all                all (make test-faults)
pytest tests/faults/test_time.py   whoever is asked for by name is played

A test that needs what a machine may not have, `@pytest.mark.faults(needs="libfaketime")`, is none of the few: it is played,
and fails where that is missing, with all and by name. Nor is one that takes minutes, `@pytest.mark.faults(long=True)`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

FEW: Final = 2
SEED: Final = 5
MARK: Final = "faults"


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("kaowu")
    group.addoption("--faults", default=str(FEW), metavar="N|all", help="how many tests of broken systems")
    group.addoption("--faults-seed", type=int, default=SEED, metavar="S", help="picks which of them")


def pick(items: Sequence[pytest.Item], config: pytest.Config) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """(played, left out), each in the order it came. Raises UsageError for a number that is none."""
    broken = [item for item in items if item.get_closest_marker(MARK) and not _named(item, config)]
    wanted: str = config.getoption("--faults")
    if wanted == "all":
        return list(items), []
    if not wanted.isdecimal():
        raise pytest.UsageError(f"--faults takes a number or all, not {wanted!r}")
    chance = random.Random(config.getoption("--faults-seed"))
    able = [item.nodeid for item in broken if not _is_costly(item)]
    chosen = set(chance.sample(able, min(int(wanted), len(able))))
    left = [item for item in broken if item.nodeid not in chosen]
    out = {item.nodeid for item in left}
    return [item for item in items if item.nodeid not in out], left


def header(config: pytest.Config) -> str:
    wanted = config.getoption("--faults")
    if wanted == "all":
        return "faults: all"
    return f"faults: {wanted}, picked by seed {config.getoption('--faults-seed')} (make test-faults plays them all)"


def _is_costly(item: pytest.Item) -> bool:
    """Whether it needs what a machine may lack, or minutes."""
    marker = item.get_closest_marker(MARK)
    return marker is not None and bool(marker.kwargs.get("needs") or marker.kwargs.get("long"))


def _named(item: pytest.Item, config: pytest.Config) -> bool:
    """Whether the command line names its file or the test itself, not merely a folder around it."""
    return any(
        (config.invocation_params.dir / argument.split("::")[0]).resolve() == Path(item.path)
        for argument in config.args
    )
