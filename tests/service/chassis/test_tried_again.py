"""What an infrastructure's fault breaks off is tried again whole and has its effect once: rows 28, 29, 31 and 32 of the
fault matrix, each at the one statement where it bites."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest
from aiokafka import ConsumerRecord
from fastapi import APIRouter
from joserfc.jwk import KeySet, OKPKey
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from contracts import confirmation
from contracts.envelope import Envelope
from deploy.local.databases import DatabaseLogin
from services.chassis import db as databases
from services.chassis.clock import SystemClock
from services.chassis.consuming import Consumers, Record
from services.chassis.db import Database, OutcomeUnknown, UnitOfWork, driver_url
from services.chassis.http import Doorkeeper, RequestScope, make_app, open_to_all
from services.chassis.idempotency import idempotent
from services.chassis.tokens import Actor, TokenVerifier
from tests.support.eventually import eventually
from tests.support.postgres import TestDatabases
from tests.support.proxy import UP, LimitTo, Proxy
from tests.support.streams import confirmed, make_tables, note, say

SOMEBODY = Actor("somebody", frozenset())
COMMIT = b"COMMIT;"


@dataclass
class Bench:
    """A small service with two doors over a database that others touch too."""

    login: DatabaseLogin
    databases: TestDatabases
    db: Database
    batches: list[list[UUID]] = field(default_factory=list)

    # Door 2

    def consumers(self) -> Consumers:
        async def move(uow: UnitOfWork, events: Sequence[confirmation.Confirmed]) -> None:
            """Locks a row for every event, in their order."""
            self.batches.append([event.registration_id for event in events])
            for event in events:
                await say(uow, event.registration_id)
            await note(uow, events)

        return Consumers({confirmation.Confirmed: move}, database=self.db, service="test")

    # Door 1

    def application(self) -> RequestScope:
        router = APIRouter()

        @router.post("/pairs/{first}/{second}/{key}", dependencies=[open_to_all("a test")])
        async def pair(first: UUID, second: UUID, key: str) -> dict[str, Any]:
            async with self.db.unit_of_work() as uow:

                async def both() -> dict[str, Any]:
                    return {"versions": [await say(uow, first), await say(uow, second)]}

                return await idempotent(uow, actor=SOMEBODY, key=key, request=b"", run=both)

        keys = TokenVerifier(KeySet([OKPKey.generate_key("Ed25519")]))
        return make_app("test", [router], Doorkeeper(keys, SystemClock()))

    async def post(self, *path: object) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/" + "/".join(map(str, path)), "raw_path": b"", "query_string": b"", "headers": [],
            "server": ("test", 80), "client": ("test", 1), "root_path": "",
        }  # fmt: skip
        await self.application()(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in sent[1:])
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], json.loads(body), headers

    # Somebody else

    @asynccontextmanager
    async def rival(self) -> AsyncIterator[Any]:
        """Another session in a transaction, who never is the victim of a deadlock."""
        async with self.databases.server.connection(self.login.database) as connection:
            await connection.execute("set deadlock_timeout = '10min'")
            transaction = connection.transaction()
            await transaction.start()
            try:
                yield connection
            finally:
                await transaction.rollback()

    async def waits(self) -> None:
        """Until somebody waits for a lock."""
        async with self.databases.server.connection(self.login.database) as connection:

            async def one() -> bool:
                return bool(
                    await connection.fetchval(
                        "select count(*) from pg_stat_activity "
                        "where wait_event_type = 'Lock' and datname = current_database()"
                    )
                )

            await eventually(one, within=30)

    async def deadlocks(self) -> int:
        async with self.databases.server.connection(self.login.database) as connection:
            await connection.execute("select pg_stat_clear_snapshot()")
            return int(
                await connection.fetchval(
                    "select deadlocks from pg_stat_database where datname = current_database()"
                )
            )

    # What came of it

    async def all_rows(self, statement: str) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(driver_url(self.login.url))
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    async def versions(self) -> dict[UUID, int]:
        return dict(await self.all_rows("select id, version from cases"))

    async def effects(self) -> list[str]:
        return [key for (key,) in await self.all_rows("select key from effects order by n")]


def record(registration_id: UUID, offset: int) -> Record:
    event = confirmed(registration_id)
    envelope = Envelope(
        event_id=uuid7(), type=event.type, source=event.source, subject=event.key, time=SystemClock().now(),
        dataschema=event.dataschema(), sequence=1, correlation_id=str(uuid7()),
    )  # fmt: skip
    value = event.model_dump_json().encode()
    found: Record = ConsumerRecord(
        topic=event.topic, partition=0, offset=offset, timestamp=0, timestamp_type=0, key=event.key.encode(),
        value=value, checksum=None, serialized_key_size=0, serialized_value_size=len(value),
        headers=envelope.headers(),
    )  # fmt: skip
    return found


@pytest.fixture
async def bench(blank_database: DatabaseLogin, databases: TestDatabases) -> AsyncIterator[Bench]:
    await make_tables(blank_database)
    made = Bench(blank_database, databases, Database(blank_database.url, clock=SystemClock(), pool_size=4))
    yield made
    await made.db.dispose()


@pytest.fixture
async def linked(bench: Bench) -> AsyncIterator[Proxy]:
    """The service's link to its database goes through this."""
    port = urlsplit(bench.login.url).port
    assert port is not None
    async with Proxy(port) as proxy:
        await bench.db.dispose()
        bench.db = Database(
            bench.login.url.replace(f":{port}/", f":{proxy.port}/"), clock=SystemClock(), pool_size=4
        )
        yield proxy
        await bench.db.dispose()


