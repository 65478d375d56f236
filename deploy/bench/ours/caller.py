"""A gateway that calls back: so many connections as fast as they are answered, or so many calls a second whatever comes.

Its requests are made and signed before it is asked to begin, so that it takes as little of the machine as a client can.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploy.bench.notices import PATH, notice
from deploy.bench.program import Door, Task, run
from deploy.simulators.credentials import Credentials


class Connection:
    """One kept connection, one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.closed_under_us = 0
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> int:
        """The status. A server closes what nobody used for a while: then it is asked by a new connection."""
        kept = self._writer is not None
        try:
            return await self._ask(request)
        except (OSError, asyncio.IncompleteReadError):
            if not kept:
                raise
            self.closed_under_us += 1
            self._reader = self._writer = None
            return await self._ask(request)

    async def _ask(self, request: bytes) -> int:
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        if b"content-length:" in lower:
            length = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0])
            if length:
                await self._reader.readexactly(length)
        return int(head[9:12])


Call = tuple[float, float, int]  # when it was due, how long it took, status


async def work(task: Task, door: Door) -> None:
    world = Credentials.of(Path(task["credentials"])).wechat
    at = datetime.now(UTC)
    paid_at = at - timedelta(minutes=1)
    if task.get("paid_at"):
        paid_at = datetime.fromisoformat(task["paid_at"])
    path = task.get("path", PATH)
    requests = [notice(world, number, paid_at=paid_at, at=at, path=path) for number in task["orders"]]
    calls: list[Call] = []
    stop = asyncio.Event()
    await door.ready()
    began = time.perf_counter()
    if task.get("rate"):
        told = asyncio.create_task(_until_told(door, stop))
        await _at_a_rate(task["port"], requests, task["rate"], calls, stop)
        told.cancel()
    else:
        await _as_fast_as_answered(task["port"], requests, task["connections"], calls)
    took = time.perf_counter() - began
    # Moments on the clock of the machine, for whoever knows when something else began.
    base = time.time() - time.perf_counter()
    door.result(
        seconds=took,
        calls=[(base + due, lasted, status) for due, lasted, status in calls],
        sent=len(calls),
    )


async def _until_told(door: Door, stop: asyncio.Event) -> None:
    await door.told()
    stop.set()


async def _as_fast_as_answered(port: int, requests: list[bytes], connections: int, calls: list[Call]) -> None:
    waiting: Iterator[bytes] = iter(requests)

    async def one() -> None:
        connection = Connection(port)
        for request in waiting:
            sent = time.perf_counter()
            status = await connection.ask(request)
            calls.append((sent, time.perf_counter() - sent, status))

    await asyncio.gather(*(one() for _ in range(connections)))


async def _at_a_rate(
    port: int, requests: list[bytes], rate: float, calls: list[Call], stop: asyncio.Event
) -> None:
    """Each at its moment; what it takes is counted from then, so that nobody who waits is left out."""
    free: list[Connection] = []
    under_way: set[asyncio.Task[None]] = set()

    async def one(request: bytes, due: float) -> None:
        connection = free.pop() if free else Connection(port)
        try:
            status = await connection.ask(request)
        except (OSError, asyncio.IncompleteReadError):
            calls.append((due, time.perf_counter() - due, 0))
            return
        calls.append((due, time.perf_counter() - due, status))
        free.append(connection)

    began = time.perf_counter()
    for number, request in enumerate(requests):
        due = began + number / rate
        if (early := due - time.perf_counter()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), early)
        if stop.is_set():
            break
        task = asyncio.create_task(one(request, due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)


if __name__ == "__main__":
    run(work)
