"""What a settled process does not do again and again: look through what it imported, take the same memory anew."""

from __future__ import annotations

import subprocess
import sys

_REQUESTS = """
import gc, resource, sys
from services.chassis import memory

def request():
    batches = [bytes(136_000) + b"." for _ in range(12)]
    return b"head" + b"".join(batches)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if "settled" in sys.argv:
    memory.settle()
for _ in range(5):
    request()
before = faults()
for _ in range(50):
    request()
print((faults() - before) // 50, gc.get_freeze_count())
"""


def of_a_process(*words: str) -> tuple[int, int]:
    """Page faults a request, and frozen objects."""
    done = subprocess.run(
        [sys.executable, "-c", _REQUESTS, *words], capture_output=True, text=True, check=True
    )
    faults, frozen = done.stdout.split()
    return int(faults), int(frozen)


def test_a_settled_process_keeps_the_memory_of_a_large_request_for_the_next() -> None:
    loose, _ = of_a_process()
    settled, _ = of_a_process("settled")
    assert settled < loose / 5


def test_what_was_imported_is_looked_through_no_more() -> None:
    _, loose = of_a_process()
    _, settled = of_a_process("settled")
    assert loose == 0
    assert settled > 5_000
