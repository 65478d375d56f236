"""A fault run: the real local system, a seeded crowd that lives through the whole cycle, somebody who breaks things, and
at rest the invariants, with what was checked and proof that each fault was really reached.

    async def breaks(battle: Battle) -> None:
        await battle.until(0.1)                                   # a tenth of the crowd's steps done
        await battle.dies("payment", "before-commit", row=9)      # killed at a named crash point, started again
        battle.reached["what proves it"] += 1                     # or any other counter of your own

    fought = await fight(tmp_path, breaks, people=40)
    fought.holds(rows={9: "payment died at before-commit"})

A fault that was not reached fails the run, and so does a counter that stays at 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar, Final

import orjson
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from rich.console import Console

from contracts.cycle import Cycle
from deploy.local.system import LocalSystem, Service
from deploy.rehearsal import doors as rehearsal_doors
from deploy.rehearsal import people_file
from deploy.rehearsal.agenda import Agenda
from deploy.rehearsal.commands import TOGETHER, Rehearsal
from deploy.rehearsal.crowd import crowd
from deploy.rehearsal.doors import Answer, Doors
from deploy.rehearsal.driver import Driver
from deploy.rehearsal.identity import invent_all
from deploy.rehearsal.invariants import judge
from deploy.rehearsal.invariants.evidence import Evidence, Finding
from deploy.rehearsal.outcomes import Outcome
from deploy.rehearsal.people import Verb, WorldVerb
from deploy.rehearsal.people_file import callbacks
from deploy.rehearsal.standing import Standing
from deploy.rehearsal.streams import Streams
from deploy.rehearsal.world import _End
from services.chassis.wire import NoAnswer, Wires
from tests.model.office import Predicted, predict

CYCLE: Final = Path(__file__).parents[2] / "deploy" / "cycles" / "2024-health-leshan.toml"
KILLED: Final = 137
PATIENCE: Final = 60.0  # real seconds for a fault to be reached
SOON: Final = 60  # virtual seconds
_COUNTER: Final = re.compile(r"^(kaowu_\w+?)(?:_total)?(\{[^}]*\})? (\S+)$", re.MULTILINE)


class NotReached(AssertionError):
    """The fault never happened: the run proves nothing."""


class KeyedDoors(Doors):
    """A request hit by a fault is repeated with the key it had the first time, as people's browsers do."""

    asked = 0
    open = asyncio.Event()
    """Cleared while nobody may come in."""
    pause = 0.0
    """Real seconds that everybody takes before a request, so that something else can happen between."""
    beside: ClassVar[dict[str, str]] = {}
    """A service's public address → that of another process of it: every second request goes there."""

    async def ask(
        self, what: str, method: str, url: str, headers: Mapping[str, str], body: object | None = None
    ) -> Answer:
        await self.open.wait()
        await asyncio.sleep(self.pause)
        type(self).asked += 1
        if self.asked % 2:
            for one, other in self.beside.items():
                url = other + url.removeprefix(one) if url.startswith(f"{one}/") else url
        return await super().ask(
            what, method, url, {"idempotency-key": f"fault-run-{type(self).asked}", **headers}, body
        )


