"""The chassis on a real database: units of work, the set-based outbox, keys, jobs, guard, shape of the tables."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from asyncpg import IntegrityConstraintViolationError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from contracts import confirmation, payment
from contracts.refusals import Code, Refused
from deploy.local.databases import DatabaseLogin
from services.chassis import outbox
from services.chassis.cause import Cause
from services.chassis.clock import ClockControl, RehearsalClock, SystemClock
from services.chassis.clock_guard import CLOCK_TOPIC, ClockGuard
from services.chassis.db import make_base
from services.chassis.idempotency import idempotent
from services.chassis.jobs import Job, Jobs
from services.chassis.tables import add_plumbing
from services.chassis.tokens import Actor
from tests.support.eventually import eventually
from tests.support.kafka import TestKafka
from tests.support.streams import CYCLE, NOON, confirmed, database, make_tables, say


async def rows(login: DatabaseLogin, statement: str) -> list[Any]:
    engine = create_async_engine(login.url)
    async with engine.connect() as connection:
        found = list((await connection.execute(text(statement))).all())
    await engine.dispose()
    return found


async def test_the_frozen_sql_and_the_tables_are_one_shape(blank_database: DatabaseLogin) -> None:
    await make_tables(blank_database)
    metadata = make_base().metadata
    add_plumbing(metadata)
    engine = create_async_engine(blank_database.url)
    async with engine.connect() as connection:
        found = await connection.run_sync(
            lambda c: compare_metadata(
                MigrationContext.configure(
                    c, opts={"include_name": lambda n, t, _p: t != "table" or n in metadata.tables}
                ),
                metadata,
            )
        )
    await engine.dispose()
    assert found == []


async def test_a_unit_of_work_is_whole_or_nothing(blank_database: DatabaseLogin) -> None:
    await make_tables(blank_database)
    db, woken, called = database(blank_database), [], []
    db.on_events = lambda: woken.append(1)

    async def fail() -> None:
        async with db.unit_of_work() as uow:
            uow.after_commit(lambda: called.append(1))
            await say(uow, uuid4())
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert (woken, called) == ([], [])
    assert (await rows(blank_database, "select count(*) from outbox"))[0][0] == 0
    async with db.unit_of_work() as uow:
        uow.after_commit(lambda: called.append(1))
        await say(uow, uuid4())
    assert (woken, called) == ([1], [1])
    assert (await rows(blank_database, "select count(*) from outbox"))[0][0] == 1
    await db.dispose()


async def test_a_version_can_be_said_once_only(blank_database: DatabaseLogin) -> None:
    await make_tables(blank_database)
    db, person = database(blank_database), uuid4()

    async def twice() -> None:
        async with db.unit_of_work() as uow:
            await outbox.add(uow, confirmed(person), sequence=1)
            await outbox.add(uow, confirmed(person), sequence=1)

    with pytest.raises(IntegrityConstraintViolationError):
        await twice()
    await db.dispose()


async def test_an_event_carries_what_led_to_it(blank_database: DatabaseLogin) -> None:
    await make_tables(blank_database)
    db = database(blank_database)
    cause = Cause("chain-1", "command-1", None)
    async with db.unit_of_work(at=NOON, cause=cause) as uow:
        await outbox.add_all(
            uow, [(confirmed(uuid4()), 1, None), (confirmed(uuid4()), 1, Cause("chain-2", "e", None))]
        )
    found = await rows(
        blank_database, "select correlation_id, causation_id, occurred_at from outbox order by id"
    )
    assert [tuple(row) for row in found] == [("chain-1", "command-1", NOON), ("chain-2", "e", NOON)]
    await db.dispose()


async def test_the_set_based_form_writes_what_the_class_would(blank_database: DatabaseLogin) -> None:
    await make_tables(blank_database)
    db, person, proof = database(blank_database), uuid4(), uuid4()
    statement = outbox.insert_select(
        payment.Expired,
        {
            "cycle_id": "'2024-health-leshan'",
            "registration_id": "r.id",
            "closes_at": outbox.moment_sql("$1::timestamptz"),
            "cause": "'unpaid'",
            "proof_id": "$2::uuid",
        },
        source="(select $3::uuid as id) r",
        key="r.id::text",
        sequence="4",
        occurred_at="$1::timestamptz",
    )
    closes = datetime(2024, 2, 8, 16, 0, 0, 5, UTC)
    async with db.unit_of_work() as uow:
        uow.events_added += await uow.changed(statement, closes, proof, person)
    ((payload, kind, topic),) = await rows(blank_database, "select payload, type, topic from outbox")
    expected = payment.Expired(
        cycle_id=CYCLE, registration_id=person, closes_at=closes, cause="unpaid", proof_id=proof
    )
    assert payment.Expired.model_validate_json(payload, strict=True) == expected
    assert json.loads(payload).keys() == json.loads(expected.model_dump_json()).keys()
    assert (kind, topic) == (payment.Expired.type, payment.Expired.topic)
    await db.dispose()


def test_the_set_based_form_refuses_a_payload_that_is_not_the_events() -> None:
    with pytest.raises(ValueError, match=r"misses \['proof_id'\], does not know \['proof'\]"):
        outbox.insert_select(
            payment.Expired,
            {"cycle_id": "c", "registration_id": "r", "closes_at": "t", "cause": "c", "proof": "p"},
            source="x", key="k", sequence="1", occurred_at="now()",
        )  # fmt: skip


async def test_the_same_key_gets_the_first_answer_and_another_body_is_refused(
    blank_database: DatabaseLogin,
) -> None:
    await make_tables(blank_database)
    db, actor, done = database(blank_database), Actor("a1", frozenset({"candidate"})), []

    async def ask(key: str | None, body: bytes, who: Actor = actor) -> dict[str, Any]:
        async def work() -> dict[str, Any]:
            done.append(body)
            await asyncio.sleep(0.02)  # so that the others come meanwhile
            return {"n": len(done)}

        async with db.unit_of_work() as uow:
            return await idempotent(uow, actor=who, key=key, request=body, run=work)

    answers = await asyncio.gather(*(ask("key-1", b"one") for _ in range(10)))
    assert answers == [{"n": 1}] * 10
    with pytest.raises(Refused) as refused:
        await ask("key-1", b"two")
    assert refused.value.code is Code.IDEMPOTENCY_CONFLICT
    assert await ask("key-1", b"two", Actor("a2", frozenset())) == {"n": 2}
    assert await ask(None, b"one") == {"n": 3}
    await db.dispose()


async def test_a_refused_request_leaves_its_key_free(blank_database: DatabaseLogin) -> None:
    await make_tables(blank_database)
    db, actor, tries = database(blank_database), Actor("a1", frozenset()), []

    async def work() -> dict[str, Any]:
        tries.append(1)
        if len(tries) == 1:
            raise Refused(Code.WINDOW_NOT_OPEN, "还没有开始。")
        return {"ok": True}

    async def ask() -> dict[str, Any]:
        async with db.unit_of_work() as uow:
            return await idempotent(uow, actor=actor, key="k", request=b"x", run=work)

    with pytest.raises(Refused):
        await ask()
    assert await ask() == {"ok": True}
    await db.dispose()


async def test_a_job_runs_at_its_virtual_moment_and_not_a_microsecond_before(
    blank_database: DatabaseLogin, tmp_path: Path
) -> None:
    control = ClockControl(tmp_path / "clock", NOON)
    clock, ran, due = RehearsalClock(tmp_path / "clock"), [], NOON + timedelta(days=30)

    async def close() -> datetime | None:
        ran.append(clock.now())
        return due if clock.now() < due else None

    jobs = Jobs([Job("close", close, timedelta(hours=1))], clock=clock, database_url=blank_database.url)
    task = asyncio.create_task(jobs.run())

    async def first_look() -> bool:
        return len(ran) == 1 and jobs.jobs[0].due_at == due

    await eventually(first_look)
    control.jump(due - timedelta(microseconds=1))
    await asyncio.sleep(0.2)
    assert ran == [NOON]
    control.jump(due)

    async def closed() -> bool:
        return ran == [NOON, due]

    await eventually(closed)
    jobs.stop()
    await asyncio.wait_for(task, 5)


async def test_an_exclusive_job_runs_in_one_process_at_a_time(blank_database: DatabaseLogin) -> None:
    inside, most, turns = 0, 0, 0

    async def sweep() -> None:
        nonlocal inside, most, turns
        inside += 1
        turns += 1
        most = max(most, inside)
        await asyncio.sleep(0.1)
        inside -= 1

    several = [
        Jobs(
            [Job("sweep", sweep, timedelta(seconds=0.05))],
            clock=SystemClock(),
            database_url=blank_database.url,
        )
        for _ in range(4)
    ]
    tasks = [asyncio.create_task(jobs.run()) for jobs in several]

    async def some() -> bool:
        return turns >= 5

    await eventually(some)
    for jobs in several:
        jobs.stop()
    await asyncio.gather(*tasks)
    assert most == 1


async def test_a_job_that_fails_is_tried_again(blank_database: DatabaseLogin) -> None:
    tries: list[int] = []

    async def shaky() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionResetError

    jobs = Jobs(
        [Job("shaky", shaky, timedelta(minutes=5))], clock=SystemClock(), database_url=blank_database.url
    )
    task = asyncio.create_task(jobs.run())

    async def again() -> bool:
        return len(tries) == 2

    await eventually(again)
    jobs.stop()
    await task


async def test_who_only_looks_does_so_once_for_each_progress_when_somebody_waits_for_rest(
    blank_database: DatabaseLogin,
) -> None:
    looks, woken = 0, 0

    async def look() -> None:
        nonlocal looks
        looks += 1

    async def act() -> None:
        nonlocal woken
        woken += 1

    jobs = Jobs(
        [Job("look", look, timedelta(hours=1), looks=True), Job("act", act, timedelta(hours=1))],
        clock=SystemClock(),
        database_url=blank_database.url,
    )
    task = asyncio.create_task(jobs.run())

    async def have(many: int) -> bool:
        return (looks, woken) == (many, 1)

    await eventually(lambda: have(1))
    jobs.hurry((7, 3))
    await eventually(lambda: have(2))
    jobs.hurry((7, 3))  # nothing has happened since
    jobs.hurry(None)  # something is still under way
    assert not any(job.awake.is_set() for job in jobs.jobs)
    jobs.hurry((8, 3))
    await eventually(lambda: have(3))
    jobs.stop()
    await task


async def test_who_finds_what_nobody_told_it_of_runs_when_somebody_waits_for_rest() -> None:
    lies_there = False

    async def read() -> None: ...

    jobs = Jobs(
        [Job("read", read, timedelta(hours=1), finds=lambda: lies_there)],
        clock=SystemClock(),
        database_url="postgresql://nowhere",
    )
    (job,) = jobs.jobs
    jobs.hurry()
    assert not job.awake.is_set()
    lies_there = True
    jobs.hurry()
    assert job.awake.is_set()


@pytest.mark.broker
async def test_three_clocks_agree_here_and_a_wrong_one_is_an_alarm(
    blank_database: DatabaseLogin, kafka: TestKafka
) -> None:
    await kafka.fresh({})
    async with kafka.admin() as admin:
        if CLOCK_TOPIC not in await admin.list_topics():
            await kafka.create({CLOCK_TOPIC: 1}, log_append_time=True)
    right = ClockGuard(SystemClock(), blank_database.url, kafka.bootstrap)
    assert await right.check() is None
    assert right.ahead == timedelta(0)

    class Fast(SystemClock):
        def real_now(self) -> datetime:
            return datetime.now(UTC) + timedelta(seconds=3)

    fast = ClockGuard(Fast(), blank_database.url, kafka.bootstrap)
    assert await fast.check() is None
    assert timedelta(seconds=2) < fast.ahead <= timedelta(seconds=3)

    class Wrong(SystemClock):
        def real_now(self) -> datetime:
            return datetime.now(UTC) + timedelta(hours=1)

    found = await ClockGuard(Wrong(), blank_database.url, kafka.bootstrap).check()
    assert found is not None
    assert found.reason == "the clocks disagree"
    away = await ClockGuard(SystemClock(), blank_database.url, "127.0.0.1:1").check()
    assert away is not None
    assert "could not be asked" in away.reason


async def test_an_event_too_large_for_the_broker_is_refused_before_commit(
    blank_database: DatabaseLogin,
) -> None:
    await make_tables(blank_database)
    db = database(blank_database)
    huge = confirmation.Confirmed.model_construct(
        cycle_id=CYCLE, registration_id=uuid4(), site_id="x" * 1_000_000, form_version=1, desk="shizhong"
    )

    async def speak() -> None:
        async with db.unit_of_work() as uow:
            await outbox.add(uow, huge, sequence=1)

    with pytest.raises(outbox.EventTooLarge):
        await speak()
    assert (await rows(blank_database, "select count(*) from outbox"))[0][0] == 0
    await db.dispose()
