"""Our pipeline over a topic full of events: how fast members of one group drain it, and what they left behind.

A step is: consume, claim in the inbox, change the state, add to the outbox, commit, publish what follows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contracts.topics import TOPICS
from deploy.bench import cases, evidence
from deploy.bench.contender import Contender, Failed, Violated, running
from deploy.bench.stage import Stage
from deploy.local.databases import DatabaseLogin

_LOOK_EVERY = 0.05
_STUCK = 60.0  # seconds without progress


@dataclass(frozen=True, slots=True)
class Drained:
    """From the first tenth on: by then plans are made and the broker's Java is warm."""

    events: int
    seconds: float
    cpu: float  # of members, broker and PostgreSQL
    held: str

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    @property
    def cost(self) -> float:
        """Processor time of everything, an event, in µs."""
        return self.cpu / self.events * 1e6


async def drain(
    stage: Stage, events: int, *, members: int, within: float, start: Mapping[int, int] | None = None
) -> Drained:
    """All `events` that lie in the topic behind `start`, by a new group over a new database. Raises Violated."""
    login = await cases.database(stage)
    group = f"{cases.SERVICE}-{stage.number()}"
    if start:
        await asyncio.to_thread(evidence.stand_at, stage.bootstrap, group, cases.SOURCE, start)
    before = await asyncio.to_thread(evidence.ends, stage.bootstrap, cases.TOPIC)
    contenders = [
        # The relay of the first one leads; those of the others would wait for its lock, as in production.
        stage.contender(
            f"member-{number + 1}",
            "deploy.bench.ours.member",
            database=login.url,
            group=group,
            relay=number == 0,
        )
        for number in range(members)
    ]
    async with running(*contenders):
        for each in contenders:
            await each.go()
        await _assembled(contenders)
        seconds, counted, cpu = await _watch(stage, contenders, events, within)
    held = await examine(stage, login, events, before)
    await stage.drop(login)
    return Drained(counted, seconds, cpu, held)


async def _ask(contenders: Sequence[Contender], word: str) -> list[Mapping[str, Any]]:
    for each in contenders:
        await each.tell(word)
    return [await each.result(within=60) for each in contenders]


async def _assembled(contenders: Sequence[Contender]) -> None:
    """Until the group has shared out its partitions; then all begin."""
    partitions = TOPICS[cases.SOURCE].partitions
    began = time.monotonic()
    while True:
        shares = [each["assigned"] for each in await _ask(contenders, "count")]
        if sum(shares) == partitions and all(shares):
            break
        if time.monotonic() - began > _STUCK:
            raise Failed(f"the group does not come together: {shares} of {partitions} partitions")
        await asyncio.sleep(_LOOK_EVERY)
    await _ask(contenders, "begin")


async def _watch(
    stage: Stage, contenders: Sequence[Contender], events: int, within: float
) -> tuple[float, int, float]:
    """Until all is published: seconds, events and processor time since a tenth was."""
    began = moved = time.monotonic()
    first: tuple[float, int, float] | None = None
    last = 0
    while True:
        published = sum(each["published"] for each in await _ask(contenders, "count"))
        at = time.monotonic()
        if published > last:
            last, moved = published, at
        if first is None and published >= events // 10:
            first = (at, published, stage.cpu(*(each.pid for each in contenders)))
        if published >= events:
            if first is None or published == first[1]:
                raise Failed(f"{events:,} events were over before they could be measured")
            cpu = stage.cpu(*(each.pid for each in contenders))
            return at - first[0], published - first[1], cpu - first[2]
        if at - moved > _STUCK or at - began > within:
            raise Failed(f"the members stand at {published:,} of {events:,} events after {at - began:.0f} s")
        await asyncio.sleep(_LOOK_EVERY)


async def examine(stage: Stage, login: DatabaseLogin, events: int, before: Mapping[int, int]) -> str:
    """Topic and database tell the same: every event once in effect, and what follows from it said once, in order."""
    found = await asyncio.to_thread(evidence.look, stage.bootstrap, cases.TOPIC, before)
    held = found.require("the pipeline", events=events)
    async with stage.postgres.connection(login.database) as connection:
        changed = await connection.fetchval("select coalesce(sum(version), 0) from bench_cases")
        claimed = await connection.fetchval("select count(*) from inbox")
        answered = await connection.fetchval("select count(distinct causation_id) from outbox")
        parked = await connection.fetchval("select count(*) from parked")
    if not changed == claimed == answered == events or parked:
        raise Violated(
            f"the pipeline: of {events} events {claimed} were claimed, {changed} took effect, "
            f"{answered} were answered, {parked} parked"
        )
    return f"{held}; each claimed, in effect and answered once"
