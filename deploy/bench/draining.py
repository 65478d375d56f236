"""Our pipeline over a topic full of events: how fast members of one group drain it, and what they left behind.

A step is: consume, claim in the inbox, change the state, add to the outbox, commit, publish what follows.
"""

from __future__ import annotations

import asyncio
import itertools
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
    """One stretch of the way, without the events before it: by then plans are made and the broker's Java is warm."""

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
    (drained,) = await stretches(
        stage, (events // 10, events), members=members, within=within, start=start, whole=True
    )
    return drained


async def stretches(
    stage: Stage,
    marks: Sequence[int],
    *,
    members: int,
    within: float,
    start: Mapping[int, int] | None = None,
    whole: bool = False,
) -> list[Drained]:
    """From each of these numbers of events to the next one, counted from `start`, by a new group over a new database.

    At the last one the group stands still, with whatever is left in the topic, and all that it did is examined. `whole`: nothing
    may be left. Raises Violated.
    """
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
        seen = await _watch(stage, contenders, marks, within)
        done = await _halted(stage, login, contenders)
    if whole and done != marks[-1]:
        raise Violated(f"the pipeline: {marks[-1]} events lay in the topic, {done} were handled")
    held = await examine(stage, login, done, before)
    await stage.drop(login)
    return [
        Drained(b.published - a.published, b.at - a.at, b.cpu - a.cpu, held)
        for a, b in itertools.pairwise(seen)
    ]


@dataclass(frozen=True, slots=True)
class _Seen:
    at: float
    published: int
    cpu: float


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
    stage: Stage, contenders: Sequence[Contender], marks: Sequence[int], within: float
) -> list[_Seen]:
    """What the clocks showed when so many events as each of the marks says were published, or a few more."""
    began = moved = time.monotonic()
    seen: list[_Seen] = []
    last = 0
    while len(seen) < len(marks):
        published = sum(each["published"] for each in await _ask(contenders, "count"))
        at = time.monotonic()
        if published > last:
            last, moved = published, at
        if published >= marks[len(seen)]:
            if seen and published == seen[-1].published:
                raise Failed(f"{published:,} events were over before they could be measured")
            seen.append(_Seen(at, published, stage.cpu(*(each.pid for each in contenders))))
        elif at - moved > _STUCK or at - began > within:
            raise Failed(
                f"the members stand at {published:,} of {marks[-1]:,} events after {at - began:.0f} s"
            )
        else:
            await asyncio.sleep(_LOOK_EVERY)
    return seen


async def _halted(stage: Stage, login: DatabaseLogin, contenders: Sequence[Contender]) -> int:
    """Nothing more is taken in; what was is committed and published. Returns how many events that were.

    `handled` does not tell: what a member had fetched before the group shared out its partitions comes to two of them.
    """
    began = time.monotonic()
    found = await _ask(contenders, "halt")
    while any(each["busy"] for each in found):
        _patience(began, "are still busy")
        await asyncio.sleep(_LOOK_EVERY)
        found = await _ask(contenders, "count")
    async with stage.postgres.connection(login.database) as connection:
        said = int(await connection.fetchval("select count(*) from outbox"))
    while (published := sum(each["published"] for each in found)) < said:
        _patience(began, f"have published {published:,} of {said:,} events")
        await asyncio.sleep(_LOOK_EVERY)
        found = await _ask(contenders, "count")
    return said


def _patience(began: float, seen: str) -> None:
    if time.monotonic() - began > _STUCK:
        raise Failed(f"the members were told to stand still, and {seen}")


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
