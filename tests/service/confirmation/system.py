"""The confirmation service on a real, migrated database, with its three doors: requests, records, moments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import httpx2
from uuid_utils.compat import uuid7

from contracts import registration
from contracts.event import Event
from contracts.reasons import WithdrawalReason
from deploy.local.databases import DatabaseLogin
from deploy.local.keys import LocalKeys
from services.chassis.clock import ClockControl
from services.chassis.jobs import Job
from services.confirmation.app import create_app
from services.confirmation.settings import Settings
from tests.support.under_test import ServiceUnderTest
from tests.unit.confirmation.cases import BEIJING, leshan, moment

CYCLE_FILE = Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml"
EARLY = "2023-12-03 10:00"


class System(ServiceUnderTest):
    """The service, and what a test does to it from outside."""

    topic = "exam.confirmation"
    tables: ClassVar[Mapping[str, str]] = {
        "cases": "registration_id",
        "decisions": "decision_id",
        "desk_windows": "site_id",
        "desk_window_changes": "site_id, version",
        "payment_closes": "site_id",
        "desk_window_asks": "ask_id",
        "desk_window_verdicts": "ask_id",
        "outbox": "id",
        "parked": "id",
    }

    def __init__(self, login: DatabaseLogin, directory: Path) -> None:
        super().__init__()
        self.clock = ClockControl(directory / "clock", moment(EARLY))
        keys = LocalKeys.of(directory / "keys", ["confirmation"])
        self._tokens = keys.tokens
        self.settings = Settings(
            environment="local",
            database_url=login.url,
            kafka_bootstrap_servers="127.0.0.1:9",
            cycle_file=CYCLE_FILE,
            token_keys_file=keys.token_keys_file,
            vault_keys_file=keys.vault_file("confirmation"),
            clock_file=directory / "clock",
        )
        self.process = create_app(self.settings)
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.process.public), base_url="http://confirmation.test"
        )

    @property
    def job(self) -> Job:
        return self.process.jobs.jobs[0]

    async def end(self) -> None:
        await self.http.aclose()
        await self.database.dispose()

    def at(self, text: str) -> datetime:
        """Move time to this moment in Leshan; microseconds may be written."""
        at = datetime.fromisoformat(text).replace(tzinfo=BEIJING).astimezone(UTC)
        self.clock.jump(at)
        return at

    # --- door 1

    async def call(
        self, method: str, path: str, role: str | None, body: object = None, *, key: str | None = None
    ) -> httpx2.Response:
        headers = {"authorization": f"Bearer {self.token(role)}"} if role else {}
        if key is not None:
            headers["idempotency-key"] = key
        return await self.http.request(method, path, json=body, headers=headers)

    def token(self, role: str) -> str:
        return self._tokens.mint(role, f"account-of-{role}", at=moment(EARLY))

    async def confirm(
        self,
        registration_id: UUID,
        *,
        desk: str = "shizhong",
        form: int = 1,
        missing: Sequence[str] = (),
        key: str | None = None,
        role: str | None = None,
    ) -> httpx2.Response:
        documents = {d.id: "seen" for d in leshan().documents} | dict.fromkeys(missing, "missing")
        body = {"form_version": form, "identity_seen": True, "stamped": True, "documents": documents}
        return await self.call(
            "POST", f"/desks/{desk}/cases/{registration_id}/confirm", role or f"desk:{desk}", body, key=key
        )

    async def at_desk(
        self,
        what: str,
        registration_id: UUID,
        *,
        desk: str = "shizhong",
        key: str | None = None,
        **body: object,
    ) -> httpx2.Response:
        body.setdefault("reason_codes", ["documents"])
        return await self.call(
            "POST", f"/desks/{desk}/cases/{registration_id}/{what}", f"desk:{desk}", body, key=key
        )

    async def review(self, level: str, *rows: dict[str, object]) -> list[dict[str, Any]]:
        answer = await self.call(
            "POST", f"/review/{level}/decisions", f"reviewer:{level}", {"decisions": rows}
        )
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    async def approve(self, level: str, *registration_ids: UUID) -> list[dict[str, Any]]:
        rows: list[dict[str, object]] = [
            {"registration_id": str(one), "decision": "approve"} for one in registration_ids
        ]
        return await self.review(level, *rows)

    async def set_window(self, site: str, **body: object) -> httpx2.Response:
        body.setdefault("reason", "公布确认时间")
        answer = await self.call("POST", f"/office/desk-windows/{site}", "office", body)
        asked = answer.json().get("asked")
        if asked is None:
            return answer
        return await self.decide_window(site, asked["ask_id"], "approve")

    async def decide_window(
        self, site: str, ask_id: str, word: str, who: str = "another-of-the-office"
    ) -> httpx2.Response:
        """What a second person says to another window of a dated desk."""
        token = self._tokens.mint("office", who, at=moment(EARLY))
        return await self.http.request(
            "POST",
            f"/office/desk-windows/{site}/{ask_id}/{word}",
            headers={"authorization": f"Bearer {token}"},
        )

    # --- door 2

    async def deliver(self, *events: Event, sequence: int = 1) -> None:
        """Each event twice in one poll, and the whole poll a second time."""
        await self.deliver_twice([self.record(event, sequence) for event in events])

    async def pre_registered(self, site: str = "shizhong", *, many: int = 1) -> list[UUID]:
        found = [uuid7() for _ in range(many)]
        await self.deliver(*(pre_registered(one, site) for one in found))
        return found

    async def registered(self, site: str = "shizhong") -> UUID:
        return (await self.pre_registered(site))[0]

    async def confirmed(self, *, many: int = 1, at: str = "2023-12-10 09:00") -> list[UUID]:
        """Confirmed at 市中区."""
        found = await self.pre_registered(many=many)
        self.at(at)
        for one in found:
            assert (await self.confirm(one)).status_code == 200
        return found

    # --- door 3

    async def run_job(self) -> datetime | None:
        return await self.job.run()

    # --- what is there

    async def case(self, registration_id: UUID) -> dict[str, Any]:
        return (await self.rows("select * from cases where registration_id = $1", registration_id))[0]


def pre_registered(
    registration_id: UUID, site: str = "shizhong", **changed: Any
) -> registration.PreRegistered:
    facts: dict[str, Any] = {
        "specialty_code": "203",
        "level": "junior",
        "subjects": (1, 2, 3, 4),
        "form_version": 1,
        "returning": False,
        "cycle_id": leshan().id,
        **changed,
    }
    return registration.PreRegistered(registration_id=registration_id, site_id=site, **facts)


def amended(
    registration_id: UUID, version: int, site: str = "shizhong", **changed: Any
) -> registration.Amended:
    facts: dict[str, Any] = {
        "specialty_code": "203",
        "level": "junior",
        "subjects": (1, 2, 3, 4),
        "changed": ("site_id",),
        "cycle_id": leshan().id,
        **changed,
    }
    return registration.Amended(registration_id=registration_id, site_id=site, form_version=version, **facts)


def withdrawn(registration_id: UUID) -> registration.Withdrawn:
    return registration.Withdrawn(
        registration_id=registration_id,
        cycle_id=leshan().id,
        reason_code=WithdrawalReason.PERSONAL,
    )


def payload(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event.model_dump_json(exclude={"cycle_id", "registration_id"}))
    return found
