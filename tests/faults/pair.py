"""Two real services, confirmation and payment, in this process on real Kafka and real PostgreSQL: small enough that a fault
can be put exactly where it hurts, and judged by the same invariants as a whole system.

A desk confirms, two levels approve, one reviewer thinks again; payment hears of it and says what is due.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch
from uuid import UUID

import asyncpg
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from contracts.topics import TOPICS
from deploy.local.databases import SUPERUSER, DatabaseLogin
from deploy.rehearsal.invariants import judge
from deploy.rehearsal.invariants.evidence import Evidence
from deploy.rehearsal.invariants.privacy import Canaries
from deploy.rehearsal.invariants.reading import read_database, read_records, subscriptions_of
from services.chassis import crash
from services.chassis.consuming import Consumers, make_broker
from services.chassis.db import Database, UnitOfWork
from services.chassis.relay import Relay
from services.payment.consumers import HANDLERS
from tests.conftest import ServiceDatabase
from tests.faults.harness import without
from tests.faults.spoiling import records_of
from tests.service.confirmation.system import System
from tests.support.eventually import eventually
from tests.support.kafka import TestKafka
from tests.support.postgres import TestDatabases
from tests.unit.confirmation.cases import leshan, moment

SAID: Final = ("exam.confirmation", "exam.payment")
HEARD: Final = ("exam.registration", "exam.confirmation")  # by payment
GROUP: Final = "payment"
DESK, SITE, DISTRICT, AGAIN = "2023-12-10 09:00", "2023-12-20 10:00", "2024-01-10 10:00", "2024-01-15 10:00"
# Messages are notification's, and it is not here; personal data is looked for where whole systems run.
ELSEWHERE: Final = frozenset({"I8", "I16"})


class Died(BaseException):
    """A process ended here. Not an Exception: nothing in a service may catch it."""


@dataclass
class Gate:
    """Holds whoever passes it back before a statement that begins so, once, until it is opened."""

    before: str
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)


_GATE: ContextVar[Gate | None] = ContextVar("gate", default=None)


@contextlib.contextmanager
def gates() -> Iterator[None]:
    """Statements of tasks that were given a gate wait at it."""

    def gated(run: Callable[..., Any]) -> Callable[..., Any]:
        async def passing(uow: UnitOfWork, statement: str, *args: object) -> Any:
            gate = _GATE.get()
            if gate is not None and not gate.reached.is_set() and statement.strip().startswith(gate.before):
                gate.reached.set()
                await gate.opened.wait()
            return await run(uow, statement, *args)

        return passing

    with (
        patch.object(UnitOfWork, "sql", gated(UnitOfWork.sql)),
        patch.object(UnitOfWork, "changed", gated(UnitOfWork.changed)),
    ):
        yield


async def held_at(gate: Gate, doing: Any) -> asyncio.Task[Any]:
    """Begin this and return when it stands at its gate."""
    token = _GATE.set(gate)
    try:
        task: asyncio.Task[Any] = asyncio.create_task(doing)
    finally:
        _GATE.reset(token)
    await asyncio.wait(
        {task, waiting := asyncio.create_task(gate.reached.wait())}, return_when="FIRST_COMPLETED"
    )
    waiting.cancel()
    assert gate.reached.is_set(), f"it ended before it came to {gate.before!r}: {task}"
    return task


@contextlib.contextmanager
def dying_at(point: str) -> Iterator[Counter[str]]:
    """The first to reach this crash point ends there, as at `kill -9`; once."""
    deaths: Counter[str] = Counter()

    def die() -> None:
        deaths[point] += 1
        crash._name = ""
        raise Died(point)

    with (
        patch.object(crash, "_name", point),
        patch.object(crash, "_left", 1),
        patch.object(crash, "_die", die),
    ):
        yield deaths


@dataclass
class Pair:
    """Both services, their topics empty at the start."""

    kafka: TestKafka
    desk: System
    owing: DatabaseLogin
    payment: Database
    superuser: Any
    """A connection to payment's database that the service does not know of."""
    give: ServiceDatabase
    directory: Path
    others: dict[str, DatabaseLogin] = field(default_factory=dict)
    """Databases of further services that a scene has let take part."""
    planted: set[tuple[str, int, int]] = field(default_factory=set)
    """Records that no service wrote: the invariants are not asked about them."""
    reached: Counter[str] = field(default_factory=Counter)
    people: list[UUID] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    """Violations that were seen on the way."""

    # The story

    async def confirmed(self, many: int = 4) -> None:
        """So many candidates stood at the desk."""
        self.people = await self.desk.confirmed(many=many, at=DESK)

    async def reviewed(self) -> None:
        """The first level has approved everybody, and the last level's days have come."""
        if self.desk.clock.now() < moment(DISTRICT):
            self.desk.at(SITE)
            await self.approve("site", *self.people)
            self.desk.at(DISTRICT)

    async def approved(self, *people: UUID) -> None:
        """The last level approves these, or everybody: from now on they owe."""
        await self.reviewed()
        await self.approve("district", *(people or self.people))

    async def rejected(self, *people: UUID) -> None:
        """The first level thinks again about these: nothing is owed any more."""
        self.desk.at(AGAIN)
        answer = await self.reject(None, *people)
        results = answer.json()["results"]
        assert all(one["state"] == "rejected" for one in results), results

    async def reject(self, key: str | None, *people: UUID) -> Any:
        """The first level rejects these now; with a key of idempotence, if one is given."""
        body = {"decisions": [_reject(one) for one in people]}
        return await self.desk.call("POST", "/review/site/decisions", "reviewer:site", body, key=key)

    async def approve(self, level: str, *people: UUID) -> None:
        for one in await self.desk.approve(level, *people):
            assert "state" in one, one

    async def no_constraint(self, kind: str, name: str) -> None:
        """Confirmation's database does no longer insist on this (a pattern of constraints' names, in every partition)."""
        connection = await asyncpg.connect(self.desk_login.dsn)
        try:
            found = await connection.fetch(
                "select conrelid::regclass::text as of, conname as name from pg_constraint "
                "where contype::text = $1 and conname like $2 and coninhcount = 0",
                kind,
                name,
            )
            assert found, f"no constraint is named {name}"
            for one in found:
                await connection.execute(f"alter table {one['of']} drop constraint {one['name']}")
        finally:
            await connection.close()

    async def no_index(self, name: str) -> None:
        """Nor on what this index makes unique."""
        connection = await asyncpg.connect(self.desk_login.dsn)
        try:
            await connection.execute(f"drop index {name}")
        finally:
            await connection.close()

    # What runs

    def relay(self, service: str = "confirmation", kind: type[Relay] = Relay) -> Relay:
        return kind(self.logins[service].url, self.kafka.bootstrap, service=service)

    @contextlib.asynccontextmanager
    async def relaying(self, *relays: Relay) -> AsyncIterator[None]:
        """These run; without any, one of each service."""
        running = relays or (self.relay(), self.relay("payment"))
        tasks = [asyncio.create_task(relay.run()) for relay in running]
        try:
            yield
        finally:
            for relay in running:
                relay.stop()
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)

    @contextlib.asynccontextmanager
    async def consuming(self, group: str = GROUP) -> AsyncIterator[Consumers]:
        """A member of payment's group; of another group, whoever reads everything once more."""
        deps = {"cycle": leshan(), "ask_gateway": _nothing, "close_again": _nothing, "refund_soon": _nothing}
        consumers = Consumers(HANDLERS, database=self.payment, service=group, deps=deps)
        broker = make_broker(self.kafka.bootstrap, service=group)
        consumers.subscribe(broker)
        await broker.start()
        try:
            yield consumers
        finally:
            await broker.stop()

    async def rests(self, group: str | None = GROUP, within: float = 60.0) -> None:
        """Everything that was said is published, and this group has taken in what there is."""

        async def all_done() -> bool:
            return await self.is_at_rest(group)

        await eventually(all_done, within=within, every=0.1, because="the pair does not come to rest")

    async def is_at_rest(self, group: str | None = GROUP) -> bool:
        """Whether everything that was said is published, and this group has taken in what there is."""
        # What is out is taken in, and what that led to is out: asked in this order, or something is between the two looks.
        return (
            not await self._unpublished()
            and (group is None or not await self._lag(group))
            and not await self._unpublished()
        )

    async def _unpublished(self) -> int:
        evidence = Evidence(leshan())
        await self._read(evidence)
        return sum(evidence.unpublished.values())

    async def _lag(self, group: str) -> int:
        places = [TopicPartition(name, number) for name in HEARD for number in range(TOPICS[name].partitions)]
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap)
        await admin.start()
        try:
            taken = await admin.list_consumer_group_offsets(group, partitions=places)
        finally:
            await admin.close()
        found: Counter[TopicPartition] = Counter()
        for record in await records_of(self.kafka.bootstrap, *HEARD):
            found[TopicPartition(record.topic, record.partition)] += 1
        return sum(many > max(0, taken[place].offset) for place, many in found.items())

    # What is there

    async def violations(self) -> list[str]:
        """What the invariants say of the services, as `I4 …`."""
        heard = ["payment", *self.others]
        evidence = Evidence(leshan(), subscriptions=subscriptions_of(heard))
        await self._read(evidence)
        said = [*SAID, *(f"exam.{name}" for name in self.others)]
        evidence.records = {topic: [] for topic in said}
        canaries = Canaries({})
        for record in await records_of(self.kafka.bootstrap, *said):
            read_records(evidence, canaries, TopicPartition(record.topic, record.partition), [record])
        evidence.lag = {GROUP: await self._lag(GROUP)}
        return [
            f"{found.id} {violation}"
            for found in judge(without(evidence, self.planted))
            if found.id not in ELSEWHERE
            for violation in found.violations
        ]

    async def _read(self, evidence: Evidence) -> None:
        for service, login in self.logins.items():
            connection = await asyncpg.connect(login.dsn)
            try:
                await read_database(evidence, service, connection, self.desk.clock.now())
            finally:
                await connection.close()

    @property
    def logins(self) -> dict[str, DatabaseLogin]:
        """Every service that takes part, by its database."""
        return {"confirmation": self.desk_login, "payment": self.owing, **self.others}

    @property
    def desk_login(self) -> DatabaseLogin:
        return DatabaseLogin.of(self.desk.settings.database_url)


def _reject(registration_id: UUID) -> dict[str, object]:
    return {"registration_id": str(registration_id), "decision": "reject", "reason_codes": ["education"]}


def _nothing() -> None: ...


@contextlib.asynccontextmanager
async def pair(
    kafka: TestKafka, databases: TestDatabases, give: ServiceDatabase, directory: Path
) -> AsyncIterator[Pair]:
    """Made anew for each run: four candidates have been confirmed."""
    await kafka.fresh({name: TOPICS[name].partitions for name in {*SAID, *HEARD}})
    directory.mkdir(parents=True)
    desk, owing = await give("confirmation"), await give("payment")
    system = System(desk, directory)
    payment = Database(owing.url, clock=system.process.plumbing.clock, pool_size=4, application="payment")
    superuser = await asyncpg.connect(databases.server.login(owing.database, SUPERUSER).dsn)
    made = Pair(kafka, system, owing, payment, superuser, give, directory)
    try:
        await made.confirmed()
        with gates():
            yield made
    finally:
        await superuser.close()
        await payment.dispose()
        await system.end()
