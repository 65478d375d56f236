"""P6: one pipeline step, against what people would take for it: Celery on RabbitMQ, procrastinate on PostgreSQL.

Everyone does the same SQL on the same kind of table and gets the whole machine, one after the other, round by round.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from deploy.bench import cases, flooding, peers, rabbitmq
from deploy.bench.contender import Violated, measured
from deploy.bench.draining import Drained, drain
from deploy.bench.figures import Figure, Goal, middle, number
from deploy.bench.rabbitmq import LocalRabbitMQ
from deploy.bench.scale import Scale
from deploy.bench.stage import Stage

CELERY: Final = Goal("≥", 1.5)
PROCRASTINATE: Final = Goal("≥", 1.0)
_VERSIONS: Final = 4  # events of each key
_PREFETCH: Final = 64
_CONCURRENCY: Final = 20
_WITHIN: Final = 900.0

Result = Mapping[str, Any]


async def steps(stage: Stage, scale: Scale, advance: Callable[[str], None]) -> list[Figure]:
    """Ours over Kafka, then each peer over its own broker, as many rounds as the scale says."""
    python, root = peers.interpreter(), rabbitmq.home()
    await stage.fresh_topics()
    advance("filling the topic")
    await flooding.flood(stage, scale.step_events)
    ours: list[Drained] = []
    celery: list[Result] = []
    jobs: list[Result] = []
    for turn in range(1, scale.rounds + 1):
        advance(f"ours, round {turn}")
        await stage.settle()
        ours.append(await drain(stage, scale.step_events, members=1, within=_WITHIN))
        if python is not None and root is not None:
            advance(f"Celery, round {turn}")
            celery.append(await _celery(stage, scale.queue_events))
        if python is not None:
            advance(f"procrastinate, round {turn}")
            jobs.append(await _procrastinate(stage, scale.queue_events))
    why = peers.absent() if python is None else rabbitmq.absent()
    return [
        _row(
            "P6 step / Celery + RabbitMQ",
            CELERY,
            ours,
            celery,
            _celery_name() if celery else "Celery + RabbitMQ",
            why,
        ),
        _row(
            "P6 step / procrastinate",
            PROCRASTINATE,
            ours,
            jobs,
            f"procrastinate {peers.version('procrastinate')}, {os.cpu_count()} processes × {_CONCURRENCY} at a time"
            if jobs
            else "procrastinate",
            why,
        ),
    ]


def _celery_name() -> str:
    return (
        f"Celery {peers.version('celery')} (acks_late, prefork × {os.cpu_count()}, prefetch {_PREFETCH}) "
        f"on RabbitMQ {rabbitmq.version()}"
    )


async def _celery(stage: Stage, events: int) -> Result:
    root = rabbitmq.home()
    assert root is not None
    login = await cases.database(stage)
    broker = LocalRabbitMQ(stage.directory / f"rabbitmq-{stage.number()}", root)
    try:
        await broker.start()
        contender = stage.contender(
            "celery", peers.PROGRAMS / "celery_step.py", python=peers.interpreter(), database=login.dsn, amqp=broker.url,
            events=events, versions=_VERSIONS, processes=os.cpu_count(), prefetch=_PREFETCH,
        )  # fmt: skip
        await stage.settle()
        result = await measured(contender, within=_WITHIN)
    finally:
        await broker.stop()
    async with stage.postgres.connection(login.database) as connection:
        said = await connection.fetchval("select count(distinct causation_id) from bench_outbox")
        await _examine(connection, "Celery", events, result, said)
    await stage.drop(login)
    return result


async def _procrastinate(stage: Stage, events: int) -> Result:
    login = await cases.database(stage)
    contender = stage.contender(
        "procrastinate", peers.PROGRAMS / "procrastinate_step.py", python=peers.interpreter(), database=login.url,
        events=events, versions=_VERSIONS, concurrency=_CONCURRENCY, processes=os.cpu_count(),
    )  # fmt: skip
    await stage.settle()
    result = await measured(contender, within=_WITHIN)
    async with stage.postgres.connection(login.database) as connection:
        await _examine(connection, "procrastinate", events, result, events)
    await stage.drop(login)
    return result


async def _examine(connection: Any, name: str, events: int, result: Result, said: int) -> None:
    """A peer that lost something did less work: its figure would not be one."""
    changed = await connection.fetchval("select coalesce(sum(version), 0) from bench_cases")
    claimed = await connection.fetchval("select count(*) from bench_inbox")
    seen = {
        "took effect": changed,
        "were claimed": claimed,
        "were answered": said,
        "follow": result["following"],
    }
    if wrong := [f"{count} {what}" for what, count in seen.items() if count != events]:
        raise Violated(f"{name}: of {events} events {', '.join(wrong)}")


def _row(
    name: str, goal: Goal, ours: Sequence[Drained], peer: Sequence[Result], peer_name: str, why: str
) -> Figure:
    rates = [each["events"] / each["seconds"] for each in peer]
    mine = [each.rate for each in ours]
    return Figure(
        name=name,
        unit="events/s",
        ours=middle(mine),
        peer=middle(rates) if rates else None,
        peer_name=peer_name,
        goal=goal,
        checked=[ours[-1].held],
        not_measured="" if rates else why,
        spread={"ours": mine, "peer": rates},
        notes=[
            (
                f"ours: one process, {ours[-1].events:,} events counted, "
                f"{number(middle([each.cost for each in ours]))} µs of processor time an event with broker and PostgreSQL"
            )
        ]
        + (
            [f"peer: {peer[-1]['all']:,} events, every one claimed, in effect and answered once"]
            if peer
            else []
        ),
    )
