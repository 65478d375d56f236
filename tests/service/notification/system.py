"""The notification service on a real, migrated database, before the simulated carriers, with its three doors."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx2
from uuid_utils.compat import uuid7

from contracts import payment, registration
from contracts.event import Event
from contracts.notification import Delivered, Undeliverable
from contracts.reasons import Channel, ExpiryCause
from deploy.local.databases import DatabaseLogin
from deploy.local.keys import LocalKeys
from deploy.simulators.http import Reply, Request, serving
from deploy.simulators.world import Plan, Simulators
from services.chassis.clock import ClockControl, RehearsalClock
from services.chassis.consuming import Record
from services.notification.app import create_app
from services.notification.settings import Settings
from services.notification.templates.wording import Wording
from tests.support.under_test import ServiceUnderTest

CYCLE_FILE = Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml"
CYCLE = "2024-health-leshan"
BEIJING = ZoneInfo("Asia/Shanghai")
START = "2023-12-05 12:00"
CLOSE = "2024-02-09 00:00"


def moment(text: str) -> datetime:
    """A moment as people in Leshan write it."""
    return datetime.fromisoformat(text).replace(tzinfo=BEIJING).astimezone(UTC)


class Registry:
    """Registration's internal route, as its contract says, with people that do not exist."""

    def __init__(self) -> None:
        self.people: dict[str, dict[str, str | None]] = {}
        self.asked: list[list[str]] = []
        self.status = 200

    def add(self, registration_id: UUID, **given: str | None) -> None:
        number = len(self.people)
        self.people[str(registration_id)] = {
            "registration_id": str(registration_id),
            "number": f"2024{number:08d}",
            "phone": f"139{number:08d}",
            "email": f"p{number}@example.cn",
            **given,
        }

    async def handle(self, request: Request) -> Reply:
        assert request.headers["authorization"].startswith("Bearer ")
        asked = json.loads(request.body)["registration_ids"]
        self.asked.append(asked)
        if self.status != 200:
            return Reply.of({}, self.status)
        return Reply.of({"contacts": [self.people[one] for one in asked if one in self.people]})


