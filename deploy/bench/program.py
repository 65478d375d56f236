"""The inside of one measured program: its task comes in on standard input, its answers go out as lines of JSON.

Every contender speaks this, ours and the peers: prepare, say ready, wait for the word, work, tell the result.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import uvloop

Task = Mapping[str, Any]


class Door:
    """The way to whoever measures."""

    def __init__(self) -> None:
        self._cpu_before = 0.0

    async def ready(self, **facts: object) -> None:
        """Everything is prepared. Returns when the measurement begins."""
        await asyncio.to_thread(self.ready_now, **facts)

    def ready_now(self, **facts: object) -> None:
        """The same for a program without a loop."""
        tell({"ready": facts})
        self.word()
        self._cpu_before = own_cpu()

    async def told(self) -> str:
        """The next word of whoever measures; empty when he has gone."""
        return await asyncio.to_thread(self.word)

    def word(self) -> str:
        return sys.stdin.readline().strip()

    def result(self, **facts: object) -> None:
        """What was measured; the processor time since the beginning is added."""
        tell({"result": {**facts, "cpu": own_cpu() - self._cpu_before}})


def run(work: Callable[[Task, Door], Awaitable[None]]) -> None:
    """The whole of a program with a loop."""
    task = json.loads(sys.stdin.readline())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_awaited(work(task, Door())))


async def _awaited(work: Awaitable[None]) -> None:
    await work


def tell(message: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def own_cpu() -> float:
    """Seconds of processor time of this process and of those it waited for."""
    mine, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime
