"""Watches the streams from outside: what services have said, what the broker holds, what each group has taken in.

A hop is complete when everything that had been said at its start is published and taken in by every group. What it
caused in turn was committed with it, so it is part of the next hop: a chain of three facts needs three hops."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, NotCoordinatorForGroupError

from contracts.topics import TOPICS
from deploy.rehearsal.doors import Doors, RehearsalStopped
from deploy.rehearsal.looks import Look, state_of

HOPS: Final = 3  # registration → confirmation → payment → registration's view
SOON: Final = 0.004
LATER: Final = 0.05  # real seconds between looks while somebody waits
LOOKED: Final = 5.0  # real seconds after which a look is given up
IDLE: Final = 1.0  # and while nobody does
AGE_MS: Final = 5_000  # of what is known of the brokers
TOO_LONG: Final = 90.0  # real seconds without rest or hop after which a rehearsal stops and says what moves


@dataclass(slots=True)
class Waiting:
    """A hop under way: what had been said at its start, and, once all of it is published, up to which offsets."""

    said: Mapping[str, int]
    behind: list[str]
    ends: Mapping[TopicPartition, int] | None = None
    settled: bool = False


@dataclass(slots=True)
class Flow:
    """What the progress display and the report tell about the streams."""

    looks: int = 0
    hops: int = 0
    rests: int = 0
    rest_seconds: float = 0.0
    gate_seconds: float = 0.0
    events: int = 0
    failures: int = 0
    slowest: tuple[float, str] = (0.0, "")
    """The longest wait for rest, and what was waited for last."""


class Streams:
    def __init__(
        self,
        doors: Doors,
        services: Mapping[str, str],
        simulators: str | None,
        bootstrap: str,
        ops: Mapping[str, str],
    ) -> None:
        self._doors = doors
        self._services = services
        self._simulators = simulators
        self._bootstrap = bootstrap
        self._ops = ops
        self._topics = [topic for topic in TOPICS.values() if topic.consumers]
        self._partitions = [
            TopicPartition(topic.name, number) for topic in self._topics for number in range(topic.partitions)
        ]
        self._pairs = [
            (group, TopicPartition(topic.name, number))
            for topic in self._topics
            for group in topic.consumers
            for number in range(topic.partitions)
        ]
        self._groups = sorted({group for topic in self._topics for group in topic.consumers})
        self._admin: AIOKafkaAdminClient | None = None
        self._coordinators: dict[str, int] = {}
        self._reader: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._moved = asyncio.Condition()
        self._awaited = 0
        self._tempo = SOON
        self._looking = asyncio.Lock()
        self._waiting: Waiting | None = None
        self._wake = asyncio.Event()
        self._failed: BaseException | None = None
        self.last = Look({}, 0, None)
        self.flow = Flow()
        self.begun = 0
        self.completed = 0
        self.faulted = False
        """A world event is under way on purpose: answers may be missing."""

    async def start(self) -> None:
        # A broker that is away on purpose is not worth a line every tenth of a second.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        # Who leads is asked again soon: a broker that was cut off goes on answering, with what it knew then.
        self._admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, metadata_max_age_ms=AGE_MS)
        self._reader = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, enable_auto_commit=False, metadata_max_age_ms=AGE_MS
        )
        await self._admin.start()
        await self._reader.start()
        self._task = asyncio.create_task(self._watch(), name="streams")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._reader is not None:
            await self._reader.stop()
        if self._admin is not None:
            await self._admin.close()

    # Waiting

    def after(self, hops: int = HOPS) -> int:
        """The number of the hop after which everything caused up to now has arrived."""
        return self.begun + hops

    async def arrived(self, hop: int) -> None:
        """Wait until that hop is complete."""
        if self.completed >= hop:
            return
        started = time.monotonic()
        await self._until(lambda: self.completed >= hop, f"hop {hop} of the streams (at {self.completed})")
        self.flow.gate_seconds += time.monotonic() - started

    async def rest(self) -> None:
        """Wait until outboxes are empty, every group has taken everything in, no job is due or running, and the world
        outside owes nothing at this moment: seen twice in a row with nothing new between."""
        async with self._looking:
            await self._rest()

    async def _rest(self) -> None:
        started = time.monotonic()
        deadline = started + TOO_LONG
        seen: tuple[Any, ...] | None = None
        last_seen = ""
        pause, whom = SOON, tuple(self._services)
        while True:
            try:
                look = await self._look("soon", whom)
                stirring = look.stirring()
                now = await self._still(look) if not stirring else None
            except (KafkaError, OSError) as error:
                # Somebody is just coming back from a fault.
                look, stirring, now = self.last, [], None
                last_seen = f"{type(error).__name__}: {error}"
            if now is not None and now == seen:
                break
            if time.monotonic() > deadline:
                raise RehearsalStopped(
                    f"the streams do not come to rest within {TOO_LONG:.0f} s: {last_seen}"
                )
            if now is None and stirring:
                last_seen = self._restless(look)
            seen = now
            # Asking costs the asked: those that still move are asked again, ever more rarely; in the end all, twice.
            whom = tuple(stirring) if stirring else tuple(self._services)
            pause = SOON if now else min(pause * 1.7, LATER)
            await asyncio.sleep(pause)
        self.flow.rests += 1
        seconds = time.monotonic() - started
        self.flow.rest_seconds += seconds
        if seconds > self.flow.slowest[0]:
            self.flow.slowest = (round(seconds, 2), last_seen)
        # At rest everything has arrived: whoever waits for a hop need not wait any longer.
        self._waiting = None
        self.begun += HOPS
        self.completed = self.begun
        async with self._moved:
            self._moved.notify_all()

    async def _still(self, look: Look) -> tuple[Any, ...] | None:
        """What has been said and published up to now, if every group has taken it in."""
        ends, taken = await self._offsets()
        if any(taken[group].get(partition, 0) < ends[partition] for group, partition in self._pairs):
            return None
        return tuple(look.added.items()), tuple(ends.values())

    async def outside_is_done(self) -> None:
        """Wait until the simulated world owes nothing at this moment."""
        deadline = time.monotonic() + TOO_LONG
        while (await self._doors.get(f"{self._simulators}/sim/rest?soon=true", {}))["pending_now"]:
            if time.monotonic() > deadline:
                raise RehearsalStopped("a callback of the gateway stays under way")

    def _restless(self, look: Look) -> str:
        parts = [f"{name} has {count} unpublished" for name, count in look.unpublished.items() if count]
        parts.extend(what for state in look.states.values() for what in state.busy)
        outside = {"deeds of the simulated world are due": look.pending, "bounces are not read": look.unread}
        parts.extend(f"{count} {what}" for what, count in outside.items() if count)
        return "; ".join(parts) or "a consumer group lags behind"

    async def _until(self, reached: Any, what: str) -> None:
        self._awaited += 1
        self._tempo = SOON
        self._wake.set()
        try:
            async with asyncio.timeout(TOO_LONG), self._moved:
                while not reached():
                    if self._failed is not None:
                        raise self._failed
                    await self._moved.wait()
        except TimeoutError:
            raise RehearsalStopped(
                f"{what} was not reached within {TOO_LONG:.0f} s: {self._restless(self.last)}"
            ) from None
        finally:
            self._awaited -= 1

    # Watching

    async def _watch(self) -> None:
        blind_since: float | None = None
        while True:
            try:
                async with self._looking:
                    await self._go_on()
                blind_since = None
            except (KafkaError, OSError, TimeoutError) as error:
                self.flow.failures += 1
                blind_since = blind_since or time.monotonic()
                if not self.faulted and time.monotonic() - blind_since > TOO_LONG:
                    await self._fail(
                        RehearsalStopped(f"the streams cannot be watched: {type(error).__name__}: {error}")
                    )
                    return
            except Exception as error:  # whoever waits for a hop must hear why it never comes
                await self._fail(error)
                return
            await self._pause()

    async def _go_on(self) -> None:
        look = await self._look("hurry" if self._awaited else "")
        if self._waiting is None:
            self._waiting = Waiting(dict(look.added), list(self._groups))
            self.begun += 1
        self._waiting = await self._advance(self._waiting, look)
        if self._waiting is None and self._awaited:
            # The next hop begins with what this look has shown already.
            self._waiting = Waiting(dict(look.added), list(self._groups))
            self.begun += 1

    async def _fail(self, error: BaseException) -> None:
        self._failed = error
        async with self._moved:
            self._moved.notify_all()

    async def _advance(self, waiting: Waiting, look: Look) -> Waiting | None:
        """The hop after this look; None when it is complete."""
        if not waiting.settled:
            # A callback that is due has not yet said what it will say.
            if look.pending:
                waiting.said = dict(look.added)
                return waiting
            waiting.settled = True
        if waiting.ends is None:
            if any(look.added[name] - look.unpublished[name] < said for name, said in waiting.said.items()):
                return waiting
            waiting.ends, _ = await self._offsets(groups=())
        _, taken = await self._offsets(ends=False, groups=waiting.behind)
        waiting.behind = [
            group
            for group in waiting.behind
            if any(
                taken[group].get(partition, 0) < waiting.ends[partition]
                for of, partition in self._pairs
                if of == group
            )
        ]
        if waiting.behind:
            return waiting
        self.completed += 1
        self.flow.hops += 1
        async with self._moved:
            self._moved.notify_all()
        return None

    async def _pause(self) -> None:
        if self._awaited:
            self._tempo = min(self._tempo * 1.7, LATER)
            await asyncio.sleep(self._tempo)
            return
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), IDLE)
        except TimeoutError:
            return

    async def _look(self, how: str = "", whom: Sequence[str] | None = None) -> Look:
        """Ask these services (all of them unless named) and the world outside. `how`: somebody waits for what is under way
        (`hurry`), or for their rest (`soon`)."""
        names = (
            tuple(self._services) if whom is None else tuple(name for name in whom if name in self._services)
        )
        why = f"?{how}=true" if how else ""
        asked = [
            self._doors.get(f"{self._services[name]}/ops/rest{why}", self._ops, LOOKED) for name in names
        ]
        if self._simulators is not None:
            asked.append(self._doors.get(f"{self._simulators}/sim/rest{why}", {}, LOOKED))
        answers = await asyncio.gather(*asked)
        world: Mapping[str, Any] = {"pending_now": 0, "next_at": None, "bounces_unread": 0}
        if self._simulators is not None:
            world = answers.pop()
        said = {
            **self.last.states,
            **{name: state_of(name, answer) for name, answer in zip(names, answers, strict=True)},
        }
        next_at = None if world["next_at"] is None else datetime.fromisoformat(world["next_at"])
        states = {name: said[name] for name in self._services}
        self.last = last = Look(states, world["pending_now"], next_at, world["bounces_unread"])
        self.flow.looks += 1
        self.flow.events = sum(last.added.values())
        return last

    async def _offsets(
        self, ends: bool = True, groups: Sequence[str] | None = None
    ) -> tuple[dict[TopicPartition, int], dict[str, dict[TopicPartition, int]]]:
        """Where each partition ends, and how far each group has committed."""
        assert self._reader is not None
        asked = self._groups if groups is None else groups
        answers = await asyncio.gather(*(self._committed(group) for group in asked))
        end: dict[TopicPartition, int] = await self._reader.end_offsets(self._partitions) if ends else {}
        taken = {
            group: {partition: meta.offset for partition, meta in answer.items() if meta.offset >= 0}
            for group, answer in zip(asked, answers, strict=True)
        }
        return end, taken

    async def _committed(self, group: str) -> dict[TopicPartition, Any]:
        """Of every partition. Who keeps a group's offsets is asked once, and anew after any trouble: whoever kept them
        earlier may answer without an error and without an offset."""
        assert self._admin is not None
        keeper = self._coordinators.pop(group, None)
        if keeper is None:
            keeper = await self._admin.find_coordinator(group)
        # Partitions are named because the last resort's broker knows no other way to ask.
        known: dict[TopicPartition, Any] = await self._admin.list_consumer_group_offsets(
            group, keeper, list(self._partitions)
        )
        if len(known) < len(self._partitions):
            raise NotCoordinatorForGroupError(group)
        self._coordinators[group] = keeper
        return known
