"""`kaowu up`: the system in the foreground, and where everything of it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from contracts.cycle import Cycle
from contracts.topics import TOPICS
from deploy.local.system import LocalSystem


async def stay_up(data: Path, cycle: Path, *, say: Callable[[str], None]) -> None:
    """Start it, say where it is, and stay until somebody ends us or a part of it ends by itself."""
    say(f"starting the local system in {data} …")
    async with LocalSystem(data, cycle, "system", say=say) as system:
        for line in _whereabouts(system):
            say(line)
        with contextlib.suppress(asyncio.CancelledError):
            # Being told to end is how this is meant to end.
            await _until_one_ends(system)
        say("ending the local system …")
    say(f"ended; `kaowu up --data {data}` goes on from here")


async def _until_one_ends(system: LocalSystem) -> None:
    while True:
        for process in system.processes().values():
            if not process.alive:
                raise process.failure("ended by itself")
        await asyncio.sleep(0.5)


def _whereabouts(system: LocalSystem) -> Iterator[str]:
    held = system.memory()
    yield ""
    yield from _hints(system.cycle, system.clock.now())
    yield f"{system.cycle.name} ({system.cycle.id}) · up in {system.started_in:.1f} s · {sum(held.values()):.0f} MiB"
    yield f"  {'service':<14}{'for people and gateways':<27}for operators (/ready /metrics /ops/rest)"
    for service in system.services.values():
        yield f"  {service.name:<14}{service.public_url:<27}{service.internal_url}"
    if system.outside is not None:
        yield f"  simulators    gateway {system.outside.wechat_url}  SMS {system.outside.sms_url}"
        yield f"                control {system.outside.control_url}  mailbox {system.outside.mail_page}"
    yield f"  Kafka         {system.kafka_bootstrap}  topics {', '.join(sorted(TOPICS))}"
    yield f"  PostgreSQL    {', '.join(sorted(system.services))}: one database and one role each"
    yield f"  data, logs    {system.data}"
    yield f"  tokens        kaowu token office --data {system.data}   (also ops, desk:<site>, reviewer:<level>, candidate)"
    yield "Ctrl-C ends it."


def _hints(cycle: Cycle, at: datetime) -> Iterator[str]:
    """What somebody who starts it for the first time would wonder about."""
    closed = cycle.windows.payment.closes
    if closed <= at:
        yield (
            f"this cycle is over: its payment closed {closed:%Y-%m-%d %H:%M %z}, every window is shut. To click through one, "
            "give its days to this year (README, A cycle for another city)"
        )
