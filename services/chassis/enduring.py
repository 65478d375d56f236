"""What must still be written when the database is away for a moment: once forgotten, it could not be known again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.chassis.db import LOST

T = TypeVar("T")


async def endured(
    write: Callable[[], Awaitable[T]], *, within: float, every: float, lost: Callable[[Exception], None]
) -> T:
    """What `write` returns, tried again for `within` real seconds, `every` so many, while its connection gets lost.

    `lost` hears of each time, before the next try. Raises what the last try raised.
    """
    now = asyncio.get_running_loop().time
    until = now() + within
    while True:
        try:
            return await write()
        except LOST as error:
            if now() >= until:
                raise
            lost(error)
            await asyncio.sleep(every)