class System(ServiceUnderTest):
    """The service, the carriers, and what a test does to both from outside."""

    topic = "exam.notification"
    tables: ClassVar[Mapping[str, str]] = {
        "recipients": "registration_id",
        "messages": "message_id",
        "desks": "site_id",
        "outbox": "id",
        "parked": "id",
    }

    def __init__(
        self,
        login: DatabaseLogin,
        directory: Path,
        world: Simulators,
        registry: Registry,
        registry_url: str,
        **given: Any,
    ) -> None:
        super().__init__()
        self.clock = ClockControl(directory / "clock")
        self.world, self.registry = world, registry
        keys = LocalKeys.of(directory / "keys", ["notification"])
        self.tokens = keys.tokens
        self.secret = keys.receipts_secret
        self.settings = Settings(
            environment="local",
            database_url=login.url,
            kafka_bootstrap_servers="127.0.0.1:9",
            cycle_file=CYCLE_FILE,
            token_keys_file=keys.token_keys_file,
            vault_keys_file=keys.vault_file("notification"),
            clock_file=directory / "clock",
            service_token_file=keys.service_token_file("notification", at=moment(START)),
            receipts_secret_file=keys.receipts_secret_file,
            aliyun_account_file=world.accounts["aliyun"],
            smtp_account_file=world.accounts["smtp"],
            registration_internal_url=registry_url,
            **given,
        )
        self.start()

    def start(self) -> None:
        """A new process of the service on the same database."""
        self.process = create_app(self.settings)
        self.cycle = self.process.plumbing.cycle
        self.fetch_job, self.sms_job, self.mail_job, *_ = self.process.jobs.jobs
        self.pull_job, self.forget_job, self.follow_job, self.calls_job, self.promise_job = (
            next(job for job in self.process.jobs.jobs if job.name == name)
            for name in ("pull-receipts", "forget-sent", "follow-up", "call-list", "promise")
        )
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.process.public), base_url="http://notification.test"
        )

    async def end(self) -> None:
        await self.http.aclose()
        for resource in self.process.resources:
            await resource.__aenter__()
            await resource.__aexit__(None, None, None)
        await self.database.dispose()

    def at(self, text: str) -> datetime:
        """Move time to this moment in Leshan."""
        self.clock.jump(moment(text))
        return moment(text)

    # --- door 1

    async def call(self, method: str, path: str, role: str | None, body: object = None) -> httpx2.Response:
        headers = {}
        if role:
            token = self.tokens.mint(role, f"account-of-{role}", at=moment(START))
            headers = {"authorization": f"Bearer {token}"}
        return await self.http.request(method, path, json=body, headers=headers)

    async def push(self, receipts: object, secret: str | None = None) -> httpx2.Response:
        """The carrier pushes receipts."""
        content = receipts if isinstance(receipts, bytes) else json.dumps(receipts).encode()
        return await self.http.post(f"/carriers/aliyun/receipts/{secret or self.secret}", content=content)

    async def forward(self, request: Request) -> Reply:
        answer = await self.http.request(request.method, request.path, content=request.body)
        return Reply(answer.status_code, answer.content)

    # --- door 2

    async def deliver(self, *events: Event) -> list[Record]:
        """Each event twice in one poll, and the whole poll again."""
        return await self.deliver_twice([self.record(event) for event in events])

    async def registered(self, many: int = 1, **contact: str | None) -> list[UUID]:
        """People who pre-registered and were told so, by SMS with a receipt and by email."""
        found = await self.registered_unsent(many, **contact)
        await self.send()
        await self.hear_receipts()
        return found

    async def registered_unsent(self, many: int = 1, **contact: str | None) -> list[UUID]:
        """People who pre-registered, whose contacts are known and to whom nothing was sent yet."""
        found = [uuid7() for _ in range(many)]
        for one in found:
            self.registry.add(one, **contact)
        await self.deliver(*(pre_registered(one) for one in found))
        await self.fetch()
        return found

    # --- door 3

    async def fetch(self) -> datetime | None:
        return await self.fetch_job.run()

    async def send(self) -> tuple[datetime | None, datetime | None]:
        """Both channels, once."""
        return await self.sms_job.run(), await self.mail_job.run()

    async def settle(self, *, receipts: bool = True) -> None:
        """Everything that is due now is done, receipts included if the carrier sends any soon."""
        await self.fetch()
        await self.send()
        if receipts:
            await self.hear_receipts()

    async def hear_receipts(self) -> None:
        """The clock goes on until the carrier has pushed what it has to push now."""
        while (pending := self.world.agenda.pending()).now or pending.next_at:
            if not pending.now and pending.next_at:
                self.clock.jump(pending.next_at)
            await asyncio.sleep(0.005)

    # --- what is there

    async def messages(self, registration_id: UUID, occasion: str) -> dict[str, dict[str, Any]]:
        """The messages of one occasion by channel; exactly one each."""
        rows = await self.rows(
            "select * from messages where registration_id = $1 and occasion = $2", registration_id, occasion
        )
        found = {row["channel"]: row for row in rows}
        assert len(found) == len(rows)
        return found

    async def states(self, registration_id: UUID, occasion: str) -> dict[str, str]:
        return {c: row["state"] for c, row in (await self.messages(registration_id, occasion)).items()}

    async def told(self) -> list[Delivered | Undeliverable]:
        """What was said of deliveries."""
        found = await self.said()
        assert all(isinstance(event, Delivered | Undeliverable) for event in found)
        return cast("list[Delivered | Undeliverable]", found)

    def copies(self, one: UUID, channel: str) -> int:
        """How many times this person was sent something on this channel."""
        return len(self.sms_to(one)) if channel == "sms" else len(self.mails_to(one))

    def sms_to(self, registration_id: UUID) -> list[str]:
        """References the carrier was given for this person, copies included."""
        phone = self.registry.people[str(registration_id)]["phone"]
        hashed = sha256((phone or "").encode()).hexdigest()
        books = (*self.world.sms.messages, *self.world.tencent.messages)
        return [message.out_id for message in books if message.to == hashed]

    def mails_to(self, registration_id: UUID) -> list[dict[str, Any]]:
        """Mails in this person's mailbox."""
        address = self.registry.people[str(registration_id)]["email"]
        return [self.world.mailbox.read(position) for position in self.world.mailbox.of(address or "")]