@dataclass(kw_only=True)
class Ground:
    """A local system that is broken on purpose, and proof of what was reached. With or without a crowd in it."""

    system: LocalSystem
    reached: Counter[str] = field(default_factory=Counter)

    async def eventually(
        self, look: Callable[[], bool | Awaitable[bool]], what: str, within: float = PATIENCE
    ) -> None:
        """Raises NotReached when it does not come true."""
        deadline = time.monotonic() + within
        while True:
            try:
                answer = look()
                if await answer if not isinstance(answer, bool) else answer:
                    return
            except (NoAnswer, OSError):
                pass  # whoever is asked is away, which is what a fault run is about
            if time.monotonic() > deadline:
                raise NotReached(f"{what}: not within {within:.0f} s")
            await asyncio.sleep(0.05)

    async def dies(self, service: str, point: str, turn: int = 1, *, comes_back: bool = True) -> None:
        """The service is started with this crash point armed, reaches it and dies as `kill -9`, and is started again."""
        armed = {"KAOWU_CRASH_AT": f"{point}:{turn}"}
        await self.system.restart(service, armed, wait=False)
        process = self.system.services[service].process
        await self.eventually(lambda: not process.alive, f"{service} reaching {point}")
        if process.exit_code != KILLED:
            raise NotReached(
                f"{service} ended with {process.exit_code} and not at {point}: {process.tail(5)}"
            )
        self.reached[f"{service} died at {point}"] += 1
        if comes_back:
            await self.system.restart(service)

    async def metric(self, name: str, *services: Service, label: str = "") -> float:
        """The sum of a counter over these processes (all services unless named) and all labels, or those with this value."""
        total = 0.0
        async with Wires(connections=8, patience=5.0, limit=1 << 24) as wires:
            for service in services or tuple((self.system.services | self.system.replicas).values()):
                answer = await wires.request("GET", f"{service.internal_url}/metrics", {})
                total += sum(
                    float(value)
                    for found, labels, value in _COUNTER.findall(answer.body.decode())
                    if found == name and (not label or f'"{label}"' in labels)
                )
        return total

    async def ready(self, service: Service) -> Mapping[str, Any]:
        """What the process says of itself on /ready."""
        async with Wires(connections=1, patience=5.0, limit=1 << 20) as wires:
            found: Mapping[str, Any] = orjson.loads(
                (await wires.request("GET", f"{service.internal_url}/ready", {})).body
            )
            return found

    async def members(self, group: str) -> int:
        """How many members the broker counts in a consumer group."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.system.kafka_bootstrap)
        await admin.start()
        try:
            (answer,) = await admin.describe_consumer_groups([group])
            return len(answer.to_object()["groups"][0]["members"])
        finally:
            await admin.close()

    async def grows(self, counter: str, since: float, name: str, *services: Service) -> None:
        """Until this counter exceeds what it was; `name` is what is then reached."""

        async def more() -> bool:
            return await self.metric(counter, *services) > since

        await self.eventually(more, f"{name} ({counter} > {since:.0f})")
        self.reached[name] += 1


@dataclass(kw_only=True)
class Battle(Ground):
    """What somebody who breaks things can see and do while a crowd goes on."""

    driver: Driver
    streams: Streams
    steps: int
    standings: Mapping[str, Standing]
    planted: set[tuple[str, int, int]] = field(default_factory=set)
    """Topic, partition and offset of records that no service wrote: the invariants are not asked about them."""

    async def until(self, share: float) -> None:
        """Until this share of the crowd's steps is done."""
        await self.eventually(
            lambda: self.driver.timing.steps >= share * self.steps, f"{share:.0%} of the steps", within=240
        )

    def about_to_pay(self) -> list[str]:
        """Registrations of those who have not paid and will, and whose gateway will say so at once."""
        return [
            one.registration_id
            for one in self.standings.values()
            if one.registration_id
            and not any(done.verb == Verb.PAY for done in one.done)
            and any(
                step.verb is Verb.PAY and any(seconds <= SOON for seconds in callbacks(step.fields))
                for step in one.person.steps
            )
        ]

    @contextlib.asynccontextmanager
    async def heedless(self) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
        """Inside, people act whether or not what they did before has arrived everywhere; what is too early is refused.

        Where events do not flow, a crowd that waits for them would only prove that it waits. Gives `further(8)`: eight
        more steps, and then everybody waits again.
        """

        async def nothing() -> None: ...

        never = _End(datetime.max.replace(tzinfo=UTC), WorldVerb.BROKER_DOWN, (), nothing)
        self.driver._world._ends.append(never)
        self.streams.faulted = True
        moments = self.driver.timing.moments
        # Whoever waits already gets what he waits for first: enter before the fault begins.
        await self.eventually(lambda: self.driver.timing.moments > moments, "a moment of its own", within=120)

        async def further(steps: int) -> None:
            enough = min(self.driver.timing.steps + steps, self.steps)
            await self.eventually(lambda: self.driver.timing.steps >= enough, f"{steps} steps", within=120)
            self.driver._world._ends.remove(never)

        try:
            yield further
        finally:
            if never in self.driver._world._ends:
                self.driver._world._ends.remove(never)

    @asynccontextmanager
    async def doors_closed(self) -> AsyncIterator[None]:
        """Nobody does anything meanwhile, and time stands still; what was said before goes its way."""
        KeyedDoors.open.clear()
        try:
            yield
        finally:
            KeyedDoors.open.set()


Breaks = Callable[[Battle], Awaitable[None]]


