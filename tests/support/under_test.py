"""A service under test: records delivered twice, what it keeps, what it said. Each service's system adds its own doors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import pytest
from aiokafka import ConsumerRecord
from uuid_utils.compat import uuid7

from contracts.catalogue import EVENTS, parse
from contracts.envelope import Envelope
from contracts.event import Event
from services.chassis.clock import ClockControl
from services.chassis.consuming import Record
from services.chassis.db import Database, UnitOfWork
from services.chassis.heard import Heard
from services.chassis.process import Process


class ServiceUnderTest:
    """What every service's system can do. `tables`: what it keeps, each with the order that makes two readings comparable."""

    topic: ClassVar[str]
    tables: ClassVar[Mapping[str, str]]

    process: Process
    clock: ClockControl

    def __init__(self) -> None:
        self._offset = 0
        self._sequences: dict[tuple[str, str], int] = {}

    @property
    def database(self) -> Database:
        return self.process.plumbing.database

    # --- door 2

    async def deliver_twice(self, once: Sequence[Record]) -> list[Record]:
        """Each record twice in one poll, and the whole poll again, which must change nothing. Returns that poll."""
        records = [record for record in once for _ in range(2)]
        await self.process.consumers.on_batch(records)
        before = await self.everything()
        await self.process.consumers.on_batch(records)
        assert await self.everything() == before, "an event that came again had an effect"
        return records

    def forget(self) -> None:
        """As if the process had just started: it has heard nothing yet."""
        self.process.consumers._heard = Heard()

    def record(self, event: Event, sequence: int | None = None, at: datetime | None = None) -> Record:
        """The event as it lies in its topic. Without a sequence: the next of its key."""
        self._offset += 1
        where = (event.topic, event.key)
        if sequence is None:
            sequence = self._sequences[where] = self._sequences.get(where, 0) + 1
        envelope = Envelope(
            event_id=uuid7(),
            type=event.type,
            source=event.source,
            subject=event.key,
            time=at or self.clock.now(),
            dataschema=event.dataschema(),
            sequence=sequence,
            correlation_id=str(uuid7()),
        )
        value = event.model_dump_json().encode()
        record: Record = ConsumerRecord(
            topic=event.topic,
            partition=0,
            offset=self._offset,
            timestamp=0,
            timestamp_type=0,
            key=event.key.encode(),
            value=value,
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=len(value),
            headers=envelope.headers(),
        )
        return record

    # --- what is there

    async def rows(self, statement: str, *args: object) -> list[dict[str, Any]]:
        async with self.database.reading() as uow:
            return [dict(row) for row in await uow.sql(statement, *args)]

    async def write(self, statement: str, *args: object) -> None:
        async with self.database.unit_of_work() as uow:
            await uow.changed(statement, *args)

    async def everything(self) -> dict[str, list[dict[str, Any]]]:
        """All that this service keeps, but for its inbox."""
        return {t: await self.rows(f"select * from {t} order by {order}") for t, order in self.tables.items()}

    async def parked(self) -> list[str]:
        return [row["reason"] for row in await self.rows("select reason from parked order by id")]

    async def said(self, key: UUID | str | None = None) -> list[Event]:
        """Everything in the outbox, of one key if asked, read as others will read it. Versions have no gap."""
        found: list[Event] = []
        sequences: dict[str, int] = {}
        log = "select * from outbox where $1::text is null or key = $1 order by id"
        for row in await self.rows(log, None if key is None else str(key)):
            event_class = EVENTS[row["type"]]
            envelope = Envelope(
                event_id=row["event_id"],
                type=row["type"],
                source=event_class.source,
                subject=row["key"],
                time=row["occurred_at"],
                dataschema=event_class.dataschema(),
                sequence=row["sequence"],
                correlation_id=row["correlation_id"],
                causation_id=row["causation_id"],
                traceparent=row["traceparent"],
            )
            assert Envelope.from_headers(envelope.headers()) == envelope
            read = parse(envelope, row["payload"].encode())
            assert read.key == row["key"]
            assert row["topic"] == self.topic
            assert row["sequence"] == sequences.get(row["key"], 0) + 1, "a version is missing or twice"
            sequences[row["key"]] = row["sequence"]
            found.append(read)
        return found

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """The SQL that is run inside the block."""
        seen: list[str] = []

        def noting(run: Callable[..., Any]) -> Callable[..., Any]:
            def noted(uow: UnitOfWork, statement: str, *args: object) -> Any:
                seen.append(" ".join(statement.split())[:60])
                return run(uow, statement, *args)

            return noted

        with pytest.MonkeyPatch.context() as patch:
            for name in ("sql", "changed"):
                patch.setattr(UnitOfWork, name, noting(getattr(UnitOfWork, name)))
            yield seen


def names(events: Sequence[Event]) -> list[str]:
    """What was said, without service and version."""
    return [event.type.split(".")[2] for event in events]
