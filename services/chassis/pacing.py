"""Fewer, larger turns: on a small machine what comes meanwhile is done together and costs less."""

from __future__ import annotations

import asyncio
import contextlib
import time


class Pace:
    """The least real time between the beginnings of two turns, unless somebody waits for what is gathered."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last = -seconds
        self._hurried = asyncio.Event()

    def begin(self) -> None:
        """A turn begins now."""
        self._last = time.monotonic()

    async def keep(self) -> None:
        """Until the next turn may begin."""
        if (early := self._last + self.seconds - time.monotonic()) > 0:
            self._hurried.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), early)

    def hurry(self) -> None:
        """Somebody waits: whoever keeps this pace goes on."""
        self._hurried.set()
