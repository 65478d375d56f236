"""One run: a few people live through a whole cycle while chance decides what happens next and what goes wrong."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition

from contracts.cycle import Cycle
from contracts.topics import TOPICS
from deploy.rehearsal import outcomes, people_file
from deploy.rehearsal.acts import Acts, Addresses
from deploy.rehearsal.crowd import crowd
from deploy.rehearsal.identity import invent_all
from deploy.rehearsal.invariants import judge
from deploy.rehearsal.invariants.evidence import Evidence
from deploy.rehearsal.invariants.privacy import Canaries
from deploy.rehearsal.invariants.reading import read_database, read_records, subscriptions_of
from deploy.rehearsal.people import People, Step, WorldEvent, WorldVerb
from deploy.rehearsal.standing import Standing
from deploy.simulators.order_book import Refusal
from services.chassis.clock import ClockControl
from services.chassis.jobs import Job
from services.chassis.relay import Relay
from services.payment.settings import NOTIFY_PATH
from tests.model.office import predict
from tests.simulation.broker import Place, SimulatedBroker, SimulatedMember
from tests.simulation.chance import Chance
from tests.simulation.doors import SimulatedDoors
from tests.simulation.ids import Ids
from tests.simulation.lives import Interleaver, armed, at_gate, live
from tests.simulation.outside import Manners, SimulatedCarriers, SimulatedGateway
from tests.simulation.services import ORDER, SECRET, Services, call

PEOPLE: Final = (1, 1, 1, 2)
MOST_ACTIONS: Final = 6000
AFTERMATH: Final = timedelta(days=3)
RUNS_A_VACUUM: Final = 50
# Whether a relay whose poll ended has anything left to look for: it looks again, and what holds its horizon ends.
_LEFT = """
select exists (select from outbox o, relay_cursor c
               where o.xid >= c.lower and (c.upper is null or o.xid >= c.upper or o.id > c.last_id))