def without(evidence: Evidence, planted: Collection[tuple[str, int, int]]) -> Evidence:
    """The same system as if somebody had not put these records on its topics."""
    places = {f"{topic} {partition}:{offset}" for topic, partition, offset in planted}
    return replace(
        evidence,
        records={
            topic: [one for one in records if (topic, one.partition, one.offset) not in planted]
            for topic, records in evidence.records.items()
        },
        unreadable=[one for one in evidence.unreadable if one.partition(": ")[0] not in places],
        parked=[one for one in evidence.parked if (one.topic, one.partition, one.offset) not in planted],
    )


@dataclass(frozen=True)
class Fought:
    """A run that came to its end."""

    findings: list[Finding]
    reached: Mapping[str, int]
    steps: int
    seconds: float
    evidence: Evidence | None = None
    outcomes: Sequence[Outcome] = ()
    predicted: Mapping[str, Predicted] = field(default_factory=dict)

    def as_the_rules_say(self) -> None:
        """What became of each person is what the rules alone say: nobody noticed that anything was broken."""
        assert self.outcomes
        other = []
        for one in self.outcomes:
            rule = self.predicted[one.person]
            found = (one.state, one.paid_fen, sorted(one.refused))
            if found != (expected := (rule.state, rule.paid_fen, sorted(rule.refused))):
                other.append(f"{one.person}: {found}, the rules say {expected}")
        assert not other, "\n".join(other[:20])

    def holds(self, rows: Mapping[int, str]) -> None:
        """Every invariant holds, something was checked for each, and the counter of every row of the matrix is above 0."""
        broken = [
            f"{one.id} {one.title}: {violation}" for one in self.findings for violation in one.violations
        ]
        assert not broken, "\n".join(broken[:20])
        missed = [f"row {row}: {name}" for row, name in rows.items() if not self.reached.get(name)]
        assert not missed, f"not reached: {missed}; reached: {dict(self.reached)}"

    def summary(self) -> str:
        checked = "; ".join(f"{one.id} {one.checked}" for one in self.findings)
        return f"{self.steps} steps, {self.seconds:.0f} s, reached {dict(self.reached)}; checked {checked}"


async def fight(
    directory: Path,
    breaks: Breaks,
    *,
    people: int = 40,
    seed: int = 4,
    extra: Mapping[str, str] | None = None,
    at_rest: Breaks | None = None,
    given: Mapping[str, str] | None = None,
    code: Mapping[str, Path] | None = None,
) -> Fought:
    """A whole cycle of `people` while `breaks` goes on. Raises NotReached, or what stopped the rehearsal.

    `at_rest`: what is done with the system when everything has come to rest and the evidence is taken.
    `given`: where parts run that somebody else started, as the local system reads it from the environment.
    `code`: the checkout of a service that begins in another version.
    """
    notice = Cycle.read(CYCLE)
    crowded = crowd(notice, people, seed)
    identities = invent_all(crowded, seed)
    standings = {one.name: Standing(one, identities[one.name], one.site) for one in crowded.persons}
    steps = sum(len(person.steps) for person in crowded.persons)
    reached: Counter[str] = Counter()
    started = time.monotonic()

    battles: list[Battle] = []
    KeyedDoors.open.set()
    KeyedDoors.pause, KeyedDoors.beside = 0.0, {}

    async def beside(driver: Driver, streams: Streams) -> None:
        battles.append(
            Battle(
                system=system,
                driver=driver,
                streams=streams,
                steps=steps,
                reached=reached,
                standings=standings,
            )
        )
        await breaks(battles[0])

    with pytest.MonkeyPatch.context() as patch:
        # Whoever finds a service away comes again for as long as a fault may last.
        patch.setattr(rehearsal_doors, "PATIENCE", 120.0)
        async with LocalSystem(
            directory / "system",
            CYCLE,
            "virtual",
            starts_at=Agenda(crowded, notice, standings).first_at,
            fresh=True,
            environ={**os.environ, **(given or {})},
            extra={**TOGETHER, **(extra or {})},
            code=code,
        ) as system:
            console = Console(file=StringIO())
            rehearsal = Rehearsal(
                system, crowded, identities, standings, console, seed, doors=KeyedDoors, beside=beside
            )
            (directory / "report").mkdir(exist_ok=True)
            run = await rehearsal.run(directory / "report")
            (battle,) = battles
            if at_rest is not None:
                await at_rest(battle)
    found = Fought(
        judge(without(run.evidence, battle.planted)),
        dict(reached),
        steps,
        time.monotonic() - started,
        run.evidence,
        run.outcomes,
        predict(people_file.dump(crowded).split("\n")),
    )
    print(found.summary())
    return found
