"""The registration service on a real, migrated database, and what a test does to it from outside."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import httpx2

from contracts.event import Event
from deploy.local.databases import DatabaseLogin
from deploy.local.keys import LocalKeys
from services.chassis.clock import ClockControl
from services.registration.app import create_app
from services.registration.settings import Settings
from tests.support.under_test import ServiceUnderTest
from tests.unit.registration.samples import DURING, ROOT, form

ACCOUNT = "account-of-somebody"


class System(ServiceUnderTest):
    """The service with its doors: requests on both ports, records of the broker."""

    topic = "exam.registration"
    tables: ClassVar[Mapping[str, str]] = {
        "registrations": "id",
        "people": "registration_id",
        "photos": "registration_id",
        "desk_windows": "site_id",
        "outbox": "id",
        "audit": "id",
        "parked": "id",
    }

    def __init__(self, login: DatabaseLogin, directory: Path) -> None:
        super().__init__()
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
        self.vault = self.process.plumbing.vault
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.process.public), base_url="http://registration.test"
        )
        self.internal = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.process.internal), base_url="http://internal.test"
        )

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
        """(event, sequence) each, every one twice in one poll, and the whole poll again."""
        await self.deliver_twice([self.record(event, sequence, at) for event, sequence in events])

    # --- what is there

    async def count(self, table: str) -> int:
        return int((await self.rows(f"select count(*) as n from {table}"))[0]["n"])
