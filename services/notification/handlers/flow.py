"""Messages of one channel on their way: so many at a time, and whoever waits for a slow answer holds up nobody else."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Generic, Self, TypeVar

M = TypeVar("M")
R = TypeVar("R")


class Flow(Generic[M, R]):
    """What waits, what is under way, and what came back and is not recorded yet. Left early, it lets nothing go on."""

    def __init__(self, send: Callable[[M], Awaitable[R]], at_once: int) -> None:
        self._send, self._at_once = send, at_once
        self._waiting: deque[M] = deque()
        self._done: list[R] = []
        self._since: float | None = None
        self._senders: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()
        self._failed: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.clear()
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is under way."""
        return not self._waiting and not self._senders

    @property
    def hungry(self) -> bool:
        """So few wait that they may be gone before more are claimed."""
        return len(self._waiting) < 2 * self._at_once

    @property
    def answered(self) -> int:
        """How many came back and were not taken."""
        return len(self._done)

    def held(self) -> float:
        """Seconds since the first of those came back."""
        return 0.0 if self._since is None else asyncio.get_running_loop().time() - self._since

    def put(self, messages: Iterable[M]) -> None:
        """These go next."""
        self._waiting.extend(messages)
        self._start()

    def _start(self) -> None:
        for _ in range(min(len(self._waiting), self._at_once - len(self._senders))):
            sender = asyncio.create_task(self._work())
            self._senders.add(sender)
            sender.add_done_callback(self._ended)

    def take(self) -> list[R]:
        """What came back since the last time."""
        taken, self._done, self._since = self._done, [], None
        return taken

    def put_off(self) -> list[M]:
        """Those that wait: they do not go any more."""
        left = list(self._waiting)
        self._waiting.clear()
        return left

    async def moves(self) -> None:
        """Until one more came back. Raises what ended a sender."""
        await self._moved.wait()
        self._moved.clear()
        for failed in self._failed:
            failed.result()

    async def _work(self) -> None:
        while self._waiting:
            result = await self._send(self._waiting.popleft())
            if self._since is None:
                self._since = asyncio.get_running_loop().time()
            self._done.append(result)
            self._moved.set()

    def _ended(self, sender: asyncio.Task[None]) -> None:
        self._senders.discard(sender)
        if not sender.cancelled() and sender.exception() is not None:
            self._failed.append(sender)
        elif not sender.cancelled():
            self._start()  # more may have been put between its end and this
        self._moved.set()
