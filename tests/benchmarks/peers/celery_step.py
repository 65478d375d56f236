"""Celery on RabbitMQ with acks_late, doing the step's SQL one event at a time and sending on what follows.

As its documentation recommends for many short tasks: a prefetch of its own choosing, results ignored, -O fair, no gossip,
mingle or heartbeat, one process per core. Messages and queues are durable; publisher confirms are off, its default, which
is weaker than what ours waits for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from celery import Celery
from kombu import Queue
from uuid_utils.compat import uuid7

from deploy.bench.cases import confirmed, pre_registered
from deploy.bench.program import Door
from tests.benchmarks.peers.sql import CHANGE, CLAIM, SAY

app = Celery("step", broker=os.environ.get("BENCH_AMQP"))
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    task_default_delivery_mode="persistent",
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "64")),
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    task_queues=[Queue("steps", durable=True), Queue("next", durable=True)],
    broker_heartbeat=0,
)
_kept: dict[str, Any] = {}


def _database() -> psycopg.Connection[Any]:
    """One for each worker process, opened after it was forked."""
    if _kept.get("pid") != os.getpid():
        _kept.update(
            pid=os.getpid(), database=psycopg.connect(os.environ["BENCH_DATABASE"], prepare_threshold=2)
        )
    found: psycopg.Connection[Any] = _kept["database"]
    return found


@app.task(name="step")
def step(event_id: str, payload: str) -> None:
    event = pre_registered(UUID(json.loads(payload)["registration_id"]))
    database = _database()
    with database.transaction():
        at = datetime.now(UTC)
        if not database.execute(CLAIM, ("confirm", event_id, at)).fetchone():
            return
        found = database.execute(CHANGE, (event.registration_id,)).fetchone()
        assert found is not None
        after, following = confirmed(event), str(uuid7())
        said = after.model_dump_json()
        database.execute(
            SAY, (following, after.topic, after.key, after.type, found[0], at, said, following, event_id)
        )
    app.send_task("next", (following, said), queue="next")


def main() -> None:
    task, door = json.loads(sys.stdin.readline()), Door()
    os.environ |= {
        "BENCH_AMQP": task["amqp"],
        "BENCH_DATABASE": task["database"],
        "BENCH_PREFETCH": str(task["prefetch"]),
    }
    app.conf.broker_url = task["amqp"]
    people = [str(uuid7()) for _ in range(task["events"] // task["versions"])]
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        for queue in app.conf.task_queues:
            queue(channel).declare()
            queue(channel).purge()
    with app.producer_pool.acquire() as producer:
        for _ in range(task["versions"]):
            for person in people:
                example = pre_registered(person).model_dump_json()
                app.send_task("step", (str(uuid7()), example), queue="steps", producer=producer)
    door.ready_now()
    command = [
        sys.executable, "-m", "celery", "-A", "tests.benchmarks.peers.celery_step", "worker", "-Q", "steps", "-P", "prefork",
        "-c", str(task["processes"]), "-O", "fair", "-l", "ERROR",
        "--without-gossip", "--without-mingle", "--without-heartbeat",
    ]  # fmt: skip
    worker = subprocess.Popen(command, stdout=sys.stderr, stderr=sys.stderr, stdin=subprocess.DEVNULL)
    first = last = None
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        while True:
            done = channel.queue_declare("next", passive=True).message_count
            at = time.monotonic()
            if first is None and done >= task["events"] // 10:
                first = (at, done)
            if done >= task["events"]:
                last = (at, done)
                break
            assert worker.poll() is None, "the worker ended"
            time.sleep(0.02)
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
        following, keys = set(), set()
        while (message := channel.basic_get("next", no_ack=True)) is not None:
            (event_id, said), *_ = json.loads(message.body)
            following.add(event_id)
            keys.add(json.loads(said)["registration_id"])
    assert first is not None
    door.result(
        seconds=last[0] - first[0],
        events=last[1] - first[1],
        following=len(following),
        keys=len(keys),
        all=task["events"],
    )


if __name__ == "__main__":
    main()
