"""The last resort's broker as the local system sees it: a child process without memory."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from deploy.local.processes import Child, NotOurs


class MockKafka:
    """librdkafka's in-process broker. It keeps little, one member per group, and nothing over a restart."""

    rung = "last resort"
    description = (
        "librdkafka's in-process broker: no real Kafka; keeps little, one member per group, no restart"
    )

    def __init__(self, directory: Path) -> None:
        self._address = directory / "mock-broker.address"
        self.process = Child("kafka", directory / "kafka.log")
        self.bootstrap = ""

    async def start(self, *, timeout: float = 20.0) -> None:
        self._address.parent.mkdir(parents=True, exist_ok=True)
        self._address.unlink(missing_ok=True)
        self.process.start([sys.executable, "-m", "deploy.local.mock_broker", self._address])
        deadline = time.monotonic() + timeout
        while not self._address.exists():
            if not self.process.alive or time.monotonic() > deadline:
                raise self.process.failure("gave no address")
            await asyncio.sleep(0.05)
        self.bootstrap = self._address.read_text()

    async def halt(self) -> None:
        raise NotOurs(
            "the last resort's broker forgets everything when it stops: faults of Kafka need a real one"
        )

    async def stop(self) -> None:
        await self.process.stop(patience=3.0)
