"""P8, the second half: the real service sends what waits, beside a bare loop before the same carrier; then two of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from deploy.bench import peers, sent, telling
from deploy.bench.contender import Failed, running
from deploy.bench.figures import Figure, Goal, middle, number
from deploy.bench.notifying import IN_FLIGHT, SHARE, Carrier, carrying, notifying
from deploy.bench.scale import Scale
from deploy.bench.serving import Memory, Service
from deploy.bench.stage import Stage, tree_cpu
from deploy.local.databases import DatabaseLogin

BARE: Final = Goal("≥", 0.8)
FLOOR: Final = Goal("≥", 1)
A_SECOND: Final = 280.0
SHARED: Final = Goal("≥", 1.2)  # two processes, the carrier and PostgreSQL have two cores
WITHIN_MEMORY: Final = Goal("≤", 1)
MEBIBYTES: Final = 300.0
_WARM: Final = 6.0  # longer than anybody waits for an answer: from then on as many places hang as always do
_WAITS: Final = (
    "select exists (select from messages where channel = 'sms' and state = 'created' and claims = 0)"
)


@dataclass
class Pace:
    """What one of them brought to the carrier, round by round."""

    rates: list[float] = field(default_factory=list)  # different messages a second
    costs: list[float] = field(default_factory=list)  # processor time of its processes, a message, µs
    stored: list[float] = field(default_factory=list)  # of PostgreSQL, a message, µs
    busy: list[float] = field(default_factory=list)  # the carrier's process, of one core

    def __str__(self) -> str:
        return number(middle(self.costs))

    @property
    def around(self) -> str:
        """What ran beside it on the same cores."""
        return f"PostgreSQL {number(middle(self.stored))} µs, the carrier {middle(self.busy):.0%} of a core"


async def sending(stage: Stage, scale: Scale, advance: Callable[[str], None]) -> list[Figure]:
    """Ours and the peer in turn, then two processes of ours; everything that left is held against the carrier's book."""
    advance("filling the database")
    people = scale.waiting // 2
    login = await telling.known(stage, people)
    async with stage.postgres.connection(login.database) as connection:
        await telling.storm(connection, people)
    cycle_file = telling.cycle_by_day(stage)
    one, bare, two, memory = Pace(), Pace(), Pace(), Memory()
    async with carrying(stage) as carrier:
        for turn in range(1, scale.rounds + 1):
            advance(f"one process, round {turn}")
            async with _watched(stage, login, cycle_file, carrier, memory, 1) as services:
                await measure(stage, carrier, scale, one, services[0].pid)
                await _more_waits(stage, login)
            advance(f"bare loop, round {turn}")
            await _bare(stage, carrier, scale, bare, turn)
        for turn in range(1, scale.rounds + 1):
            advance(f"two processes, round {turn}")
            async with _watched(stage, login, cycle_file, carrier, memory, 2) as services:
                await measure(stage, carrier, scale, two, *(each.pid for each in services))
                await _more_waits(stage, login)
        advance("comparing with the carrier's book")
        counted = await carrier.count()
        async with stage.postgres.connection(login.database) as connection:
            held = await sent.examine(connection, carrier.journal, people)
    await stage.drop(login)
    return _figures(scale, one, bare, two, memory, counted, held)


@asynccontextmanager
async def _watched(
    stage: Stage, login: DatabaseLogin, cycle_file: Path, carrier: Carrier, memory: Memory, many: int
) -> AsyncIterator[list[Service]]:
    """So many processes of the service, which have begun to send."""
    await stage.settle()
    taken = (await carrier.count())["taken"]
    async with notifying(stage, login, cycle_file, carrier, many) as services:
        watching = [asyncio.create_task(each.watch(memory)) for each in services]
        try:
            await carrier.begun(taken)
            await asyncio.sleep(_WARM)
            yield services
        finally:
            for each in watching:
                each.cancel()
            await asyncio.gather(*watching, return_exceptions=True)