async def existing(bench: Bench, count: int = 2) -> list[UUID]:
    people = [uuid7() for _ in range(count)]
    async with bench.db.unit_of_work() as uow:
        for person in people:
            await say(uow, person)
    return people


async def deadlocked(bench: Bench, first: UUID, second: UUID, act: Callable[[], Awaitable[Any]]) -> Any:
    """`act` locks first and then second, while somebody else does it the other way round; it is broken off, not he."""
    before = await bench.deadlocks()
    async with bench.rival() as rival:
        await rival.execute("update cases set version = version where id = $1", second)
        acting = asyncio.ensure_future(act())
        await bench.waits()
        await rival.execute("update cases set version = version where id = $1", first)
    answer = await acting

    async def counted() -> bool:
        return await bench.deadlocks() == before + 1

    await eventually(counted, within=30, because="the database counts no deadlock")
    return answer


async def test_a_batch_in_a_deadlock_is_taken_in_again_and_once(bench: Bench) -> None:
    first, second = await existing(bench)
    consumers = bench.consumers()
    records = [record(first, 1), record(second, 2)]
    await deadlocked(bench, first, second, lambda: consumers.on_batch(records))
    assert bench.batches == [[first, second], [first], [second]], "whole, then one by one"
    assert await bench.versions() == {first: 2, second: 2}
    assert await bench.effects() == [str(first), str(second)]
    await consumers.on_batch(records)
    assert await bench.effects() == [str(first), str(second)]


async def test_a_request_in_a_deadlock_is_refused_for_now_and_done_once_when_it_comes_again(
    bench: Bench,
) -> None:
    first, second = await existing(bench)

    async def ask() -> tuple[int, dict[str, Any], Mapping[str, str]]:
        return await bench.post("pairs", first, second, "key-1")

    status, problem, headers = await deadlocked(bench, first, second, ask)
    assert (status, problem["code"], headers["retry-after"]) == (503, "unavailable", "5")
    assert headers["content-type"] == "application/problem+json"
    assert await bench.versions() == {first: 1, second: 1}, "nothing of it became true"
    assert (await ask())[:2] == (200, {"versions": [2, 2]})
    assert (await ask())[:2] == (200, {"versions": [2, 2]}), "the first answer again"
    assert await bench.versions() == {first: 2, second: 2}


async def test_what_cannot_be_serialized_is_taken_in_again_and_once(bench: Bench) -> None:
    """An operator may choose a stricter isolation than we need: then a row that changed meanwhile is an error."""
    first, second = await existing(bench)
    await bench.db.dispose()
    async with bench.databases.server.connection() as admin:
        await admin.execute(
            f"alter database {bench.login.database} set default_transaction_isolation = 'repeatable read'"
        )
    consumers = bench.consumers()
    async with bench.databases.server.connection(bench.login.database) as rival:
        transaction = rival.transaction()
        await transaction.start()
        await rival.execute("update cases set version = 7 where id = $1", first)
        acting = asyncio.ensure_future(consumers.on_batch([record(first, 1), record(second, 2)]))
        await bench.waits()
        await transaction.commit()
    await acting
    assert bench.batches == [[first, second], [first], [second]], "it was not broken off"
    assert await bench.versions() == {first: 8, second: 2}
    assert await bench.effects() == [str(first), str(second)]


async def test_who_waits_for_a_lock_too_long_is_told_to_come_again_and_others_are_served(
    bench: Bench,
) -> None:
    first, second, third = await existing(bench, 3)
    async with bench.rival() as rival:
        await rival.execute("select from cases where id = $1 for update", first)
        waiting = asyncio.ensure_future(bench.post("pairs", first, second, "key-1"))
        await bench.waits()
        assert (await bench.post("pairs", second, third, "key-2"))[:2] == (200, {"versions": [2, 2]})
        with capture_logs() as logs:
            status, problem, headers = await waiting
    # And not because the statement or the caller gave up, which takes minutes.
    assert [line["error"] for line in logs if line["event"] == "fault"] == ["LockNotAvailableError"]
    assert (status, problem["code"], headers["retry-after"]) == (503, "unavailable", "5")
    assert (await bench.post("pairs", first, second, "key-1"))[:2] == (200, {"versions": [2, 3]})


async def test_events_wait_for_a_table_that_somebody_alters_and_are_then_taken_in(bench: Bench) -> None:
    first, second = await existing(bench)
    consumers = bench.consumers()
    async with bench.rival() as rival:
        await rival.execute("alter table cases add column remark text")
        acting = asyncio.ensure_future(consumers.on_batch([record(first, 1), record(second, 2)]))
        await bench.waits()

        async def given_up() -> bool:
            return len(bench.batches) >= 3

        await eventually(given_up, within=60, because="nobody gave up waiting for the lock")
        assert not acting.done()
    await acting
    assert await bench.effects() == [str(first), str(second)]
    assert await bench.all_rows("select from parked") == []


async def test_when_every_connection_is_taken_the_next_caller_is_told_so_soon(bench: Bench) -> None:
    first, second = await existing(bench)
    free, has = asyncio.Event(), asyncio.Semaphore(0)

    async def holds() -> None:
        async with bench.db.unit_of_work():
            has.release()
            await free.wait()

    held = []
    try:
        for _ in range(bench.db.pool_size):
            held.append(asyncio.create_task(holds()))
            await has.acquire()  # one at a time: each may have to connect first
        async with asyncio.timeout(100):
            answers = await asyncio.gather(
                *(bench.post("pairs", first, second, f"key-{n}") for n in range(200))
            )
        # Nothing was given back in the meantime: they were refused, not served late.
        assert not any(task.done() for task in held)
    finally:
        free.set()
        await asyncio.gather(*held)
    assert {(status, headers["retry-after"]) for status, _, headers in answers} == {(503, "5")}
    # All of them want the same two rows: no more at a time than a busy machine serves before it says no again.
    for start in range(0, 200, 10):
        again = await asyncio.gather(
            *(bench.post("pairs", first, second, f"key-{n}") for n in range(start, start + 10))
        )
        assert {status for status, _, _ in again} == {200}
    assert await bench.versions() == {first: 201, second: 201}


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_request_whose_commit_nobody_answered_is_done_once_when_it_comes_again(
    bench: Bench, linked: Proxy, arrives: bool
) -> None:
    first, second = uuid7(), uuid7()
    with linked.poisoned(UP, LimitTo(COMMIT, after=b"key-1", resets=b"BEGIN;", passes=arrives)) as cut:
        status, problem, headers = await bench.post("pairs", first, second, "key-1")
        assert cut.done == 1
    assert (status, problem["code"], headers["retry-after"]) == (503, "unavailable", "5")
    assert "没有生效" not in problem["detail"], "nobody knows that"
    assert await bench.versions() == ({first: 1, second: 1} if arrives else {})
    assert (await bench.post("pairs", first, second, "key-1"))[:2] == (200, {"versions": [1, 1]})
    assert await bench.versions() == {first: 1, second: 1}


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_batch_whose_commit_nobody_answered_has_its_effect_once(
    bench: Bench, linked: Proxy, arrives: bool
) -> None:
    people = [uuid7() for _ in range(3)]
    consumers = bench.consumers()
    records = [record(person, offset) for offset, person in enumerate(people)]
    with linked.poisoned(UP, LimitTo(COMMIT, after=b"move", resets=b"BEGIN;", passes=arrives)) as cut:
        await consumers.on_batch(records)
        assert cut.done == 1
    again = [] if arrives else [[person] for person in people]
    assert bench.batches == [people, *again], "what was committed is not done again"
    assert await bench.versions() == dict.fromkeys(people, 1)
    assert await bench.effects() == [str(person) for person in people]


async def test_only_a_commit_can_leave_it_open_what_happened(bench: Bench, linked: Proxy) -> None:
    async def speak(remark: str) -> None:
        async with bench.db.unit_of_work() as uow:
            await uow.sql("select $1::text", remark)

    with linked.poisoned(UP, LimitTo(b"torn-statement", passes=False)) as cut:
        with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)) as lost:
            await speak("torn-statement")
        assert cut.done == 1
        assert not isinstance(lost.value, OutcomeUnknown)
    with linked.poisoned(UP, LimitTo(COMMIT)) as cut:
        with pytest.raises(OutcomeUnknown):
            await speak("whole")
        assert cut.done == 1


async def test_a_commit_said_to_a_server_that_is_going_down_leaves_it_open_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has said that it ends, and the line still stands: the driver does not say COMMIT any more."""

    async def ending(connection: Any, _: Any) -> None:
        connection.terminate()
        raise asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")

    monkeypatch.setattr(databases, "_commit", ending)
    with pytest.raises(OutcomeUnknown):
        async with bench.db.unit_of_work() as uow:
            await uow.sql("select 1")
