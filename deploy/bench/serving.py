"""The payment service as it runs in production: its own process with listeners, jobs, relay and consumers."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.bench import counter
from deploy.bench.contender import ROOT, Failed
from deploy.bench.stage import Stage
from deploy.local.databases import DatabaseLogin
from deploy.local.environment import inherited
from deploy.local.processes import Child, free_port

_EVERY: float = 0.05
_SHARES_EVERY: float = 1.0  # counting shared pages costs the process time


@dataclass
class Memory:
    """The most that a process held, in MiB."""

    resident: float = 0.0
    own: float = 0.0  # its share of what it shares
    samples: int = 0


@dataclass(frozen=True)
class Service:
    """Where it listens, and its process."""

    port: int
    pid: int

    async def watch(self, memory: Memory) -> None:
        """Until cancelled."""
        process = psutil.Process(self.pid)
        shares_at = 0.0
        while True:
            memory.resident = max(memory.resident, process.memory_info().rss / 2**20)
            memory.samples += 1
            if time.monotonic() >= shares_at:
                shares_at = time.monotonic() + _SHARES_EVERY
                memory.own = max(memory.own, process.memory_full_info().pss / 2**20)
            await asyncio.sleep(_EVERY)


@asynccontextmanager
async def serving(
    stage: Stage, login: DatabaseLogin, cycle_file: Path, *, gateway_url: str = counter.NOWHERE
) -> AsyncIterator[Service]:
    """Ready inside, ended afterwards."""
    port, internal = free_port(), free_port()
    told: Mapping[str, str] = counter.environment(
        stage, login, cycle_file, gateway_url=gateway_url, port=port, internal_port=internal
    )
    child = Child("payment", stage.directory / "logs" / f"{stage.number():03d}-payment.log")
    child.start(
        [sys.executable, "-m", "services.payment", "run"], env={**inherited(os.environ), **told}, cwd=ROOT
    )
    try:
        await until_ready(child, internal)
        assert child.pid is not None
        yield Service(port, child.pid)
    finally:
        await child.stop(patience=30.0)


async def until_ready(child: Child, port: int) -> None:
    """Raises Failed when it ends first, or takes too long."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not child.alive:
            raise Failed(
                f"{child.name} ended while it started:\n{child.log.read_text(errors='replace')[-2000:]}"
            )
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /ready HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            if answer[9:12] == b"200":
                return
        except OSError:
            pass
        await asyncio.sleep(0.1)
    raise Failed(f"{child.name} was not ready within 60 s:\n{child.log.read_text(errors='replace')[-2000:]}")
