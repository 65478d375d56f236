"""One run: a few people live through a whole cycle while chance decides what happens next and what goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from contracts.topics import TOPICS
from deploy.rehearsal.acts import Acts, Addresses
from deploy.rehearsal.crowd import crowd
from deploy.rehearsal.identity import invent_all
from deploy.rehearsal.people import People, Step, WorldEvent
from deploy.rehearsal.standing import Standing
from tests.simulation.acting import Acting, Action
from tests.simulation.calling import Calling, set_desk_window
from tests.simulation.chance import Chance
from tests.simulation.doors import SimulatedDoors
from tests.simulation.looking import Looking
from tests.simulation.mood import Mood
from tests.simulation.office import Office
from tests.simulation.scene import Do, Scene
from tests.simulation.services import ORDER
from tests.simulation.stage import Stage

HURRY: Final = timedelta(days=4)  # how long somebody may be late, so that several come at once
AFTERMATH: Final = timedelta(days=3)
LOOKS: Final = 250  # per mille of people's steps are preceded by a look,
LOOKS_UNDER_WAY: Final = 7  # and of all actions


@dataclass
class Told:
    """What a run came to."""

    seed: int
    late: bool
    digest: str
    actions: int
    looks: int
    reached: Mapping[str, int]
    plan: Mapping[int, int]


class Run:
    def __init__(self, stage: Stage, seed: int, chance: Chance) -> None:
        self.scene = Scene(stage, seed, chance)
        self._acting = Acting(self.scene)
        self._calling = Calling(self.scene)
        self._asked: dict[Action, asyncio.Future[bool]] = {}
        self._numbers = itertools.count(1)

    @property
    def chance(self) -> Chance:
        return self.scene.chance

    @property
    def trace(self) -> list[str]:
        """What happened, line by line."""
        return self.scene.trace

    async def play(self) -> Told:
        """To the end of the cycle and until nothing is due. Raises Violation."""
        scene, stage = self.scene, self.scene.stage
        scene.mood = Mood.of(scene.chance)
        scene.late = scene.mood.late
        people = crowd(stage.cycle, scene.mood.people, scene.seed)
        await self._begin(people)
        last = 1 + max(person.line for person in people.persons)
        office = [Turn((at, last, n), who, what) for n, (at, who, what) in enumerate(self._office.turns())]
        timetable = deque(sorted([*_timetable(people), *office], key=lambda turn: turn.moment))
        while timetable:
            (at, line, index), _, _ = timetable[0]
            await self._pass_to(at)
            rested = await self._drain()
            if scene.chance.happens("", LOOKS):
                await self._looking.look(at_rest=rested and not scene.late, until=(at, line - 1, index))
            await self._crowd(self._who_come_together(timetable))
        await self._pass_to(max(scene.now(), stage.cycle.windows.payment.closes) + AFTERMATH)
        scene.mood = Mood()
        for gateway in stage.gateways.values():
            gateway.begin_calm()
        stage.carriers.begin_calm()
        await self._pass_to(scene.now() + AFTERMATH)
        digest = hashlib.sha256((await self._looking.judge()).encode()).hexdigest()[:16]
        return Told(
            scene.seed,
            scene.late,
            digest,
            scene.actions,
            self._looking.looks + 1,
            dict(scene.chance.reached),
            scene.chance.plan,
        )

    async def _begin(self, people: People) -> None:
        scene, stage = self.scene, self.scene.stage
        await stage.clean()
        stage.ids.begin(scene.seed)
        for gateway in stage.gateways.values():
            gateway.begin(scene.chance, scene.mood.gateway)
        stage.carriers.begin(scene.chance, scene.mood.carriers)
        stage.services.on_refusal = self._on_refusal
        for name in ORDER:
            topics = [topic.name for topic in TOPICS.values() if name in topic.consumers]
            scene.members[name] = stage.broker.member(name, topics)
        stage.control._write(stage.cycle.windows.pre_registration.opens - timedelta(days=1), 0.0)
        identities = invent_all(people, scene.seed)
        self._standings = {one.name: Standing(one, identities[one.name], one.site) for one in people.persons}
        self._doors = SimulatedDoors(stage.services, self._act, self._calling.pay, self._two_tabs)
        self._acts = Acts(
            self._doors,  # type: ignore[arg-type]  # the same questions and answers, without sockets
            Addresses("sim://registration", "sim://confirmation", "sim://payment", "sim://simulators"),
            stage.cycle,
        )
        self._office = Office(scene, self._doors, self._standings)
        self._looking = Looking(scene, people, identities, self._standings, self._doors)
        self._calling.begin()
        self._looking.begin()
        scene.before_replay = self._looking.look_at_parked

    def _on_refusal(self, service: str) -> None:
        self.scene.refused.add(service)
        self.scene.chance.reached["event refused by its handler"] += 1

    def _two_tabs(self) -> bool:
        """The rules do not know who asked first: only where they are not asked."""
        return self.scene.late and self.scene.chance.happens(
            "asked from two tabs at once", self.scene.mood.again
        )

    async def _pass_to(self, at: datetime) -> None:
        """Time goes on, and stops wherever something is due."""
        control = self.scene.stage.control
        while True:
            await self._drain()
            due = self._acting.next_due()
            if due is None or due > at:
                break
            if due > self.scene.now():
                control.jump(due)
        if at > self.scene.now():
            control.jump(at)

    async def _drain(self) -> bool:
        """Everything that can happen now does, in an order that chance decides. Whether nothing was put off."""
        chance = self.scene.chance
        while ready := self._acting.ready():
            if chance.happens("work put off", self.scene.mood.delay):
                return False
            if chance.happens("", LOOKS_UNDER_WAY):
                await self._looking.look(at_rest=False)
            await self._acting.step(ready)
        return True

    # People

    def _who_come_together(self, timetable: deque[Turn]) -> list[Turn]:
        """The next one, and where people come late, others who come meanwhile."""
        turns = [timetable.popleft()]
        while (
            self.scene.late
            and timetable
            and timetable[0].who not in {turn.who for turn in turns}
            and timetable[0].moment[0] - turns[0].moment[0] < HURRY
            and self.scene.chance.happens("several came at once", self.scene.mood.meet * 4)
        ):
            turns.append(timetable.popleft())
        return turns

    async def _crowd(self, turns: Sequence[Turn]) -> None:
        """What they do, each one question after the other; whose question comes first is chance's to say."""
        await self._pass_to(turns[-1].moment[0])
        tasks = [asyncio.create_task(self._take(turn)) for turn in turns]
        try:
            while going := [task for task in tasks if not task.done()]:
                asked = [action for action, answered in self._asked.items() if not answered.done()]
                if len(asked) < len(going):
                    await asyncio.sleep(0)  # somebody is about to ask the next question
                    continue
                ready = [*asked, *self._acting.ready()]
                action = self.scene.chance.pick(ready) if self.scene.late else asked[0]
                await self._acting.do(action, ready)
        finally:
            for task in tasks:
                task.cancel()
        for task in tasks:
            task.result()

    async def _take(self, turn: Turn) -> None:
        if isinstance(turn.what, WorldEvent):
            await set_desk_window(self._doors, turn.what)
        elif turn.who is not None:
            standing = self._standings[turn.who]
            assert isinstance(turn.what, Step)
            standing.note(turn.what, await self._acts.do(standing, turn.what))
        elif not isinstance(turn.what, Step):
            await turn.what()

    async def _act(self, request: Do, service: str, twin: Do | None) -> bool:
        """A person's request: it is made when its turn comes, perhaps while something else happens."""
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        again = Action("request", service, f"the same request to {service}", twin) if twin else None
        number = next(self._numbers)
        action = Action(
            "request", service, f"request {number} to {service}", request, 0, again, answered.set_result
        )
        self._asked[action] = answered
        try:
            return await answered
        finally:
            del self._asked[action]


Moment = tuple[datetime, int, int]


class Turn(NamedTuple):
    moment: Moment
    who: str | None
    what: Step | WorldEvent | Do


def _timetable(people: People) -> Sequence[Turn]:
    """What people and the office do, in the order of moment and file."""
    found = [Turn((event.at, event.line, event.index), None, event) for event in people.world]
    for person in people.persons:
        found += [Turn((step.at, person.line, step.index), person.name, step) for step in person.steps]
    return sorted(found, key=lambda turn: turn.moment)
