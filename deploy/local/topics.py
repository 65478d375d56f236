"""The topics of contracts/topics.toml, made on whatever broker there is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code

from contracts.topics import TOPICS, Topic
from deploy.local.processes import StartFailed

_ALREADY_THERE = 36


async def make_topics(
    bootstrap: str, topics: Mapping[str, Topic] = TOPICS, *, timeout: float = 30.0, keep: bool = True
) -> list[str]:
    """Make those that are missing and return their names.

    `keep`: a virtual clock may date records years back; the broker must not take that for age and drop them.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=int(timeout * 1000))
    await _connect(admin, bootstrap, timeout)
    try:
        existing = set(await admin.list_topics())
        missing = [topic for name, topic in topics.items() if name not in existing]
        wanted = [
            NewTopic(
                topic.name,
                topic.partitions,
                -1,  # as many copies as the broker says: one here, three in a cluster
                {},  # aiokafka takes the -1 only when somebody could have placed the copies by hand
                topic_configs={
                    "retention.ms": "-1" if keep else str(int(topic.retention.total_seconds() * 1000)),
                    "message.timestamp.type": topic.timestamps,
                },
            )
            for topic in missing
        ]
        if wanted:
            answer = await admin.create_topics(wanted)
            for name, code, *detail in answer.topic_errors:
                if code not in (0, _ALREADY_THERE):
                    raise StartFailed(
                        f"the broker refuses to make topic {name}: {for_code(code).__name__} {detail}"
                    )
        return sorted(topic.name for topic in missing)
    finally:
        await admin.close()


async def _connect(admin: AIOKafkaAdminClient, bootstrap: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            await admin.start()
        except (KafkaError, OSError) as error:
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"no Kafka answers at {bootstrap} ({type(error).__name__}); check the address, or unset "
                    "KAFKA_BOOTSTRAP_SERVERS to let the local system start a broker of its own"
                ) from None
            await asyncio.sleep(0.1)
        else:
            return
