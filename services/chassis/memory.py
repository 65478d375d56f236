"""What a process says about its memory, once, when everything is imported and wired."""

from __future__ import annotations

import gc
from typing import Final

_KEPT_BYTES: Final = 1 << 24
_YOUNG: Final = (
    20_000  # new objects before the collector looks for cycles among them; a page of rows is 2,000
)


def settle() -> None:
    """For a process that lives long and moves much: a relay that catches up spends a quarter less.

    What was imported lives as long as the process: the collector need not look through it again and again because rows come and
    go, nor through every few hundred of those. And glibc gives the memory of a large request back to the system and takes it
    again for the next one, page fault by page fault; above which size, it learns from the largest block that was ever freed.
    One that nobody touches costs nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
    bytearray(_KEPT_BYTES)