@contextlib.asynccontextmanager
async def running(
    login: DatabaseLogin,
    directory: Path,
    carrier_keys: Path,
    at: str = START,
    *,
    both: bool = False,
    **given: Any,
) -> AsyncIterator[System]:
    """The service and its carriers on one virtual clock that stands still until a test moves it.

    `both`: it has an account at both carriers of SMS. The rest are its settings.
    """
    ClockControl(directory / "clock", moment(at))
    clock = RehearsalClock(directory / "clock")
    registry = Registry()
    systems: list[System] = []

    async def forward(request: Request) -> Reply:
        return await systems[0].forward(request)

    async with (
        serving(forward) as url,
        serving(registry.handle) as registry_url,
        # The carrier knows the approved texts and fills them itself, as the real one does.
        Simulators(
            Plan(
                keys=carrier_keys,
                data=directory / "carriers",
                templates=Wording.load().approved(),
                tencent_templates=Wording.load().approved("tencent"),
            ),
            clock,
        ) as world,
    ):
        if both:
            given["tencent_account_file"] = world.accounts["tencent"]
        system = System(login, directory, world, registry, registry_url, **given)
        world.sms.receipts_url = f"{url}/carriers/aliyun/receipts/{system.secret}"
        world.tencent.receipts_url = f"{url}/carriers/tencent/receipts/{system.secret}"
        systems.append(system)
        try:
            yield system
        finally:
            await system.end()


def pre_registered(registration_id: UUID, site: str = "shizhong") -> registration.PreRegistered:
    return registration.PreRegistered(
        cycle_id=CYCLE,
        registration_id=registration_id,
        site_id=site,
        specialty_code="203",
        level="junior",
        subjects=(1, 2, 3, 4),
        form_version=1,
        returning=False,
    )


def closing_soon(registration_id: UUID, hours: int = 24) -> payment.ClosingSoon:
    return payment.ClosingSoon(
        cycle_id=CYCLE,
        registration_id=registration_id,
        amount_fen=28_000,
        closes_at=moment(CLOSE),
        offset=hours * 3600,
    )


def due(registration_id: UUID) -> payment.Due:
    return payment.Due(
        cycle_id=CYCLE,
        registration_id=registration_id,
        amount_fen=28_000,
        currency="CNY",
        opens_at=moment("2024-01-29 00:00"),
        closes_at=moment(CLOSE),
    )


def paid(registration_id: UUID) -> payment.Paid:
    return payment.Paid(
        cycle_id=CYCLE,
        registration_id=registration_id,
        amount_fen=28_000,
        paid_at=moment("2024-02-01 10:00"),
        channel=Channel.WECHAT,
        order_no="K2024000000000000000001",
    )


def expired(registration_id: UUID) -> payment.Expired:
    return payment.Expired(
        cycle_id=CYCLE,
        registration_id=registration_id,
        closes_at=moment(CLOSE),
        cause=ExpiryCause.UNPAID,
        proof_id=uuid7(),
    )


def receipts(
    references: Iterable[str], *, success: bool = True, code: str = "DELIVERED"
) -> list[dict[str, Any]]:
    """As the carrier pushes them."""
    return [
        {
            "phone_number": "13900000000",
            "send_time": "2023-12-05 12:00:00",
            "report_time": "2023-12-05 12:00:02",
            "success": success,
            "err_code": code,
            "err_msg": "",
            "sms_size": "1",
            "biz_id": f"{number}^0",
            "out_id": reference,
        }
        for number, reference in enumerate(references)
    ]
