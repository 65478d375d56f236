"""One run: a few people live through a whole cycle while chance decides what happens next and what goes wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

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
from tests.simulation.scene import Do, Scene
from tests.simulation.services import ORDER
from tests.simulation.stage import Stage

PEOPLE: Final = (1, 1, 1, 2)
AFTERMATH: Final = timedelta(days=3)
LOOKS: Final = 4  # of so many steps of people one is preceded by a look,
LOOKS_UNDER_WAY: Final = 150  # and of so many actions


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
        people = crowd(stage.cycle, PEOPLE[scene.chance.below(len(PEOPLE))], scene.seed)
        await self._begin(people)
        for (at, line, index), person, what in _timetable(people):
            await self._pass_to(at)
            rested = await self._drain()
            if scene.chance.below(LOOKS) == LOOKS - 1:
                await self._looking.look(at_rest=rested and not scene.late, until=(at, line - 1, index))
            if isinstance(what, WorldEvent):
                await set_desk_window(self._doors, what)
            elif person is not None:
                standing = self._standings[person]
                standing.note(what, await self._acts.do(standing, what))
        await self._pass_to(max(scene.now(), stage.cycle.windows.payment.closes) + AFTERMATH)
        scene.mood = Mood()
        stage.gateway.begin_calm()
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
        stage.gateway.begin(scene.chance, scene.mood.gateway)
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
        self._looking = Looking(scene, people, identities, self._standings, self._doors)
        self._calling.begin()
        self._looking.begin()

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
            if chance.below(LOOKS_UNDER_WAY) == LOOKS_UNDER_WAY - 1:
                await self._looking.look(at_rest=False)
            await self._acting.step(ready)
        return True

    async def _act(self, request: Do, service: str, twin: Do | None) -> bool:
        """A person's request, perhaps while something else of the system happens, or while they ask the same once more."""
        action = Action("request", service, f"request to {service}", request)
        again = Action("request", service, f"the same request to {service}", twin) if twin else None
        return await self._acting.do(action, self._acting.ready(), again)


Moment = tuple[datetime, int, int]


def _timetable(people: People) -> Sequence[tuple[Moment, str | None, Step | WorldEvent]]:
    """What people and the office do, in the order of moment and file."""
    found: list[tuple[Moment, str | None, Step | WorldEvent]] = [
        ((event.at, event.line, event.index), None, event) for event in people.world
    ]
    for person in people.persons:
        found += [((step.at, person.line, step.index), person.name, step) for step in person.steps]
    return sorted(found, key=lambda one: one[0])
