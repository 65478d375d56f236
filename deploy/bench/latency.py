"""P5: from a transaction's COMMIT to the handler of another service, against what the two journeys cost by themselves.

The same open loop drives all three: so many a second, whether or not the one before is through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from deploy.bench import cases, evidence, filling, peers
from deploy.bench.contender import Contender, Violated, running
from deploy.bench.figures import Figure, Goal, middle, number, percentile
from deploy.bench.scale import Scale
from deploy.bench.stage import Stage

TWICE: Final = Goal("≤", 2.0)
_WARM: Final = 1.0  # seconds at the beginning that do not count
Moments = Sequence[tuple[str, int, float]]


async def latency(stage: Stage, scale: Scale, advance: Callable[[str], None]) -> list[Figure]:
    """Interleaved rounds at one rate."""
    events = scale.rate * scale.latency_seconds
    within = scale.latency_seconds * 4 + 60.0
    ours: list[list[float]] = []
    there: list[list[float]] = []
    commits: list[list[float]] = []
    held = ""
    for turn in range(1, scale.rounds + 1):
        advance(f"ours, round {turn}")
        await _ready(stage)
        found, held = await _ours(stage, scale.rate, events, within)
        ours.append(found)
        advance(f"raw aiokafka, round {turn}")
        await _ready(stage)
        there.append(await _raw(stage, scale.rate, events, within))
        advance(f"raw commit, round {turn}")
        await _ready(stage)
        commits.append(await _commits(stage, scale.rate, events, within))
    sums = [percentile(a, 99) + percentile(b, 99) for a, b in zip(there, commits, strict=True)]
    each = {"ours": ours, "raw round trip": there, "one commit": commits}
    halves = ", ".join(
        f"{name} {number(middle([percentile(s, 50) for s in found]))}" for name, found in each.items()
    )
    parts = ", ".join(
        f"{name} {number(middle([percentile(s, 99) for s in found]))}" for name, found in each.items()
    )
    return [
        Figure(
            name="P5 commit to handler, p99",
            unit="ms",
            ours=middle([percentile(samples, 99) for samples in ours]),
            peer=middle(sums),
            peer_name="raw aiokafka's round trip p99 + one PostgreSQL commit p99",
            goal=TWICE,
            checked=[held],
            spread={"ours": [percentile(samples, 99) for samples in ours], "peer": sums},
            notes=[f"at {scale.rate} events/s, {events:,} a round; p99 (ms): {parts}; p50: {halves}"],
        )
    ]


async def _ready(stage: Stage) -> None:
    await stage.fresh_topics()
    await stage.settle()


async def _ours(stage: Stage, rate: int, events: int, within: float) -> tuple[list[float], str]:
    """Milliseconds from before COMMIT until the handler has the event."""
    says, hears = await cases.database(stage), await cases.database(stage)
    group = f"reader-{stage.number()}"
    reader = stage.contender(
        "reader", "deploy.bench.ours.reader", database=hears.url, events=events, group=group
    )
    writer = stage.contender(
        "writer", "deploy.bench.ours.writer", database=says.url, events=events, rate=rate
    )
    said, heard = await _both(reader, writer, within)
    found = await asyncio.to_thread(evidence.look, stage.bootstrap, filling.TOPIC, {})
    held = found.require("the writer", events=events)
    async with stage.postgres.connection(hears.database) as connection:
        effects = await connection.fetchval("select sum(version) from bench_cases")
    if effects != events:
        raise Violated(f"the reader: {events} events were said, the handler's effects count {effects}")
    await stage.drop(says, hears)
    return between(said, heard), f"{held}; the handler took effect {effects:,} times"


async def _raw(stage: Stage, rate: int, events: int, within: float) -> list[float]:
    program, group = peers.PROGRAMS / "raw_round_trip.py", f"raw-{stage.number()}"
    hears = stage.contender("raw-receiver", program, side="receive", events=events, group=group)
    says = stage.contender("raw-sender", program, side="send", events=events, rate=rate)
    said, heard = await _both(hears, says, within)
    found = await asyncio.to_thread(evidence.look, stage.bootstrap, filling.TOPIC, {})
    found.require("the raw sender", events=events)
    return between(said, heard)


async def _commits(stage: Stage, rate: int, events: int, within: float) -> list[float]:
    login = await cases.database(stage)
    contender = stage.contender(
        "raw-commit", peers.PROGRAMS / "raw_commit.py", database=login.url, events=events, rate=rate
    )
    async with running(contender):
        await contender.go()
        found = await contender.result(within=within)
    await stage.drop(login)
    return [took * 1000 for at, took in found["took"] if at - found["began"] >= _WARM]


async def _both(
    hears: Contender, says: Contender, within: float
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What was said, and what was heard of it."""
    async with running(hears, says):
        await hears.go()
        await says.go()
        return await says.result(within=within), await hears.result(within=within)


def between(said: Mapping[str, Any], heard: Mapping[str, Any]) -> list[float]:
    """Milliseconds of each event, first hearing, without the first second. Raises Violated for one nobody heard."""
    met: dict[tuple[str, int], float] = {}
    for key, version, at in heard["moments"]:
        met.setdefault((key, version), at)
    missing = sum((key, version) not in met for key, version, _ in said["moments"])
    if missing:
        raise Violated(f"{missing} events of {len(said['moments'])} were said and never heard")
    return [
        (met[key, version] - at) * 1000 for key, version, at in said["moments"] if at - said["began"] >= _WARM
    ]
