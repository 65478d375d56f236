"""Named points at which a test lets a process die, as `kill -9` would. Off unless the environment arms one.

`KAOWU_CRASH_AT=after-commit:3` dies when that point is reached for the third time. And the one death of its own accord:
`out_of_memory`.
"""

from __future__ import annotations

import contextlib
import os
from typing import NoReturn

import structlog

log = structlog.get_logger(__name__)

_EXIT = 137
_NO_MEMORY = 71  # EX_OSERR: whoever supervises the process must see that it failed
_name, _, _count = os.environ.get("KAOWU_CRASH_AT", "").partition(":")
_left = int(_count or 1)


def _die() -> None:
    """At once, as `kill -9`. The seeded simulation, many lives in one process, puts an exception in its place."""
    os._exit(_EXIT)


def crash_point(name: str) -> None:
    """Die here at once, without flushing or closing anything, if this point is armed and its turn has come."""
    global _left  # noqa: PLW0603 - one process, one count, and it ends here
    if name != _name:
        return
    _left -= 1
    if _left <= 0:
        _die()


def out_of_memory() -> NoReturn:
    """Nothing fits any more, whatever it is: end at once. What was not committed comes again, to a process with memory."""
    with contextlib.suppress(MemoryError):
        log.critical("out-of-memory")
    os._exit(_NO_MEMORY)
