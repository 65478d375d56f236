"""Waiting for what another task or process does: by looking again, and never for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    look: Callable[[], Awaitable[T]], *, within: float = 10.0, every: float = 0.02, because: str = ""
) -> T:
    """What `look` answers once the answer is truthy. An AssertionError it raises counts as "not yet"."""
    deadline = time.monotonic() + within
    while True:
        last: object = None
        try:
            answer = await look()
        except AssertionError as not_yet:
            last = not_yet
        else:
            if answer:
                return answer
            last = answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s{': ' + because if because else ''}; last: {last!r}")
        await asyncio.sleep(every)
