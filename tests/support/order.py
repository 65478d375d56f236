"""In which order a run on several processors plays its files, so that nobody is left alone with a long one at the end.

Files are dealt out whole and in this order (`--dist loadfile --no-loadscope-reorder`). It is about time only: every test
stands alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parents[1]
# More than a minute each, in few tests.
LONGEST: Final = ("simulation/test_seeds.py", "e2e/test_rehearsal.py")


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The same tests: files that take longest, then those with the most tests; within a file as they came."""
    place = {TESTS / name: number for number, name in enumerate(LONGEST)}
    many = Counter(Path(item.path) for item in items)
    return sorted(
        items,
        key=lambda item: (place.get(Path(item.path), len(LONGEST)), -many[Path(item.path)], str(item.path)),
    )
