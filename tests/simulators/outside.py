"""The simulated outside inside a test: on free ports, with a clock moved by hand, and somebody who listens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from deploy.simulators.http import Reply, Request, serving
from deploy.simulators.world import Plan, Simulators
from tests.support.eventually import eventually

_TLS = ssl.create_default_context()  # slow to make, and never used: everything here is plain HTTP
START = datetime(2024, 1, 30, 12, 0, 0, tzinfo=UTC)


class HandClock:
    """Time stands still until a test moves it."""

    virtual = True

    def __init__(self, at: datetime = START) -> None:
        self._at = at
        self._moved = asyncio.Event()

    def now(self) -> datetime:
        return self._at

    def real_now(self) -> datetime:
        return datetime.now(UTC)

    def move(self, **by: float) -> datetime:
        self._at += timedelta(**by)
        self._moved.set()
        self._moved = asyncio.Event()
        return self._at

    async def sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._moved.wait()


class Listener:
    """Receives what gateways push. `answers` are given one by one, then 200 for ever."""

    def __init__(self, url: str, clock: HandClock) -> None:
        self.url = url
        self.heard: list[tuple[datetime, dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.thanks: dict[str, object] = {"code": 0, "msg": "接收成功"}
        self._clock = clock

    async def handle(self, request: Request) -> Reply:
        self.heard.append((self._clock.now(), dict(request.headers), request.body))
        status = self.answers.pop(0) if self.answers else 200
        return Reply.of(self.thanks, status)

    def moments(self) -> list[float]:
        """Seconds after START at which something came."""
        return [(at - START).total_seconds() for at, _, _ in self.heard]


class Outside:
    def __init__(self, world: Simulators, clock: HandClock, listener: Listener) -> None:
        self.world = world
        self.clock = clock
        self.listener = listener
        self._client = httpx2.AsyncClient(
            base_url=world.control_url, timeout=10, trust_env=False, verify=_TLS
        )

    async def control(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        status, content = await self.try_control(path, body)
        assert status == 200, content
        return content

    async def try_control(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """GET without a body, POST with one."""
        if body is None:
            response = await self._client.get(path)
        else:
            response = await self._client.post(path, content=json.dumps(body))
        return response.status_code, response.json()

    async def at_rest(self) -> dict[str, Any]:
        """What /sim/rest says once nothing is due or under way."""

        async def look() -> dict[str, Any] | None:
            rest = await self.control("/sim/rest")
            return rest if rest["pending_now"] == 0 else None

        rest = await eventually(look, within=10, every=0.005)
        assert rest is not None
        return rest

    async def play(self, until: timedelta) -> None:
        """Jump from moment to moment, as a rehearsal does, until this long after START."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            rest = await self.at_rest()
            if rest["next_at"] is None or datetime.fromisoformat(rest["next_at"]) > START + until:
                return
            moment = datetime.fromisoformat(rest["next_at"])
            self.clock.move(seconds=(moment - self.clock.now()).total_seconds())
        raise AssertionError("the agenda never comes to its end")

    async def aclose(self) -> None:
        await self._client.aclose()


@contextlib.asynccontextmanager
async def outside(keys: Path, data: Path, *, at: datetime = START, **plan: Any) -> AsyncIterator[Outside]:
    """The simulators, with receipts going to a listener; notifications go where orders say."""
    clock = HandClock(at)
    listener = Listener("", clock)
    async with serving(listener.handle) as url:
        listener.url = url
        settings = {"receipts_url": f"{url}/receipts"} | plan
        async with Simulators(Plan(keys=keys, data=data, **settings), clock) as world:
            stage = Outside(world, clock, listener)
            try:
                yield stage
            finally:
                await stage.aclose()
