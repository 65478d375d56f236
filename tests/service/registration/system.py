"""The registration service on a real, migrated database, and what a test does to it from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
from aiokafka import ConsumerRecord
from sqlalchemy import event as sqlalchemy_event
from uuid_utils.compat import uuid7

from contracts.catalogue import EVENTS, parse
from contracts.envelope import Envelope
from contracts.event import Event
from deploy.local.databases import DatabaseLogin
from deploy.local.keys import LocalKeys
from services.chassis.clock import ClockControl
from services.registration.app import create_app
from services.registration.settings import Settings
from tests.unit.registration.samples import DURING, ROOT, form

ACCOUNT = "account-of-somebody"


class System:
    """The service with its doors: requests on both ports, records of the broker."""

    def __init__(self, login: DatabaseLogin, directory: Path) -> None:
        self._clock_file = directory / "clock"
        self.clock = ClockControl(self._clock_file, DURING)
        keys = LocalKeys.of(directory / "keys", ["registration"])
        self._tokens = keys.tokens
        self.process = create_app(
            Settings(
                environment="local",
                database_url=login.url,
                kafka_bootstrap_servers="127.0.0.1:9",
                cycle_file=ROOT / "deploy" / "cycles" / "2024-health-leshan.toml",
                token_keys_file=keys.token_keys_file,
                vault_keys_file=keys.vault_file("registration"),
                clock_file=self._clock_file,
                database_pool_size=20,
            )
        )
        self.database = self.process.plumbing.database
        self.vault = self.process.plumbing.vault
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.process.public), base_url="http://registration.test"
        )
        self.internal = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.process.internal), base_url="http://internal.test"
        )
        self._offset = 0

    async def end(self) -> None:
        await self.http.aclose()
        await self.internal.aclose()
        await self.database.dispose()

    def at(self, moment: datetime) -> None:
        """It is this moment now; also an earlier one, for what a test looks at before the window opens."""
        self.clock = ClockControl(self._clock_file, moment)

    # --- door 1

    def token(self, role: str, account: str = ACCOUNT) -> dict[str, str]:
        return {"authorization": f"Bearer {self._tokens.mint(role, account, at=DURING)}"}

    async def pre_register(
        self, *, key: str | None = None, account: str = ACCOUNT, **changed: Any
    ) -> httpx2.Response:
        headers = self.token("candidate", account) | ({"idempotency-key": key} if key else {})
        return await self.http.post("/registrations", json=form(**changed), headers=headers)

    async def registered(self, **changed: Any) -> UUID:
        answer = await self.pre_register(**changed)
        assert answer.status_code == 201, answer.text
        return UUID(answer.json()["registration_id"])

    async def amend(
        self, registration_id: UUID, *, key: str | None = None, role: str | None = None, **changed: Any
    ) -> httpx2.Response:
        headers = self.token(role or f"candidate:{registration_id}") | (
            {"idempotency-key": key} if key else {}
        )
        return await self.http.patch(f"/registrations/{registration_id}", json=changed, headers=headers)

    async def withdraw(
        self, registration_id: UUID, *, key: str | None = None, **body: Any
    ) -> httpx2.Response:
        headers = self.token(f"candidate:{registration_id}") | ({"idempotency-key": key} if key else {})
        return await self.http.post(
            f"/registrations/{registration_id}/withdraw", json=body or None, headers=headers
        )

    async def page_of(self, registration_id: UUID, role: str | None = None) -> dict[str, Any]:
        """What the candidate's own page shows."""
        answer = await self.http.get(
            f"/registrations/{registration_id}", headers=self.token(role or f"candidate:{registration_id}")
        )
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def state(self, registration_id: UUID) -> str:
        return str((await self.page_of(registration_id))["state"])

    # --- door 2

    async def deliver(self, *events: tuple[Event, int], at: datetime | None = None) -> None:
        """(event, sequence) each, every one twice in one poll, and the whole poll again: which must change nothing."""
        records = [record for event, sequence in events for record in [self.record(event, sequence, at)] * 2]
        await self.process.consumers.on_batch(records)
        before = await self.everything()
        await self.process.consumers.on_batch(records)
        assert await self.everything() == before, "an event that came again had an effect"

    def record(self, event: Event, sequence: int, at: datetime | None = None) -> Any:
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
        self._offset += 1
        value = event.model_dump_json().encode()
        return ConsumerRecord(
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

    # --- what is there

    async def rows(self, statement: str, *args: object) -> list[dict[str, Any]]:
        async with self.database.reading() as uow:
            return [dict(row._mapping) for row in await uow.sql(statement, *args)]

    async def count(self, table: str) -> int:
        return int((await self.rows(f"select count(*) as n from {table}"))[0]["n"])

    async def said(self, key: object = None) -> list[Event]:
        """Everything in the outbox, of one key if asked, read as others will read it. Versions have no gap."""
        found: list[Event] = []
        sequences: dict[str, int] = {}
        for row in await self.rows("select * from outbox order by id"):
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
            read = parse(envelope, row["payload"].encode())
            assert read.key == row["key"]
            assert row["topic"] == "exam.registration"
            assert row["sequence"] == sequences.get(row["key"], 0) + 1, "a version is missing or twice"
            sequences[row["key"]] = row["sequence"]
            if key is None or row["key"] == str(key):
                found.append(read)
        return found

    async def everything(self) -> dict[str, list[dict[str, Any]]]:
        """All that this service keeps, but for its inbox."""
        tables = {
            "registrations": "id",
            "people": "registration_id",
            "photos": "registration_id",
            "desk_windows": "site_id",
            "outbox": "id",
            "audit": "id",
            "parked": "id",
        }
        return {
            table: await self.rows(f"select * from {table} order by {order}")
            for table, order in tables.items()
        }

    async def parked(self) -> list[str]:
        return [row["reason"] for row in await self.rows("select reason from parked order by id")]

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """The SQL that is run inside the block."""
        seen: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
            seen.append(" ".join(statement.split())[:60])

        engine = self.database.engine.sync_engine
        sqlalchemy_event.listen(engine, "before_cursor_execute", note)
        try:
            yield seen
        finally:
            sqlalchemy_event.remove(engine, "before_cursor_execute", note)


def names(events: list[Event]) -> list[str]:
    """What was said, without service and version."""
    return [event.type.split(".")[2] for event in events]
