"""Drives a whole cycle: the virtual clock stands still at a moment, everybody acts, and it jumps to the next that matters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from deploy.rehearsal.acts import Acts, is_bulk, level_of
from deploy.rehearsal.agenda import Agenda
from deploy.rehearsal.doors import AT_ONCE
from deploy.rehearsal.people import Verb, WorldEvent
from deploy.rehearsal.people_file import callbacks
from deploy.rehearsal.standing import Turn
from deploy.rehearsal.streams import HOPS, Streams
from deploy.rehearsal.world import World

# Up to so many moments a rehearsal stops at every due time of a job or carrier; a crowd's thousands pass over those
# that lie close together, since nothing of theirs decides anything.
THOROUGH: Final = 400
LONG_WAY: Final = timedelta(minutes=90)
MINUTE: Final = timedelta(minutes=1)
INSTANT: Final = timedelta(microseconds=1)
# How long after the last edge late callbacks, retries and receipts are still waited for: an SMS of the morning after
# that is never confirmed runs out three days later.
AFTERMATH: Final = timedelta(days=4)
SERVICE_OF: Final = {
    Verb.PRE_REGISTER: "registration",
    Verb.AMEND: "registration",
    Verb.WITHDRAW: "registration",
    Verb.CONFIRM: "confirmation",
    Verb.RETURN: "confirmation",
    Verb.APPROVE: "confirmation",
    Verb.REJECT: "confirmation",
    Verb.ORDER: "payment",
    Verb.PAY: "gateway",
}


class Clock(Protocol):
    def now(self) -> datetime: ...
    def jump(self, at: datetime) -> None: ...


class Audience(Protocol):
    """Who watches while it runs."""

    def moment(self, at: datetime) -> None: ...
    def step(self, verb: Verb, code: str | None) -> None: ...


@dataclass(slots=True)
class Timing:
    moments: int = 0
    steps: int = 0
    refused: int = 0
    acting: float = 0.0
    outside: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)


class Driver:
    def __init__(
        self, agenda: Agenda, clock: Clock, streams: Streams, acts: Acts, world: World, audience: Audience
    ) -> None:
        self._agenda = agenda
        self._clock = clock
        self._streams = streams
        self._acts = acts
        self._world = world
        self._audience = audience
        self._thorough = agenda.moments <= THOROUGH
        if not self._thorough:
            # A crowd acts in passing: without a stop, a step soon after eight would overtake the night's messages.
            agenda.add_mornings()
        # What a step is decided by lies one hop away at most; with time to spare everything further has arrived too.
        self._hops = HOPS if self._thorough else 1
        self._slots = {service: asyncio.Semaphore(AT_ONCE) for service in SERVICE_OF.values()}
        self._called_back: set[datetime] = set()
        self._stirred = True
        self.timing = Timing()

    async def run(self) -> None:
        """To the end of the agenda, then until nothing is left to happen."""
        while (planned := self._agenda.next_at) is not None:
            if self._is_far(planned):
                await self._rest()
                due = self._streams.last.next_due
                if due is not None and self._clock.now() < due < planned:
                    self._jump(min(self._let_come(due), planned - INSTANT))
                    await self._rest()
                    continue
            await self._visit(planned)
        await self._aftermath()

    def _is_far(self, planned: datetime) -> bool:
        """Whether the way to the planned moment is long enough for what is due in between to matter."""
        if self._world.under_way:
            return False
        return self._thorough or planned - self._clock.now() >= LONG_WAY

    def _let_come(self, due: datetime) -> datetime:
        """A crowd's receipts come second by second: those of one minute are let come together."""
        return due if self._thorough else due + MINUTE

    async def _rest(self) -> None:
        """Everything at rest, unless it has been since and nothing has happened or come due."""
        if self._stirred:
            await self._streams.rest()
            self._stirred = False

    async def _visit(self, at: datetime) -> None:
        turns, events, marks = self._agenda.take(at)
        edge = self._agenda.is_edge(at)
        if edge and not self._world.under_way:
            await self._rest()
        else:
            await self._gate(turns)
        rested = not self._stirred
        self._jump(at)
        # What came due at a moment known in advance happens before what people do at it.
        came_due = rested and self._stirred
        self._stirred |= await self._world.pass_to(at)
        self._streams.faulted = self._world.under_way
        for reached in marks:
            reached()
        if (edge or came_due) and not self._world.under_way:
            await self._rest()
        await self._happen(turns, events)
        if at in self._called_back:
            # A callback is signed now and fresh for minutes only: it must arrive before the clock jumps on.
            self._called_back.discard(at)
            started = time.monotonic()
            await self._streams.outside_is_done()
            self.timing.outside += time.monotonic() - started
        self.timing.moments += 1

    def _jump(self, at: datetime) -> None:
        # Steps dated before the system's first moment, or put off by a fault, happen now.
        if at > self._clock.now():
            due = self._streams.last.next_due
            self._stirred = self._stirred or (due is not None and due <= at)
            self._clock.jump(at)
        self._audience.moment(at)

    async def _happen(self, turns: Sequence[Turn], events: Sequence[WorldEvent]) -> None:
        """Everything of one moment: people's steps between the world's events, in the order of the file."""
        waiting = list(turns)
        for event in events:
            before = [turn for turn in waiting if turn.line < event.line]
            waiting = [turn for turn in waiting if turn.line >= event.line]
            await self._act(before)
            if before and not self._world.under_way:
                await self._rest()
            self._agenda.add_edges(await self._world.happen(event))
            self._stirred = True
            self._streams.faulted = self._world.under_way
            if not self._world.under_way:
                await self._rest()
        await self._act(waiting)

    async def _act(self, turns: Sequence[Turn]) -> None:
        for turn in turns:
            turn.human.turns.append(turn)
        humans = list(dict.fromkeys(turn.human for turn in turns))
        first = True
        while humans:
            now = [human.turns.popleft() for human in humans]
            if not first:
                await self._gate(now)
            first = False
            started = time.monotonic()
            await self._together(self._put_off(now))
            self.timing.acting += time.monotonic() - started
            humans = [human for human in humans if human.turns]

    def _put_off(self, turns: Sequence[Turn]) -> list[Turn]:
        """Whoever finds a service stopped on purpose comes again when it is back."""
        if not self._world.under_way:
            return list(turns)
        possible = []
        for turn in turns:
            until = self._world.down_until(SERVICE_OF[turn.step.verb])
            held = turn.human.held_until
            if until is None and (held is None or held <= self._clock.now()):
                possible.append(turn)
                continue
            until = max(at for at in (until, held) if at is not None)
            turn.human.held_until = until
            self._agenda.put_later(until, [turn, *turn.human.turns])
            turn.human.turns.clear()
        return possible

    async def _together(self, turns: Sequence[Turn]) -> None:
        bulk: dict[str, list[Turn]] = {}
        single: list[Turn] = []
        for turn in turns:
            if is_bulk(turn.step):
                bulk.setdefault(level_of(turn.step), []).append(turn)
            else:
                single.append(turn)
        if len(single) == 1 and not bulk:
            await self._one(single[0])
            return
        async with asyncio.TaskGroup() as group:
            for level, several in bulk.items():
                group.create_task(self._decide(level, several))
            for turn in single:
                group.create_task(self._one(turn))

    async def _one(self, turn: Turn) -> None:
        async with self._slots[SERVICE_OF[turn.step.verb]]:
            code = await self._acts.do(turn.standing, turn.step)
        self._done(turn, code)

    async def _decide(self, level: str, turns: Sequence[Turn]) -> None:
        codes = await self._acts.decide(level, [(turn.standing, turn.step) for turn in turns])
        for turn, code in zip(turns, codes, strict=True):
            self._done(turn, code)

    def _done(self, turn: Turn, code: str | None) -> None:
        step, human = turn.step, turn.human
        turn.standing.note(step, code)
        self.timing.steps += 1
        self.timing.refused += code is not None
        self._audience.step(step.verb, code)
        if code is not None or step.verb is Verb.ORDER:
            # A refusal and an order say nothing on the streams: there is nothing to wait for.
            self._stirred |= code is None
            return
        self._stirred = True
        human.needs = self._streams.after(self._hops)
        if step.verb is Verb.PAY:
            for seconds in callbacks(step.fields):
                self._expect_callback(turn, self._clock.now() + timedelta(seconds=seconds))

    def _expect_callback(self, turn: Turn, at: datetime) -> None:
        human = turn.human
        self._called_back.add(at)

        def reached() -> None:
            human.needs = self._streams.after(self._hops)

        self._agenda.mark(at, reached)

    async def _gate(self, turns: Iterable[Turn]) -> None:
        """Nobody acts before everything caused by the own earlier steps has arrived where it must."""
        if self._world.under_way:
            return
        needed = max((turn.human.needs for turn in turns), default=0)
        if needed > self._streams.completed:
            await self._streams.arrived(needed)

    async def _aftermath(self) -> None:
        """Late callbacks, gateways that did not answer, messages held back for the night: until nothing is due."""
        started = time.monotonic()
        horizon = max(self._agenda.last_at, self._clock.now()) + AFTERMATH
        while True:
            self._stirred |= await self._world.pass_to(horizon)
            self._streams.faulted = False
            await self._rest()
            due = self._streams.last.next_due
            if due is None or due > horizon:
                break
            self._jump(self._let_come(due))
        self.timing.stages["aftermath"] = time.monotonic() - started
