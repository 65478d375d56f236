"""In which order a run on several processors plays: what takes longest first, so that nobody is left alone with it at the end.

Files are dealt out whole (`--dist loadfile --no-loadscope-reorder`). This is about time only: every test stands alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parents[1]
# Minutes and half minutes, the longest first; systems with many processes not all at the same time.
LONGEST: Final = (
    "e2e/test_rehearsal.py",
    "local/test_system.py",
    "simulation/test_seeds.py",
    "local/test_foreground.py",
    "simulation/test_planted.py",
    "faults/test_messages.py",
    "benchmarks/test_streams.py",
    "interleavings/test_planted.py",
    "local/test_kafka.py",
    "service/payment/test_evidence.py",
)


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The same tests; among the others, as they came."""
    place = {TESTS / name: number for number, name in enumerate(LONGEST)}
    return sorted(items, key=lambda item: place.get(Path(item.path), len(LONGEST)))
