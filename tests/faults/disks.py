"""A disk so small that it can be filled: a tmpfs of its own, which needs root."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


class NoSmallDisk(AssertionError):
    """Nothing was proved. The message says what is missing."""


@dataclass(frozen=True)
class Disk:
    path: Path

    @property
    def _filler(self) -> Path:
        return self.path / "filler"

    def fill(self) -> int:
        """To the last page; again, when something was given free meanwhile. Returns the bytes it took."""
        written = 0
        with self._filler.open("ab", buffering=0) as file:
            for piece in (MIB, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        written += file.write(bytes(piece))
        try:
            (self.path / "probe").write_bytes(bytes(8192))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        else:
            raise NoSmallDisk(f"{self.path} is not full")
        finally:
            (self.path / "probe").unlink(missing_ok=True)
        return written

    def free(self) -> None:
        self._filler.unlink()


@asynccontextmanager
async def small_disk(path: Path, size: int) -> AsyncIterator[Disk]:
    """A file system of so many MiB at this path, gone after the block."""
    path.mkdir(parents=True)
    await _run("mount", "-t", "tmpfs", "-o", f"size={size}m,mode=0711", "tmpfs", str(path))
    try:
        yield Disk(path)
    finally:
        await _run("umount", "--lazy", str(path))


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode != 0:
        raise NoSmallDisk(
            f"a full disk needs a small one, and it could not be made ({said.decode().strip()}): run this test as root, "
            "outside of a container that forbids mounts"
        )
