"""P8, the first half: what payment says of everybody it forfeited becomes messages, by set and one at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from contracts.topics import TOPICS
from deploy.bench import peers, telling
from deploy.bench.contender import Contender, Failed, Violated, measured, running
from deploy.bench.figures import Figure, Goal, middle, number
from deploy.bench.scale import Scale
from deploy.bench.stage import Stage
from deploy.local.databases import DatabaseLogin

BY_SET: Final = Goal("≥", 20)
MEBIBYTES: Final = 300.0
WITHIN_MEMORY: Final = Goal("≤", 1)
_STUCK: Final = 60.0
_LOOK_EVERY: Final = 0.05
_LEFT: Final = """
select (select count(*) from messages) as messages,
       (select count(distinct (registration_id, channel)) from messages) as different,
       (select count(*) from messages where occasion = 'expired' and instance = 'payment-2' and state = 'created'
            and due_at is not null and claims = 0) as waiting,
       (select count(*) from recipients where standing = 'expired') as expired,
       (select count(*) from inbox) as claimed,
       (select count(*) from parked) as parked
"""


@dataclass(frozen=True, slots=True)
class Told:
    """One topic of forfeitures taken in."""

    messages: int
    seconds: float
    own: float  # processor time of the process
    all: float  # with broker and PostgreSQL
    resident: float
    held: str

    @property
    def rate(self) -> float:
        return self.messages / self.seconds


async def creating(stage: Stage, scale: Scale, advance: Callable[[str], None]) -> list[Figure]:
    """The peer before and after each of ours, on databases with as many people."""
    people = scale.forfeited
    advance("filling the database")
    filled = await telling.known(stage, people)
    ours: list[Told] = []
    one_by_one: list[float] = []
    sample = 0
    for turn in range(1, scale.storm_rounds + 1):
        advance(f"one at a time, before round {turn}")
        rate, kept = await _one_at_a_time(stage, filled, scale)
        one_by_one.append(rate)
        sample += kept
        advance(f"by set, round {turn}")
        ours.append(await _by_set(stage, filled, people))
    advance("one at a time, afterwards")
    rate, kept = await _one_at_a_time(stage, filled, scale)
    one_by_one.append(rate)
    sample += kept
    await stage.drop(filled)
    rates = [each.rate for each in ours]
    per = [each.all / each.messages * 1e6 for each in ours]
    own = [each.own / each.messages * 1e6 for each in ours]
    return [
        Figure(
            name="P8 creating messages, by set / one at a time",
            unit="messages/s",
            ours=middle(rates),
            peer=middle(one_by_one),
            peer_name="the same rows by the same PostgreSQL, each message in a transaction of its own, read from memory",
            goal=BY_SET,
            checked=[ours[-1].held],
            spread={"ours": rates, "peer": one_by_one},
            notes=[
                f"{people:,} forfeitures from Kafka, two messages each, by one process",
                f"processor time a message {number(middle(own))} µs, with broker and PostgreSQL {number(middle(per))} µs",
                f"the peer is a sample of {sample:,} messages in {len(one_by_one)} × {scale.peer_seconds} s",
            ],
        ),
        Figure(
            name="memory of the process that takes them in",
            unit="MiB",
            ours=max(each.resident for each in ours),
            peer=MEBIBYTES,
            peer_name=f"{MEBIBYTES:.0f} MiB",
            goal=WITHIN_MEMORY,
            checked=[ours[-1].held],
            notes=[f"{people:,} forfeitures behind; resident size, looked at twenty times a second"],
        ),
    ]  # fmt: skip


async def _one_at_a_time(stage: Stage, filled: DatabaseLogin, scale: Scale) -> tuple[float, int]:
    login = await stage.copy(filled.database, telling.SERVICE)
    peer = stage.contender(
        "one-message-at-a-time", peers.PROGRAMS / "one_message_at_a_time.py", database=login.url, first=0,
        seconds=scale.peer_seconds,
    )  # fmt: skip
    await stage.settle()
    found = await measured(peer, within=scale.peer_seconds + 60)
    async with stage.postgres.connection(login.database) as connection:
        there = await connection.fetchval("select count(distinct (registration_id, channel)) from messages")
    if there != found["messages"] or there != 2 * found["people"]:
        raise Violated(f"one at a time: {found['messages']} messages were said to be kept, {there} are there")
    await stage.drop(login)
    return found["messages"] / found["seconds"], found["messages"]


async def _by_set(stage: Stage, filled: DatabaseLogin, people: int) -> Told:
    login = await stage.copy(filled.database, telling.SERVICE)
    await stage.fresh_topics()
    flood = stage.contender("forfeitures", "deploy.bench.ours.forfeitures", people=people)
    await measured(flood, within=60 + people / 2000)
    teller = stage.contender(
        "teller", "deploy.bench.ours.teller", database=login.url, group=f"notification-{stage.number()}"
    )
    await stage.settle()
    async with running(teller):
        await teller.go()
        await _assembled(teller)
        before = stage.cpu(teller.pid)
        first = await _ask(teller, "begin")
        last = await _until(teller, people)
        spent = stage.cpu(teller.pid) - before
    held = await examine(stage, login, people)
    await stage.drop(login)
    return Told(
        2 * people,
        last["at"] - first["at"],
        last["own"] - first["own"],
        spent,
        last["most"],
        held,
    )


async def _ask(teller: Contender, word: str) -> Mapping[str, Any]:
    await teller.tell(word)
    return await teller.result(within=60)


async def _assembled(teller: Contender) -> None:
    read = {"exam.registration", "exam.confirmation", "exam.payment"}
    partitions, began = sum(TOPICS[name].partitions for name in read), time.monotonic()
    while (await _ask(teller, "count"))["assigned"] != partitions:
        if time.monotonic() - began > _STUCK:
            raise Failed("the teller is not given its partitions")
        await asyncio.sleep(_LOOK_EVERY)


async def _until(teller: Contender, events: int) -> dict[str, Any]:
    handled, moved, most = 0, time.monotonic(), 0.0
    while True:
        found = await _ask(teller, "count")
        most = max(most, found["resident"])
        if found["handled"] >= events:
            return {**found, "most": most}
        if found["handled"] > handled:
            handled, moved = found["handled"], time.monotonic()
        if time.monotonic() - moved > _STUCK:
            raise Failed(f"the teller stands at {handled:,} of {events:,} events")
        await asyncio.sleep(_LOOK_EVERY)


async def examine(stage: Stage, login: DatabaseLogin, people: int) -> str:
    """Everybody has exactly one message for each channel, and it waits. Raises Violated."""
    async with stage.postgres.connection(login.database) as connection:
        left = dict(await connection.fetchrow(_LEFT))
    expected = {
        "messages": 2 * people, "different": 2 * people, "waiting": 2 * people, "expired": people, "claimed": people,
        "parked": 0,
    }  # fmt: skip
    if left != expected:
        wrong = {name: count for name, count in left.items() if count != expected[name]}
        raise Violated(f"of {people:,} forfeitures: {wrong}")
    return f"{people:,} forfeitures, each told once by SMS and once by email, all waiting; none parked"
