"""The notification service as it runs in production, and the carrier it sends through: processes of their own."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from deploy.bench import telling
from deploy.bench.contender import ROOT, Contender, Failed, running
from deploy.bench.counter import NOWHERE
from deploy.bench.serving import Service, until_ready
from deploy.bench.stage import Stage
from deploy.local.databases import DatabaseLogin
from deploy.local.environment import inherited
from deploy.local.processes import Child, free_port

IN_FLIGHT: Final = 32
SHARE: Final = 0.01  # of the calls are told to come later, and as many are taken and never answered


class Carrier:
    """The simulated carrier in its own process, and what it has in its book."""

    def __init__(self, program: Contender) -> None:
        self._program = program

    @property
    def accounts(self) -> Mapping[str, str]:
        return dict(self._program.facts["accounts"])

    @property
    def journal(self) -> Path:
        return Path(self._program.facts["journal"])

    async def count(self) -> Mapping[str, Any]:
        """What it took so far, in all and of different ones, and when that was."""
        await self._program.tell("count")
        return await self._program.result(within=60)

    async def begun(self, since: int) -> None:
        """Until it has taken more than that."""
        deadline = time.monotonic() + 60
        while (await self.count())["taken"] <= since:
            if time.monotonic() > deadline:
                raise Failed("nothing was sent within 60 s")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def carrying(stage: Stage) -> AsyncIterator[Carrier]:
    """Before a carrier that has its bad moments."""
    program = stage.contender(
        "carrier", "deploy.bench.ours.carrier", keys=str(stage.directory / "carrier-keys"),
        data=str(stage.directory / f"carrier-{stage.number()}"), later=SHARE, unanswered=SHARE,
    )  # fmt: skip
    async with running(program):
        await program.go()
        yield Carrier(program)


def environment(
    stage: Stage, login: DatabaseLogin, cycle_file: Path, carrier: Carrier, *, port: int, internal_port: int
) -> Mapping[str, str]:
    """Of `python -m services.notification`. Mail has nowhere to go, and none is due."""
    keys = telling.keys(stage)
    accounts = carrier.accounts
    return {
        "KAOWU_ENVIRONMENT": "local",
        "KAOWU_CYCLE_FILE": str(cycle_file),
        "KAOWU_TOKEN_KEYS_FILE": str(keys.token_keys_file),
        "KAFKA_BOOTSTRAP_SERVERS": stage.bootstrap,
        "NOTIFICATION_DATABASE_URL": login.url,
        "NOTIFICATION_VAULT_KEYS_FILE": str(keys.vault_file(telling.SERVICE)),
        "NOTIFICATION_ALIYUN_ACCOUNT_FILE": accounts["aliyun"],
        "NOTIFICATION_SMTP_ACCOUNT_FILE": accounts["smtp"],
        "NOTIFICATION_RECEIPTS_SECRET_FILE": str(keys.receipts_secret_file),
        "NOTIFICATION_REGISTRATION_INTERNAL_URL": NOWHERE,
        "NOTIFICATION_SERVICE_TOKEN_FILE": str(
            keys.service_token_file(telling.SERVICE, at=datetime.now(UTC))
        ),
        "NOTIFICATION_SMS_IN_FLIGHT": str(IN_FLIGHT),
        "NOTIFICATION_PUBLIC_PORT": str(port),
        "NOTIFICATION_INTERNAL_PORT": str(internal_port),
    }


@asynccontextmanager
async def notifying(
    stage: Stage, login: DatabaseLogin, cycle_file: Path, carrier: Carrier, many: int = 1
) -> AsyncIterator[list[Service]]:
    """So many, ready inside; afterwards each has ended as it does when it is told to, with nothing under way."""
    running: list[tuple[Child, int, int]] = []
    try:
        for _ in range(many):
            port, internal = free_port(), free_port()
            told = environment(stage, login, cycle_file, carrier, port=port, internal_port=internal)
            child = Child("notification", stage.directory / "logs" / f"{stage.number():03d}-notification.log")
            child.start(
                [sys.executable, "-m", "services.notification", "run"],
                env={**inherited(os.environ), **told},
                cwd=ROOT,
            )
            running.append((child, port, internal))
        await asyncio.gather(*(until_ready(child, internal) for child, _, internal in running))
        yield [Service(port, child.pid) for child, port, _ in running if child.pid is not None]
    finally:
        await asyncio.gather(*(child.stop(patience=30.0) for child, _, _ in running))
