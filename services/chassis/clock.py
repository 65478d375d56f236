"""The one clock of a process.

Domain functions never ask the time, they are told (`at`). Whoever tells them asks a `Clock`. A rehearsal
moves one virtual clock for a whole local system: a 40-byte file, written by its driver, mapped by every process.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, runtime_checkable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# generation (odd while it is being written), real ns and virtual µs at the anchor, virtual seconds per real second
_LAYOUT = struct.Struct("<QqqdQ")
_CHECK = 0x6B616F77_75636C6B
_SLICE = 0.02  # how long a sleeper may stay blind to a jump, in real seconds


@runtime_checkable
class Clock(Protocol):
    """Where a process learns what time it is."""

    @property
    def virtual(self) -> bool:
        """Whether this time can be moved. A moved clock must never meet a real gateway or carrier."""
        ...

    def now(self) -> datetime:
        """The moment that rules are decided by: aware, UTC, to the microsecond."""
        ...

    def real_now(self) -> datetime:
        """The machine's own time, beneath any virtual one. For comparing clocks, never for rules."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait this many real seconds, or less when virtual time is moved meanwhile."""
        ...


class SystemClock:
    """The machine's clock."""

    virtual = False

    def now(self) -> datetime:
        return datetime.now(UTC)

    def real_now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class RehearsalClock:
    """Virtual time shared through a file: real time + offset, moved by jumps and by a rate (0 stands still)."""

    virtual = True

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), _LAYOUT.size, access=mmap.ACCESS_READ)
        if self._read()[4] != _CHECK:
            raise ValueError(f"{path.name} is no clock file: let deploy.local write it with ClockControl")
        self._sleepers: set[asyncio.Future[None]] = set()
        self._watch: asyncio.TimerHandle | None = None
        self._seen = 0

    def _read(self) -> tuple[int, int, int, float, int]:
        for attempt in range(2000):
            values: tuple[int, int, int, float, int] = _LAYOUT.unpack_from(self._map)
            # A copy torn by a concurrent write shows an odd or a changed generation: read again.
            if values[0] % 2 == 0 and _LAYOUT.unpack_from(self._map)[0] == values[0]:
                return values
            if attempt >= 100:
                # On a loaded machine the writer may be put to sleep between its two stores: let it finish.
                time.sleep(0.001)
        raise RuntimeError("the clock file stays half written: its driver died while moving time")

    def now(self) -> datetime:
        _, real, virtual, rate, _ = self._read()
        if rate:
            virtual += int((time.time_ns() - real) * rate) // 1000
        return _EPOCH + virtual * _MICROSECOND

    def real_now(self) -> datetime:
        return datetime.now(UTC)

    @property
    def generation(self) -> int:
        """Changes with every jump or change of rate."""
        return self._read()[0]

    async def sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        moved: asyncio.Future[None] = loop.create_future()
        if not self._sleepers:
            self._seen = self._read()[0]
            self._watch = loop.call_later(_SLICE, self._look, loop)
        self._sleepers.add(moved)
        try:
            await asyncio.wait((moved,), timeout=max(seconds, 0))
        finally:
            self._sleepers.discard(moved)
            if not self._sleepers and self._watch is not None:
                self._watch.cancel()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """One for all who sleep in this process: each of them would ask fifty times a second."""
        now = self._read()[0]
        if now != self._seen:
            self._seen = now
            for sleeper in self._sleepers:
                if not sleeper.done():
                    sleeper.set_result(None)
        self._watch = loop.call_later(_SLICE, self._look, loop)


class ClockControl:
    """The driver's side of the clock file. One writer."""

    def __init__(self, path: Path, at: datetime | None = None) -> None:
        new = not path.exists() or path.stat().st_size < _LAYOUT.size
        if new:
            path.write_bytes(bytes(_LAYOUT.size))
        descriptor = os.open(path, os.O_RDWR)
        try:
            self._map = mmap.mmap(descriptor, _LAYOUT.size)
        finally:
            os.close(descriptor)
        if new or at is not None:
            self._write(at or datetime.now(UTC), 0.0)

    def now(self) -> datetime:
        """The virtual moment."""
        real: int
        virtual: int
        rate: float
        _, real, virtual, rate, _ = _LAYOUT.unpack_from(self._map)
        return _EPOCH + (virtual + (int((time.time_ns() - real) * rate) // 1000)) * _MICROSECOND

    def jump(self, at: datetime) -> None:
        """Move to `at`, keeping the rate. Backwards is refused: facts would be dated before their causes."""
        if at < self.now():
            raise ValueError(f"virtual time cannot go back to {at.isoformat()}")
        self._write(at, _LAYOUT.unpack_from(self._map)[3])

    def set_rate(self, rate: float) -> None:
        """Virtual seconds per real second; 0 stands still."""
        if rate < 0:
            raise ValueError("a rate below 0 would run time backwards")
        self._write(self.now(), rate)

    def _write(self, at: datetime, rate: float) -> None:
        generation = _LAYOUT.unpack_from(self._map)[0] & ~1
        virtual = (at - _EPOCH) // _MICROSECOND
        _LAYOUT.pack_into(self._map, 0, generation + 1, time.time_ns(), virtual, rate, _CHECK)
        _LAYOUT.pack_into(self._map, 0, generation + 2, time.time_ns(), virtual, rate, _CHECK)