async def _more_waits(stage: Stage, login: DatabaseLogin) -> None:
    """Raises Failed: whoever had nothing to send any more was not measured."""
    async with stage.postgres.connection(login.database) as connection:
        if not await connection.fetchval(_WAITS):
            raise Failed("there were too few messages: all were sent before the round ended")


async def measure(stage: Stage, carrier: Carrier, scale: Scale, pace: Pace, *pids: int) -> None:
    """What these processes bring to the carrier in so many seconds."""
    server = stage.postgres.process.pid or 0
    before, spent, stored = await carrier.count(), sum(map(tree_cpu, pids)), tree_cpu(server)
    await asyncio.sleep(scale.sending_seconds)
    after, spent = await carrier.count(), sum(map(tree_cpu, pids)) - spent
    stored = tree_cpu(server) - stored
    lasted, brought = after["at"] - before["at"], after["different"] - before["different"]
    pace.rates.append(brought / lasted)
    pace.costs.append(spent / max(1, brought) * 1e6)
    pace.stored.append(stored / max(1, brought) * 1e6)
    pace.busy.append((after["cpu"] - before["cpu"]) / lasted)


async def _bare(stage: Stage, carrier: Carrier, scale: Scale, pace: Pace, turn: int) -> None:
    peer = stage.contender(
        "bare-sender", peers.PROGRAMS / "bare_sender.py", account=carrier.accounts["aliyun"], in_flight=IN_FLIGHT,
        first=turn * 1_000_000, template="SMS_1", variables=await _variables(),
    )  # fmt: skip
    async with running(peer):
        await peer.go()
        await asyncio.sleep(_WARM)
        await measure(stage, carrier, scale, pace, peer.pid)
        with contextlib.suppress(ProcessLookupError):
            await peer.tell("stop")


async def _variables() -> Mapping[str, str]:
    """As many as ours has, as long."""
    return {"tail": "0123", "closed": "2024年2月8日（星期四）24时（北京时间）", "contact": "0833-2442003"}


def _figures(
    scale: Scale, one: Pace, bare: Pace, two: Pace, memory: Memory, counted: Mapping[str, Any], held: str
) -> list[Figure]:
    faults = (
        f"{IN_FLIGHT} in flight a process; of the carrier's calls {SHARE:.0%} answered with 429, {SHARE:.0%} taken and never "
        f"answered (of all rounds {counted['later']:,} and {counted['unanswered']:,})"
    )
    lasted = f"{scale.sending_seconds} s a round, after {_WARM:.0f} s that do not count"
    rate = middle(one.rates)
    return [
        Figure(
            name="P8 sending / bare loop",
            unit="SMS/s",
            ours=rate,
            peer=middle(bare.rates),
            peer_name="an asyncio loop of the same signed calls over the same kept connections, which keeps nothing",
            goal=BARE,
            checked=[held],
            spread={"ours": one.rates, "peer": bare.rates},
            notes=[
                faults,
                lasted,
                f"processor time of the process an SMS: ours {one} µs, peer {bare} µs",
                f"beside ours: {one.around}; beside the peer: {bare.around}",
            ],
        ),
        Figure(
            name="P8 SMS a second, one process",
            unit="SMS/s",
            ours=rate,
            peer=A_SECOND,
            peer_name=f"{A_SECOND:.0f} a second",
            goal=FLOOR,
            checked=[held],
        ),
        Figure(
            name="P8 two processes / one",
            unit="SMS/s",
            ours=middle(two.rates),
            peer=rate,
            peer_name="itself with one process",
            goal=SHARED,
            checked=[held],
            spread={"ours": two.rates},
            notes=[f"processor time of both an SMS {two} µs; beside them on the same cores: {two.around}"],
        ),
        Figure(
            name="memory of the notification process",
            unit="MiB",
            ours=max(memory.resident, memory.own),
            peer=MEBIBYTES,
            peer_name=f"{MEBIBYTES:.0f} MiB",
            goal=WITHIN_MEMORY,
            checked=[held],
            notes=[
                f"{scale.waiting:,} messages waiting; resident size, sampled {memory.samples:,} times while it sends"
            ],
        ),
    ]
