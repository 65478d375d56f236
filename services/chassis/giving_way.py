"""Long work in pieces lets people through: who calls while it goes on must not wait behind it.

It shares with them a processor, the disk that commits wait for, and one event loop. While nobody calls it has all of that.
"""

from __future__ import annotations

import asyncio
from typing import Final

SMALL: Final = 400  # rows: some hundredths of a second, and of log less than a disk writes in one of them
_LONGEST: Final = 0.25  # seconds of rest: however slow a piece was, the work goes on


class Visitors:
    """How many calls have come to this process. `RequestScope` counts them."""

    def __init__(self) -> None:
        self.came = 0


class GivingWay:
    """How large the next piece is, and how long it is put off: as long as the last one took, in smaller pieces, if anybody
    came meanwhile. So the work takes at most half of the time of what it competes for, and still ends.
    """

    def __init__(self, visitors: Visitors, usual: int) -> None:
        self._visitors, self._usual = visitors, usual
        self._seen = visitors.came
        self._began = self._now()
        self.size = usual

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def rest(self) -> None:
        """Between two pieces."""
        came = self._visitors.came
        if came == self._seen:
            self.size = self._usual
        else:
            self._seen, self.size = came, min(SMALL, self._usual)
            await asyncio.sleep(min(self._now() - self._began, _LONGEST))
        self._began = self._now()
