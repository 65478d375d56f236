"""What the four services can do next, and how it goes: alone, with something else at the same time, to a death, into a fault."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from services.chassis import parked
from services.chassis.consuming import Consumers
from services.chassis.jobs import Job
from services.chassis.record_batch import RecordBatch
from tests.simulation.broker import Headers, Place, Record, SimulatedBroker
from tests.simulation.lives import Doing, Failure, Fate, armed, at_gate, live
from tests.simulation.scene import Do, Scene
from tests.simulation.services import ORDER
from tests.simulation.stage import Seat

_MOST_PASSES: Final = timedelta(seconds=20)  # within one action: far below any lease
_SMALL_STEPS: Final = tuple(timedelta(seconds=n) for n in (-4, -1, 1, 4))
_LARGE_STEPS: Final = tuple(timedelta(hours=n) for n in (-2, 1, 24))
# Whether a relay whose poll ended has anything left to look for: it looks again, and what holds its horizon ends.
_LEFT: Final = """
select exists (select from outbox o, relay_cursor c
               where o.xid >= c.lower and (c.upper is null or o.xid >= c.upper or o.id > c.last_id))
"""


POLL_WHEN_WOKEN: Final = 200  # per mille of the turns of two interleaved actions
POLL: Final = 30
FEW_COMPANY: Final = 4
MOST_COMPANY: Final = 12
SLOW: Final = 200  # per mille of the actions that do not happen alone
SELDOM: Final = 6
REPLAY: Final = 100  # per mille of the moments at which something else waits too


@dataclass(frozen=True, slots=True, eq=False)
class Action:
    kind: str
    service: str
    what: str
    run: Do
    process: int = 0
    """Which process of the service does it, 0 or 1; 2 is an operator's command line."""
    twin: Action | None = None
    """What happens at the same time, whatever chance says."""
    on_end: Callable[[bool], None] = lambda _lived: None


@dataclass
class _Producer:
    """The broker as one poll of a relay sees it; counts what it took out of our hands."""

    broker: SimulatedBroker
    sent: int = 0

    async def partitions_for(self, topic: str) -> set[int]:
        return await self.broker.partitions_for(topic)

    async def send_batch(self, batch: RecordBatch, topic: str, *, partition: int) -> Any:
        self.sent += batch.record_count()
        return await self.broker.send_batch(batch, topic, partition=partition)


