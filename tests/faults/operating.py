"""What an operator has in hand: the services' own command lines, the routes for ops, and `kaowu replay verify`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import orjson

from deploy.local.environment import ROOT, SERVICES
from deploy.local.system import LocalSystem
from deploy.replay.standing import standing
from deploy.replay.verify import Source, Verified, verify
from services.chassis.db import driver_url
from services.chassis.wire import Wires

_WITHIN: Final = 120.0  # real seconds for one command


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Operator:
    """Whoever has the environment of a running system."""

    system: LocalSystem

    async def command(self, service: str, *words: str, module: str | None = None) -> Done:
        """`python -m services.<service> …`. `module`: what runs instead."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *((module, service) if module else (f"services.{service}",)), *words,
            cwd=ROOT, env=self.system.surroundings.of(service),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(_WITHIN):
            out, err = await process.communicate()
        return Done(process.returncode or 0, out.decode(), err.decode())

    async def parked(self, service: str, module: str | None = None) -> list[dict[str, Any]]:
        """`parked list`: what waits, oldest first."""
        done = await self.command(service, "parked", "list", module=module)
        assert done.code == 0, done
        return [json.loads(line) for line in done.out.splitlines()]

    async def replay(self, service: str, module: str | None = None) -> Done:
        """`parked replay`: all that waits, oldest first."""
        return await self.command(service, "parked", "replay", module=module)

    async def discard(self, service: str, ids: Collection[int], note: str) -> None:
        """The first by the command line, the others by the route for ops: both doors must do the same."""
        for number, one in enumerate(sorted(ids)):
            if number == 0:
                done = await self.command(service, "parked", "discard", str(one), "--note", note)
                assert done.code == 0, done
                continue
            headers = {
                "authorization": f"Bearer {self.system.mint(['ops'], 'ops')}",
                "content-type": "application/json",
            }
            url = f"{self.system.services[service].internal_url}/ops/parked/{one}/discard"
            async with Wires(connections=1, patience=30.0, limit=1 << 20) as wires:
                answer = await wires.request("POST", url, headers, orjson.dumps({"note": note}))
            assert answer.status == 200, answer

    async def verified(self, source: Source | None = "topics") -> Verified:
        """Every service rebuilt beside its live database and compared, row by row; nothing may be on its way."""
        async with standing(self.system.data) as place:
            found = await verify(place, source=source)
        assert [one.service for one in found.services] == list(SERVICES)
        assert not [f"{one.service}: {one.waiting} wait" for one in found.services if one.waiting]
        return found

    async def ask_database(self, service: str, statement: str, *args: object) -> Sequence[Any]:
        """As the service's own role, in its own database."""
        connection = await asyncpg.connect(driver_url(self.system.surroundings.databases[service]))
        try:
            rows: Sequence[Any] = await connection.fetch(statement, *args)
            return rows
        finally:
            await connection.close()