"""


class Violation(AssertionError):
    """An invariant or the model was broken; its text names which."""


@dataclass(frozen=True, slots=True)
class Mood:
    """How rough a run is, per mille of the occasions. A `late` one lets time pass over work that waits."""

    late: bool
    delay: float
    lost: float
    commit_lost: float
    again: float
    crash: float
    meet: float
    gateway: Manners
    carriers: Manners

    @classmethod
    def of(cls, chance: Chance) -> Mood:
        """Some runs are calm in one respect or another, so that each kind of trouble is also met alone."""

        def rate(most: int) -> float:
            return (0, most // 4, most, most)[chance.below(4)]

        late = chance.below(4) == 3
        return cls(
            late=late,
            delay=rate(150) if late else 0,
            lost=rate(80),
            commit_lost=rate(60),
            again=rate(40),
            crash=rate(40),
            meet=rate(120),
            gateway=Manners(away=rate(100), unheard=rate(100)) if late else Manners(unheard=rate(60)),
            carriers=Manners(rate(40), rate(40), rate(40), rate(30)) if chance.below(3) == 2 else Manners(),
        )


@dataclass(frozen=True, slots=True)
class Action:
    kind: str
    service: str
    what: str
    run: Callable[[], Awaitable[None]]
    shared: bool = False
    """Every process of the service may do it at the same time."""


def _may_meet(one: Action, other: Action) -> bool:
    """Two relays of a service, or one of its exclusive jobs twice, are kept apart by a lock of the database."""
    return one.kind != other.kind or one.what != other.what or one.shared


class Cleaning(NamedTuple):
    """How a database is emptied after each run, in one round trip, and how its space is freed after many."""

    wipe: str
    vacuum: str


@dataclass
class Stage:
    """What runs are played on, made once: services, clock, broker, outside, and connections to look and to clean."""

    services: Services
    control: ClockControl
    broker: SimulatedBroker
    relays: Mapping[str, tuple[Relay, Any]]
    superuser: Mapping[str, Any]
    interleaver: Interleaver
    cleaning: Mapping[str, Cleaning]
    cycle: Cycle
    ids: Ids
    runs: int = 0

    @property
    def gateway(self) -> SimulatedGateway:
        return self.services.gateway

    @property
    def carriers(self) -> SimulatedCarriers:
        return self.services.carriers

    async def clean(self) -> None:
        """Nothing of an earlier run is left."""
        for name in ORDER:
            await self.superuser[name].execute(self.cleaning[name].wipe)
            if self.runs % RUNS_A_VACUUM == RUNS_A_VACUUM - 1:
                await self.superuser[name].execute(self.cleaning[name].vacuum)
        self.runs += 1
        self.broker.forget()


@dataclass
class Told:
    """What a run came to."""

    seed: int
    late: bool
    digest: str
    actions: int
    reached: Mapping[str, int]
    plan: Mapping[int, int]


@dataclass
class Run:
    stage: Stage
    seed: int
    chance: Chance
    mood: Mood = field(init=False)
    actions: int = 0
    _heap: list[tuple[datetime, int, str, Callable[[], Awaitable[None]]]] = field(default_factory=list)
    _numbers: Any = field(default_factory=itertools.count)
    _members: dict[str, SimulatedMember] = field(default_factory=dict)
    trace: list[str] = field(default_factory=list)

    # The run

    async def play(self) -> Told:
        """To the end of the cycle and until nothing is due. Raises Violation."""
        stage, chance = self.stage, self.chance
        self.mood = Mood.of(chance)
        people = crowd(stage.cycle, PEOPLE[chance.below(len(PEOPLE))], self.seed)
        await self._begin(people)
        standings = self._standings
        for at, person, what in _timetable(people):
            await self._pass_to(at)
            await self._drain()
            if isinstance(what, WorldEvent):
                await self._world(what)
            elif person is not None:
                standing = standings[person]
                standing.note(what, await self._acts.do(standing, what))
        await self._pass_to(max(self._now(), stage.cycle.windows.payment.closes) + AFTERMATH)
        self.mood = Mood(False, 0, 0, 0, 0, 0, 0, Manners(), Manners())
        stage.gateway.begin_calm()
        stage.carriers.begin_calm()
        await self._pass_to(self._now() + AFTERMATH)
        await self._judge(people)
        return Told(
            self.seed,
            bool(self._late),
            self._digest,
            self.actions,
            dict(chance.reached),
            chance.plan,
        )

    async def _begin(self, people: People) -> None:
        stage = self.stage
        await stage.clean()
        stage.ids.begin(self.seed)
        self._late = self.mood.late
        stage.gateway.begin(self.chance, self.mood.gateway)
        stage.carriers.begin(self.chance, self.mood.carriers)
        stage.carriers.later, stage.carriers.push = self._later, self._push_receipts
        stage.broker.weather = self._weather
        for name in ORDER:
            topics = [topic.name for topic in TOPICS.values() if name in topic.consumers]
            self._members[name] = stage.broker.member(name, topics)
            stage.services.restart(name)
        stage.control._write(stage.cycle.windows.pre_registration.opens - timedelta(days=1), 0.0)
        identities = invent_all(people, self.seed)
        self._identities = identities
        self._standings = {one.name: Standing(one, identities[one.name], one.site) for one in people.persons}
        self._doors = SimulatedDoors(stage.services, self._act, self._pay)
        self._acts = Acts(
            self._doors,  # type: ignore[arg-type]  # the same questions and answers, without sockets
            Addresses("sim://registration", "sim://confirmation", "sim://payment", "sim://simulators"),
            stage.cycle,
        )
        self._office = self._doors.headers("office", "office")

    def _now(self) -> datetime:
        return self.stage.control.now()

    async def _pass_to(self, at: datetime) -> None:
        """Time goes on, and stops wherever something is due."""
        while True:
            await self._drain()
            due = self._next_due()
            if due is None or due > at:
                break
            if due > self._now():
                self.stage.control.jump(due)
        if at > self._now():
            self.stage.control.jump(at)

    def _next_due(self) -> datetime | None:
        moments = [job.due_at for _, job in self.stage.services.jobs() if job.due_at is not None]
        if self._heap:
            moments.append(self._heap[0][0])
        future = [at for at in moments if at > self._now()]
        return min(future, default=None)

    async def _drain(self) -> None:
        """Everything that can happen now does, in an order that chance decides."""
        while ready := self._ready():
            if self.chance.happens("work put off", self.mood.delay):
                return
            action = self.chance.pick(ready)
            await self._do(action, ready)

    async def _do(self, action: Action, ready: Sequence[Action]) -> bool:
        """Alone or with something else at the same time. Whether it lived."""
        if self.chance.happens("two at once", self.mood.meet):
            other = self._company(action, ready)
            if other is not None:
                return await self._both(action, other)
        return await self._one(action)

    def _company(self, action: Action, ready: Sequence[Action]) -> Action | None:
        """What happens at the same time: most often something of the same service, where they may touch the same rows."""
        there = [one for one in ready if one is not action]
        alike = [
            one
            for one in (*there, *self._noise())
            if one.service == action.service and _may_meet(one, action)
        ]
        anybody = there if (there and not self.chance.below(3)) or not alike else alike
        return self.chance.pick(anybody) if anybody else None

    def _ready(self) -> list[Action]:
        now, services = self._now(), self.stage.services
        found = [
            Action("relay", name, f"{name}'s relay", self._relaying(name))
            for name in ORDER
            if name in services.dirty
        ]
        for name in ORDER:
            member = self._members[name]
            found += [
                Action("consume", name, f"{name} reads {place}", self._consuming(name, place))
                for place in member.waiting()
            ]
        for name, job in services.jobs():
            if job.awake.is_set() or (job.due_at is not None and job.due_at <= now):
                found.append(self._job(name, job))
        if self._heap and self._heap[0][0] <= now:
            found.append(Action("outside", self._whose(self._heap[0][2]), self._heap[0][2], self._outside))
        return found

    def _job(self, name: str, job: Job) -> Action:
        return Action("job", name, f"{name}'s {job.name}", self._working(job), shared=not job.exclusive)

    @staticmethod
    def _whose(what: str) -> str:
        return "notification" if what == "receipt" else "payment"

    # Actions and what goes wrong with them

    async def _one(self, action: Action) -> bool:
        self._count(action.what)
        with armed(self._turn_to_die(action.kind)) as death:
            lived = await live(action.run)
        if not lived:
            self._died(action, death.at)
        return lived

    async def _both(self, action: Action, other: Action) -> bool:
        """Whether the first lived."""
        self._count(f"{action.what} with {other.what}")
        before = self.stage.interleaver.met
        with armed(self._turn_to_die("two at once")) as death:
            lived = await self.stage.interleaver.both(
                self.chance, action.run, other.run, one_process=action.service == other.service
            )
        if self.stage.interleaver.met > before:
            self.chance.reached["one waited for the other's row"] += 1
        if not any(lived) and action.service == other.service:
            self.chance.reached["death with another transaction open"] += 1
        for one, alive in zip((action, other), lived, strict=True):
            if not alive:
                self._died(one, death.at)
        return lived[0]

    def _turn_to_die(self, what: str) -> int:
        """At which crash point of the action, or 0 for none."""
        return 1 + self.chance.below(6) if self.chance.happens(f"death in {what}", self.mood.crash) else 0

    def _count(self, what: str) -> None:
        self.actions += 1
        self.stage.carriers.next_action()
        self.trace.append(f"{self._now():%m-%d %H:%M:%S} {what}")
        if self.actions > MOST_ACTIONS:
            raise Violation("I11: the streams do not come to rest")

    def _died(self, action: Action, point: str) -> None:
        self.chance.reached[f"died at {point}"] += 1
        self.trace.append(f"    {action.service} died at {point}")
        if action.service == "notification":
            self.stage.carriers.sender_died()
        self.stage.services.restart(action.service)
        self._members[action.service].restart()

    async def _act(self, request: Callable[[], Awaitable[None]], service: str) -> bool:
        """A person's request, perhaps while something else of the system happens."""
        action = Action("request", service, f"request to {service}", request)
        return await self._do(action, self._ready())

    def _noise(self) -> list[Action]:
        """What may always happen: a relay looks, a job looks, a partition is read again."""
        found = [Action("relay", name, f"{name}'s relay", self._relaying(name)) for name in ORDER]
        found += [self._job(name, job) for name, job in self.stage.services.jobs()]
        for name in ORDER:
            member = self._members[name]
            found += [
                Action("consume", name, f"{name} reads {place} again", self._reading_again(name, place))
                for place in member.places
                if self.stage.broker.logs[place]
            ]
        return found

    def _reading_again(self, name: str, place: Place) -> Callable[[], Awaitable[None]]:
        async def read() -> None:
            await at_gate()
            records = self.stage.broker.logs[place][-5:]
            await self.stage.services.processes[name].consumers.on_batch(records)

        return read

    def _relaying(self, name: str) -> Callable[[], Awaitable[None]]:
        async def relay() -> None:
            self.stage.services.dirty.discard(name)
            one, connection = self.stage.relays[name]
            await at_gate()
            try:
                await one.once(connection, self.stage.broker)
                left = await connection.fetchval(_LEFT)
            except ConnectionError:
                left = True
            if left:
                self.stage.services.dirty.add(name)

        return relay

    def _weather(self, _place: Place) -> str:
        if self.chance.happens("batch lost", self.mood.lost):
            return "lost"
        return "unheard" if self.chance.happens("acknowledgement lost", self.mood.lost) else "ok"

    def _consuming(self, name: str, place: Place) -> Callable[[], Awaitable[None]]:
        async def consume() -> None:
            member = self._members[name]
            if self.chance.happens("offsets reset", self.mood.again / 8):
                member.rewind(place)
            records = await member.fetch(place, 1 + self.chance.below(8) * 3 if self.mood.again else 500)
            if not records:
                return
            if self.chance.happens("delivered twice at once", self.mood.again):
                records = [record for record in records for _ in range(2)]
            await self.stage.services.processes[name].consumers.on_batch(records)
            if self.chance.happens("offset commit lost", self.mood.commit_lost):
                member.restart()
            else:
                await member.commit(place)

        return consume

    def _working(self, job: Job) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            await self.stage.services.run_job(job)

        return work

    async def _outside(self) -> None:
        if self._heap:
            await heapq.heappop(self._heap)[3]()

    def _later(self, at: datetime, what: str, do: Callable[[], Awaitable[None]]) -> None:
        heapq.heappush(self._heap, (at, next(self._numbers), what, do))

    # The outside

    def _pay(self, order_no: str, after: list[float]) -> str | None:
        try:
            self.stage.gateway.book.pay(order_no, self._now(), [])
        except Refusal as refusal:
            return refusal.code
        for seconds in after:
            if not self.chance.happens("callback lost", self.mood.gateway.away):
                self._later(
                    self._now() + timedelta(seconds=seconds), "callback", self._calling_back(order_no)
                )
        return None

    def _calling_back(self, order_no: str, tries: int = 6) -> Callable[[], Awaitable[None]]:
        async def notify() -> None:
            body = self.stage.gateway.notice(order_no)
            repeat = self._calling_back(order_no, tries - 1)
            answered = False
            try:
                reply = await call(
                    self.stage.services.door("payment"), "POST", NOTIFY_PATH, {"simulated": "true"}, body
                )
                answered = reply.status == 204
            finally:
                again = self.chance.happens("callback twice", self.mood.again)
                if tries and (not answered or again):
                    self._later(self._now() + timedelta(seconds=15), "callback", repeat)

        return notify

    async def _push_receipts(self, receipts: list[dict[str, Any]]) -> None:
        path, body = f"/carriers/aliyun/receipts/{SECRET}", json.dumps(receipts).encode()
        answered = False
        try:
            reply = await call(self.stage.services.door("notification"), "POST", path, {}, body)
            answered = reply.status == 200
        finally:
            if not answered or self.chance.happens("receipt twice", self.mood.again):
                self._later(
                    self._now() + timedelta(seconds=30), "receipt", lambda: self._push_receipts(receipts)
                )

    async def _world(self, event: WorldEvent) -> None:
        if event.verb is not WorldVerb.SET_DESK_WINDOW:
            return
        body = {key: event.fields[key] for key in ("opens", "closes")} | {
            "reason": "公布确认时间",
            "reason_code": "announced",
        }
        url = f"sim://confirmation/office/desk-windows/{event.fields['site']}"
        answer = await self._doors.ask(f"window of {event.fields['site']}", "POST", url, self._office, body)
        assert answer.code is None, answer

    # The end

    async def _judge(self, people: People) -> None:
        evidence = await self._evidence()
        broken = [
            f"{found.id} {found.title}: {violation}"
            for found in judge(evidence)
            for violation in found.violations
        ]
        copies = self.stage.carriers
        broken += [
            f"I8: {count} copies of one message, and of only {copies.unknown[reference]} it was unknown what became of them"
            for reference, count in copies.taken.items()
            if count > 1 + copies.unknown[reference]
        ]
        addresses = {name: f"sim://{name}" for name in ORDER}
        lists = await outcomes.read_lists(self._doors, addresses, self._office)  # type: ignore[arg-type]
        found = {one.person: one for one in outcomes.outcomes(self._standings.values(), lists)}
        broken += self._money_and_place(found)
        if not self._late:
            broken += self._against_the_model(people, found)
        told = [
            (
                name,
                one.state,
                one.paid_fen,
                one.refused,
                sorted((m["occasion"], m["channel"], m["state"]) for m in one.messages),
            )
            for name, one in sorted(found.items())
        ]
        self._digest = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
        if broken:
            raise Violation("\n".join(broken[:12]))

    async def _evidence(self) -> Evidence:
        stage = self.stage
        evidence = Evidence(stage.cycle, subscriptions=subscriptions_of(ORDER))
        for name in ORDER:
            await read_database(evidence, name, stage.superuser[name], self._now())
        canaries = Canaries(self._identities)
        evidence.records = {topic.name: [] for topic in TOPICS.values() if topic.consumers}
        for (topic, number), log in stage.broker.logs.items():
            if topic in evidence.records:
                read_records(evidence, canaries, TopicPartition(topic, number), log)
        evidence.lag = {name: member.behind for name, member in self._members.items()}
        evidence.book = stage.gateway.booked()
        return evidence

    def _money_and_place(self, found: Mapping[str, Any]) -> list[str]:
        """Whoever paid in time has the place; whoever was approved and did not has none."""
        closes = self.stage.cycle.windows.payment.closes
        in_time = {
            one.order_no
            for one in self.stage.gateway.booked()
            if one.paid and one.paid_at and one.paid_at < closes
        }
        broken = []
        for name, standing in self._standings.items():
            state = found[name].state
            paid = any(order in in_time for order in standing.orders)
            if paid and state not in ("paid", "rejected"):
                broken.append(f"I2: {name} paid in time and is {state}")
            if not paid and state in ("paid", "approved"):
                broken.append(f"I7: {name} did not pay in time and is {state} after the close")
        return broken

    def _against_the_model(self, people: People, found: Mapping[str, Any]) -> list[str]:
        """Nobody came too late for what they did: the rules alone say what becomes of each."""
        asked_twice = {what.partition(",")[0] for what in self._doors.repeated}
        broken = []
        for name, expected in predict(people_file.dump(people).split("\n")).items():
            one = found[name]
            if one.state != expected.state or one.paid_fen != expected.paid_fen:
                broken.append(
                    f"model: {name} is {one.state} with {one.paid_fen} fen, the rules say {expected.state}, {expected.paid_fen}"
                )
            if name not in asked_twice and sorted(one.refused) != sorted(expected.refused):
                broken.append(f"model: {name} was refused {one.refused}, the rules say {expected.refused}")
        return broken


def _timetable(people: People) -> Sequence[tuple[datetime, str | None, Step | WorldEvent]]:
    """What people and the office do, in the order of moment and file."""
    found: list[tuple[datetime, int, int, str | None, Step | WorldEvent]] = [
        (event.at, event.line, event.index, None, event) for event in people.world
    ]
    for person in people.persons:
        found += [(step.at, person.line, step.index, person.name, step) for step in person.steps]
    return [(at, name, what) for at, _, _, name, what in sorted(found, key=lambda one: one[:3])]
