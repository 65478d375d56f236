"""Asking a process whether it is ready, with no client library."""

from __future__ import annotations

import asyncio
import contextlib
import time

from deploy.local.processes import Child


async def wait_until_ready(child: Child, port: int, *, timeout: float = 60.0) -> None:
    """Until GET /ready answers 200, the child dies, or the time is over."""
    deadline = time.monotonic() + timeout
    last = "nothing listens"
    while True:
        with contextlib.suppress(OSError, TimeoutError, ValueError, IndexError):
            status, body = await _get(port, "/ready")
            if status == 200:
                return
            last = f"{status} {body[:300]}"
        if not child.alive:
            raise child.failure("did not start")
        if time.monotonic() > deadline:
            raise child.failure(f"is not ready after {timeout:.0f} s ({last})")
        await asyncio.sleep(0.05)


async def _get(port: int, path: str) -> tuple[int, str]:
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
            writer.write(request.encode("ascii"))
            await writer.drain()
            answer = await reader.read(65_536)
        finally:
            writer.close()
    head, _, body = answer.decode("utf-8", "replace").partition("\r\n\r\n")
    return int(head.split(" ", 2)[1]), body