@dataclass
class Acting:
    scene: Scene
    _passed: timedelta = field(default_factory=timedelta)

    # What can happen

    def ready(self) -> list[Action]:
        """Everything that waits for its turn. The first is what happens when nothing is left to chance."""
        scene, services = self.scene, self.scene.stage.services
        now = scene.now()
        found = [action for name in ORDER if name in services.dirty for action in self._relays(name)]
        for name in ORDER:
            found += [
                Action("consume", name, f"{name} reads {place}", self._consuming(name, place))
                for place in scene.members[name].waiting()
            ]
        theirs = {name: now + services.clocks[name].step for name in ORDER}
        for name, job in services.jobs():
            if job.awake.is_set() or (job.due_at is not None and job.due_at <= theirs[name]):
                found.append(Action("job", name, f"{name}'s {job.name}", self._working(name, job)))
        if scene.agenda and scene.agenda[0][0] <= now:
            what = scene.agenda[0][2]
            found.append(Action("outside", whose(what), what, self._outside))
        if scene.refused and (not found or scene.chance.happens("", REPLAY)):
            # Operators are slow: what comes behind a parked event mostly comes first.
            found += [
                Action("operator", name, f"{name}'s parked events are replayed", self._replaying(name), 2)
                for name in ORDER
                if name in scene.refused
            ]
        return found

    def next_due(self) -> datetime | None:
        """The next moment, by the true time, at which something comes due."""
        services = self.scene.stage.services
        moments = [
            job.due_at - services.clocks[name].step for name, job in services.jobs() if job.due_at is not None
        ]
        if self.scene.agenda:
            moments.append(self.scene.agenda[0][0])
        now = self.scene.now()
        return min((at for at in moments if at > now), default=None)

    def _relays(self, name: str) -> list[Action]:
        """Who may lead: the leader if there is one, else whoever comes first."""
        seats = self.scene.stage.seats[name]
        places = [place for place in (0, 1) if seats[place].leads] or [0, 1]
        return [self._relay(name, place) for place in places]

    def _relay(self, name: str, place: int) -> Action:
        which = "second relay" if place else "relay"
        seat = self.scene.stage.seats[name][place]
        return Action("relay", name, f"{name}'s {which}", self._relaying(name, seat), place)

    def _second(self, name: str) -> list[Action]:
        """What a second process of this service may do at any time: relay, jobs, partitions that it had a moment ago."""
        scene = self.scene
        found = [self._relay(name, 1)]
        found += [
            Action("job", name, f"{name}'s second {job.name}", self._working_too(name, job), 1)
            for job in scene.stage.services.processes[name].jobs.jobs
        ]
        found += [
            Action("consume", name, f"{name} reads {place} again", self._reading_again(name, place), 1)
            for place in scene.members[name].places
            if scene.stage.broker.logs[place]
        ]
        return found

    def _company(self, action: Action, ready: Sequence[Action]) -> Action | None:
        """What happens at the same time: most often something of the same service, where they may touch the same rows."""
        chance = self.scene.chance
        there = [one for one in ready if one is not action and one.what != action.what]
        alike = [one for one in there if one.service == action.service]
        choice = chance.below(4)
        if choice == 3 and there:
            return chance.pick(there)
        if choice == 2 and alike:
            return chance.pick(alike)
        second = [one for one in self._second(action.service) if one.what != action.what]
        return chance.pick([*alike, *second]) if alike or second else None

    # How it goes

    async def step(self, ready: Sequence[Action]) -> None:
        """One of these, whichever chance picks."""
        self._perhaps_step_a_clock()
        await self.do(self.scene.chance.pick(ready), ready)

    async def do(self, action: Action, ready: Sequence[Action]) -> None:
        """Alone, or with something else meanwhile."""
        other = action.twin
        if other is None and self.scene.chance.happens("", self.scene.mood.meet):
            other = self._company(action, ready)
        if other is None:
            await self._one(action)
        else:
            await self._together(action, other, ready)

    async def _one(self, action: Action) -> None:
        self.scene.note(action.what)
        self.scene.stage.carriers.next_action()
        failure = self._failure()
        with armed(self._turn_to_die()) as death:
            fate, failed = await live(action.run, failure)
        await self._ended(action, fate, failed, death.at)

    async def _together(self, action: Action, other: Action, ready: Sequence[Action]) -> None:
        """It may take long, and see several others come and go; a slow one lets nearly everything else go first."""
        scene, chance = self.scene, self.scene.chance
        asked = [one for one in ready if one.kind == "request"]
        slow = chance.happens("slow action", SLOW)
        interleaver, self._passed = scene.stage.interleaver, timedelta(0)
        before = interleaver.met
        scene.stage.carriers.next_action()
        with armed(self._turn_to_die()) as death:
            doings = {action: self._doing(action)}

            def following() -> Action | None:
                if len(doings) == 1:
                    return other
                waiting = [one for one in (*asked, *self.ready()) if one not in doings]
                if slow and len(doings) <= MOST_COMPANY:
                    waiting = [one for one in waiting if one.what != action.what]
                    return chance.pick(waiting) if waiting else None
                if len(doings) <= FEW_COMPANY and chance.below(2):
                    return self._company(action, waiting)
                return None

            def others() -> Doing | None:
                if (one := following()) is None:
                    return None
                scene.note(f"{one.what} while {action.what}")
                chance.reached["two at once"] += 1
                doings[one] = self._doing(one)
                return doings[one]

            await interleaver.together(
                lambda waiting: self._turn(waiting, slow=slow),
                doings[action],
                others,
                between=lambda: self._meanwhile([one for one, doing in doings.items() if doing.fate is None]),
            )
        if interleaver.met > before:
            chance.reached["one waited for the other's row"] += 1
        dead = [doing.process for doing in doings.values() if doing.fate is Fate.DIED]
        if len(dead) > len(set(dead)):
            chance.reached["death with another transaction open"] += 1
        for one, doing in doings.items():
            assert doing.fate is not None
            await self._ended(one, doing.fate, doing.failed, death.at)

    def _turn(self, several: int, *, slow: bool) -> int:
        """Which of so many goes on. The first, if it is slow, seldom once it has begun."""
        if not slow:
            return self.scene.chance.below(several)
        return int(self.scene.chance.below(SELDOM) > 0)

    def _doing(self, action: Action) -> Doing:
        return Doing(action.run, (action.service, action.process), self._failure())

    async def _meanwhile(self, pair: Sequence[Action]) -> None:
        """While these stand between their statements: a relay of theirs polls, or time passes."""
        scene = self.scene
        names, busy = {one.service: 0 for one in pair}, [one.what for one in pair]
        free = [one for name in names for one in self._relays(name) if one.what not in busy]
        # A commit wakes its relay at once, whoever else is still in the middle of something.
        woken = any(name in scene.stage.services.dirty for name in names)
        if free and scene.chance.happens(
            "relay polled between two statements", POLL_WHEN_WOKEN if woken else POLL
        ):
            relay = scene.chance.pick(free)
            scene.trace.append(f"    {relay.what} between two statements")
            with armed(0):
                await live(relay.run)
        elif (
            scene.mood.late
            and self._passed < _MOST_PASSES
            and scene.chance.happens("time passed between two statements", scene.mood.meet / 4)
        ):
            passes = timedelta(seconds=1 + scene.chance.below(8))
            self._passed += passes
            scene.trace.append(f"    {passes.seconds} s pass between two statements")
            scene.stage.control.jump(scene.now() + passes)

    def _turn_to_die(self) -> int:
        """At which crash point of the action, or 0 for none."""
        chance = self.scene.chance
        return 1 + chance.below(6) if chance.happens("", self.scene.mood.crash) else 0

    def _failure(self) -> Failure | None:
        chance = self.scene.chance
        if not chance.happens("", self.scene.mood.fail):
            return None
        return Failure(True, 1 + chance.below(2)) if chance.below(2) else Failure(False, 1 + chance.below(8))

    async def _ended(self, action: Action, fate: Fate, failed: str, point: str) -> None:
        action.on_end(fate is Fate.LIVED)
        scene, services = self.scene, self.scene.stage.services
        if failed:
            scene.chance.reached[failed] += 1
            scene.trace.append(f"    {failed} in {action.what}")
            services.look_again(action.service)
            if action.service == "notification":
                scene.stage.carriers.not_written_down()
        if fate is Fate.FAILED and action.kind == "consume" and not action.process:
            scene.members[action.service].restart()  # what failed goes back to the broker
        if fate is not Fate.DIED:
            return
        scene.chance.reached[f"died at {point}"] += 1
        scene.trace.append(f"    {action.service}{' (second)' * action.process} died at {point}")
        if action.service == "notification":
            scene.stage.carriers.not_written_down()
        if action.process < 2:
            await scene.stage.seats[action.service][action.process].end()
            await services.let_go(action.service)
        if action.process:
            services.look_again(action.service)
        else:
            services.restart(action.service)
            scene.members[action.service].restart()

    def _perhaps_step_a_clock(self) -> None:
        """Somebody steps the clock of one service's machine; large steps only where three clocks are compared."""
        scene = self.scene
        if not scene.chance.happens("clock stepped", scene.mood.clocks):
            return
        name = scene.chance.pick(ORDER)
        large = name == "payment" and scene.chance.below(2) == 1
        scene.stage.services.clocks[name].step = scene.chance.pick(_LARGE_STEPS if large else _SMALL_STEPS)
        scene.trace.append(f"    clock of {name} stepped by {scene.stage.services.clocks[name].step}")

        async def set_right() -> None:
            scene.stage.services.clocks[name].step = timedelta(0)
            scene.stage.services.look_again(name)

        scene.later(scene.now() + timedelta(minutes=5 + scene.chance.below(20)), "clock set right", set_right)

    # The actions themselves

    def _relaying(self, name: str, seat: Seat) -> Do:
        async def relay() -> None:
            services = self.scene.stage.services
            await at_gate()
            if not await seat.may_lead():
                return
            services.dirty.discard(name)
            kafka, left = _Producer(self.scene.stage.broker), True
            own = 0
            try:
                own = await seat.relay.once(seat.gated, kafka)
                left = await seat.gated.fetchval(_LEFT)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pass  # as `Relay.run`: it begins anew from the cursor
            finally:
                # A poll that came to its end sent every event of its own once; what it pulled forward goes out once more.
                self.scene.excused += kafka.sent - own
                if left:
                    services.dirty.add(name)

        return relay

    def _consuming(self, name: str, place: Place) -> Do:
        async def consume() -> None:
            scene = self.scene
            member, chance, mood = scene.members[name], scene.chance, scene.mood
            if chance.happens("offsets reset", mood.again / 8):
                member.rewind(place)
            records = await member.fetch(place, 1 + chance.below(8) * 3 if mood.again else 500)
            if not records:
                return
            if chance.happens("", mood.refuse):
                scene.stage.services.spoilt.add((name, event_id(chance.pick(records).headers)))
            if chance.happens("delivered twice at once", mood.again):
                records = [record for record in records for _ in range(2)]

            async def commit() -> None:
                if chance.happens("offset commit lost", mood.commit_lost):
                    member.restart()
                else:
                    await member.commit(place)

            await take_in(scene.stage.services.processes[name].consumers, records, commit)

        return consume

    def _reading_again(self, name: str, place: Place) -> Do:
        async def read() -> None:
            """Whoever had this partition a moment ago goes on with what it had fetched: from where the group once stood."""
            await at_gate()
            broker = self.scene.stage.broker
            start = max(0, broker.committed[name, place] - 4)
            records = broker.logs[place][start : start + 5]
            await self.scene.stage.services.processes[name].consumers.on_batch(records)

        return read

    def _working(self, name: str, job: Job) -> Do:
        return lambda: self.scene.stage.services.run_job(name, job)

    def _working_too(self, name: str, job: Job) -> Do:
        return lambda: self.scene.stage.services.run_rival(name, job)

    def _replaying(self, name: str) -> Do:
        async def replay() -> None:
            """As `parked replay` does: all that wait, oldest first. Whatever spoilt them is mended."""
            services = self.scene.stage.services
            if self.scene.before_replay is not None:
                await self.scene.before_replay(name)
            process = services.processes[name]
            database = process.plumbing.database
            services.spoilt -= {one for one in services.spoilt if one[0] == name}
            async with database.reading() as uow:
                waiting = [one.id for one in await parked.list_parked(uow)]
            for number in waiting:
                with contextlib.suppress(parked.CannotReplay):
                    await parked.replay(database, process.consumers, number)
                    self.scene.chance.reached["parked event replayed"] += 1
            if not waiting:
                self.scene.refused.discard(name)

        return replay

    async def _outside(self) -> None:
        if self.scene.agenda:
            await heapq.heappop(self.scene.agenda)[3]()


async def take_in(consumers: Consumers, records: Sequence[Record], commit: Do) -> None:
    """In the order that AckPolicy.NACK_ON_ERROR keeps: the effects, then the offsets."""
    await consumers.on_batch(records)
    await commit()


def whose(what: str) -> str:
    """Which service hears of something outside."""
    return "notification" if what == "receipt" else "payment"


def event_id(headers: Headers) -> UUID:
    return UUID(next(value for name, value in headers if name == "ce_id").decode())
