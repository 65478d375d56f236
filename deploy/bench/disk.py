"""What the disk itself did meanwhile: whoever waits for a commit waits for it, whatever runs beside."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from deploy.bench.figures import number, percentile

_BLOCK: Final = bytes(8192)
_EVERY: Final = 0.1  # seconds
_BLOCKS: Final = 2048  # written over and over, as a log's kept segments are


_KERNEL: Final = Path("/proc/sys/vm")


def writeback() -> str:
    """When the kernel writes out what it keeps of files: much at once, and commits wait for it."""
    try:
        size, share, old = (
            int((_KERNEL / f"dirty_{name}").read_text())
            for name in ("background_bytes", "background_ratio", "expire_centisecs")
        )
    except OSError:
        return "when the kernel writes out what it keeps of files is not known here"
    kept = f"{size / 2**20:.0f} MiB" if size else f"{share} % of the memory"
    return f"the kernel writes out what it keeps of files from {kept} or {old / 100:.0f} s on"


class Probe:
    """Writes 8 kB through to the disk ten times a second, in a file of its own."""

    def __init__(self, took: Iterable[tuple[float, float]] = ()) -> None:
        self._took = list(took)  # when it began, on the machine's clock; seconds

    async def run(self, path: Path) -> None:
        """Until cancelled."""
        file = os.open(path, os.O_CREAT | os.O_RDWR)
        try:
            for _ in range(_BLOCKS):
                os.write(file, _BLOCK)
            await asyncio.to_thread(os.fsync, file)
            turn = 0
            while True:
                turn = (turn + 1) % _BLOCKS
                began, mark = time.time(), time.perf_counter()
                await asyncio.to_thread(_write, file, turn * len(_BLOCK))
                self._took.append((began, time.perf_counter() - mark))
                await asyncio.sleep(_EVERY)
        finally:
            os.close(file)

    def p99(self, begins: float, ends: float) -> float:
        """Of the writes between these moments, in ms."""
        return percentile(self._between(begins, ends), 99)

    def say(self, begins: float, ends: float) -> str:
        """What a write took between these moments, in words."""
        return (
            f"p99 {number(self.p99(begins, ends))} ms, longest {number(max(self._between(begins, ends)))} ms"
        )

    def _between(self, begins: float, ends: float) -> list[float]:
        return [took * 1000 for began, took in self._took if begins <= began < ends] or [0.0]


def _write(file: int, place: int) -> None:
    os.pwrite(file, _BLOCK, place)
    os.fdatasync(file)


@asynccontextmanager
async def probed(path: Path) -> AsyncIterator[Probe]:
    """Probing inside."""
    probe = Probe()
    running = asyncio.create_task(probe.run(path))
    try:
        yield probe
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
