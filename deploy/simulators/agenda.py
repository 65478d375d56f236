"""What the simulated outside still has to do, and when: callbacks, repeats, receipts.

It can tell truthfully whether anything is due or under way, because a rehearsal jumps the clock to the next
moment named here and waits until nothing is pending.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from services.chassis.clock import Clock

Deed = Callable[[], Awaitable[None]]
_AT_ONCE = 32  # deeds under way together
_BETWEEN_LOOKS = 0.004  # real seconds, while somebody waits for rest
_LONGEST_PAUSE = 0.5  # real seconds; a bound on how long a missed wake-up could last


@dataclass(frozen=True, slots=True)
class Pending:
    """`now`: due or under way. `next_at`: the first moment after now."""

    now: int
    next_at: datetime | None


class Agenda:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[datetime, int, Deed]] = []
        self._order = itertools.count()
        self._under_way: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self.failures: list[str] = []

    def add(self, at: datetime, deed: Deed) -> None:
        if not self._heap or at < self._heap[0][0]:
            self._wake.set()
        heapq.heappush(self._heap, (at, next(self._order), deed))

    def pending(self) -> Pending:
        now = self._clock.now()
        due = sum(1 for at, _, _ in self._heap if at <= now)
        later = min((at for at, _, _ in self._heap if at > now), default=None)
        if due:
            # Whoever asks has moved the clock: the sleeper need not find it out by itself.
            self._wake.set()
        return Pending(due + len(self._under_way), later)

    async def settled(self, within: float) -> None:
        """Until nothing is due or under way, or so many real seconds have passed: cheaper than to be asked again."""
        until = time.monotonic() + within
        while (self._under_way or self._is_due()) and time.monotonic() < until:
            self._wake.set()
            await asyncio.sleep(_BETWEEN_LOOKS)

    def _is_due(self) -> bool:
        return bool(self._heap) and self._heap[0][0] <= self._clock.now()

    async def run(self) -> None:
        """For ever: do what is due, in order of its moment."""
        while True:
            self._wake.clear()
            while self._is_due():
                _, _, deed = heapq.heappop(self._heap)
                # Registered before anything is awaited: pending() never has a gap.
                task = asyncio.create_task(self._do(deed))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            await self._pause()

    async def _do(self, deed: Deed) -> None:
        async with self._slots:
            try:
                await deed()
            except Exception as error:
                # One deed's failure must not stop the world; /sim/rest shows it.
                self.failures.append(f"{type(error).__name__}: {error}")

    async def _pause(self) -> None:
        seconds = _LONGEST_PAUSE
        if self._heap:
            left = (self._heap[0][0] - self._clock.now()).total_seconds()
            # A virtual second is no real one; a jump ends the sleep early.
            seconds = seconds if self._clock.virtual else min(seconds, max(left, 0.0))
        sleeper = asyncio.create_task(self._clock.sleep(seconds))
        waker = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait({sleeper, waker}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeper.cancel()
            waker.cancel()
