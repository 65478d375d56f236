"""The four services in one process: their real doors, handlers, jobs and relays, with clock, broker and outside simulated."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch
from uuid import UUID

from contracts.event import Event
from contracts.reasons import Carrier
from deploy.local.databases import DatabaseLogin
from deploy.local.keys import LocalKeys
from services.chassis import process as assembling
from services.chassis.clock import RehearsalClock
from services.chassis.clock_guard import TOLERANCE, ClockGuard, Disagreement, Readings
from services.chassis.consuming import Handler
from services.chassis.db import UnitOfWork
from services.chassis.heard import Heard
from services.chassis.jobs import Job, Jobs
from services.chassis.process import Plumbing, Process
from services.confirmation import app as confirmation
from services.confirmation.settings import Settings as ConfirmationSettings
from services.notification import api as notification_api
from services.notification import jobs as notification_jobs
from services.notification.api.carriers import carrier_routes
from services.notification.app import sending_by_mail, sending_by_sms
from services.notification.consumers import HANDLERS as NOTIFICATION_HANDLERS
from services.notification.domain.life import State
from services.notification.handlers.delivery import Channel, Delivery
from services.notification.handlers.telling import Teller
from services.notification.ports import Contact
from services.notification.settings import Settings as NotificationSettings
from services.notification.templates.wording import Wording
from services.payment import api as payment_api
from services.payment.api.notices import notice_routes
from services.payment.consumers import HANDLERS as PAYMENT_HANDLERS
from services.payment.handlers.refunding import Refunds
from services.payment.handlers.settling import Gateways
from services.payment.jobs import Turns, carry_out_job, make_jobs
from services.payment.settings import Settings as PaymentSettings
from services.registration import app as registration
from services.registration.settings import Settings as RegistrationSettings
from tests.simulation.gateway import SimulatedGateway
from tests.simulation.lives import is_interleaved
from tests.simulation.outside import SimulatedCarriers

ORDER = ("registration", "confirmation", "payment", "notification")
SECRET = "simulated-receipts-secret"
CYCLE_FILE = Path(__file__).parents[2] / "deploy" / "cycles" / "2024-health-leshan.toml"


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body) if self.body else {}


async def call(app: Any, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Reply:
    """One request through a door, without a socket."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    parts: list[bytes] = []
    status = 0
    given = False

    async def receive() -> dict[str, Any]:
        nonlocal given
        if given:
            return {"type": "http.disconnect"}
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return Reply(status, b"".join(parts))


class StepClock(RehearsalClock):
    """The clock of one service's machine, which may be stepped away from the time that everybody else has."""

    step = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.step


@dataclass
class _Guard:
    """The comparison of three clocks, two of which are never stepped here: how they are read is tested where it is done."""

    clock: StepClock
    agreed: Readings | None = None

    async def check(self) -> Disagreement | None:
        at = RehearsalClock.now(self.clock)
        if abs(self.clock.step) <= TOLERANCE:
            self.agreed = Readings(self.clock.now(), at, at)
            return None
        return Disagreement("application stands alone", self.clock.now(), at, at)

    @property
    def ahead(self) -> timedelta:
        """By how much the close has to wait for the clocks that are slower."""
        return max(timedelta(0), self.clock.step)


class Spoilt(ValueError):
    """What a handler raises for an event that somebody has spoilt; for a reason of its own, so trying again does not help."""


@dataclass
class _Contacts:
    """Registration's internal route, through its real door."""

    door: Callable[[], Any]
    headers: Mapping[str, str]

    async def look_up(self, registration_ids: Sequence[UUID]) -> list[Contact]:
        body = json.dumps({"registration_ids": [str(one) for one in registration_ids]}).encode()
        reply = await call(
            self.door(),
            "POST",
            "/internal/contacts",
            {**self.headers, "content-type": "application/json"},
            body,
        )
        if reply.status != 200:
            raise ConnectionError(f"registration answered {reply.status}")
        return [
            Contact(UUID(one["registration_id"]), one["number"][-4:], one.get("phone"), one.get("email"))
            for one in reply.json()["contacts"]
        ]


@dataclass
class Services:
    """What a run is played on. Made once for many runs."""

    directory: Path
    logins: Mapping[str, DatabaseLogin]
    clock: RehearsalClock
    gateways: Mapping[str, SimulatedGateway]
    carriers: SimulatedCarriers
    keys: LocalKeys = field(init=False)
    processes: dict[str, Process] = field(init=False, default_factory=dict)
    clocks: dict[str, StepClock] = field(init=False, default_factory=dict)
    rivals: dict[str, Jobs] = field(init=False, default_factory=dict)
    """The jobs of a second process of each service; what keeps the two apart is the real lock."""
    spoilt: set[tuple[str, UUID]] = field(default_factory=set)
    """Service and event that it cannot take in for the time being."""
    on_refusal: Callable[[str], None] = lambda _service: None
    dirty: set[str] = field(default_factory=set)
    """Services whose relay was told of something new."""

    def __post_init__(self) -> None:
        self.keys = LocalKeys.of(self.directory / "keys", ORDER)
        for name, content in (
            ("wechat", {"gateway_url": "http://127.0.0.1:9"}),
            ("aliyun", {"endpoint": "http://127.0.0.1:9"}),
            ("smtp", {"host": "127.0.0.1", "port": 9}),
        ):
            (self.directory / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        for name in ORDER:
            self.start(name)
        self._jobs = [(name, job) for name in ORDER for job in self.processes[name].jobs.jobs]

    def begin(self) -> None:
        """A new run: nothing is remembered, and every process has just begun."""
        self.dirty.clear()
        self.spoilt.clear()
        for name in ORDER:
            self.clocks[name].step = timedelta(0)
            self.restart(name)

    def start(self, name: str) -> None:
        """Put this service together."""
        with patch.object(assembling, "RehearsalClock", StepClock):
            process: Process = getattr(self, f"_{name}")()
        process.plumbing.database.on_events = lambda: self.dirty.add(name)
        self.clocks[name] = cast("StepClock", process.plumbing.clock)
        self.rivals[name] = Jobs(
            process.jobs.jobs, clock=process.plumbing.clock, database_url=process.plumbing.database.url
        )
        taking = process.consumers._by_name
        for handler in taking:
            taking[handler] = self._refusing(name, taking[handler])
        self.processes[name] = process
        self.restart(name)

    def _refusing(self, name: str, handler: Handler) -> Handler:
        async def take(uow: UnitOfWork, events: Sequence[Event]) -> None:
            if self.spoilt and any((name, event.envelope.event_id) in self.spoilt for event in events):
                self.on_refusal(name)
                raise Spoilt
            await handler(uow, events)

        return take

    def restart(self, name: str) -> None:
        """As a process that has just begun: all that one remembers between two actions is when its jobs are due, and how far
        it has got with each key.

        A relay and jobs that start look at once.
        """
        self.processes[name].consumers._heard = Heard()
        self.look_again(name)
        for job in self.processes[name].jobs.jobs:
            job.due_at = None

    def look_again(self, name: str) -> None:
        """What a relay and jobs do by themselves after a while, whether or not anybody told them of anything."""
        self.dirty.add(name)
        for job in self.processes[name].jobs.jobs:
            job.wake()

    def _given(self, service: str) -> dict[str, Any]:
        return {
            "environment": "local",
            "database_url": self.logins[service].url,
            "database_pool_size": 6,
            "kafka_bootstrap_servers": "127.0.0.1:9",
            "cycle_file": CYCLE_FILE,
            "token_keys_file": self.keys.token_keys_file,
            "vault_keys_file": self.keys.vault_file(service),
            "clock_file": self.directory / "clock",
        }

    def _registration(self) -> Process:
        return registration.create_app(RegistrationSettings(**self._given("registration")))

    def _confirmation(self) -> Process:
        return confirmation.create_app(ConfirmationSettings(**self._given("confirmation")))

    def _payment(self) -> Process:
        settings = PaymentSettings(
            **self._given("payment"),
            wechat_account_file=self.directory / "wechat.json",
            notify_base_url="http://127.0.0.1:9",
        )
        plumbing = Plumbing.of(settings)
        database, cycle, vault = plumbing.database, plumbing.cycle, plumbing.vault

        def refund_soon() -> None:
            refund.wake()  # made below, of what is made here

        gateways = Gateways(self.gateways, database, cycle, vault, refund_soon)
        refunds = Refunds(self.gateways, database, cycle, vault)
        guard = cast("ClockGuard", _Guard(cast("StepClock", plumbing.clock)))
        turns = Turns(gateways, refunds, plumbing.clock, guard)
        jobs = make_jobs(turns)
        close, settle, remind, refund, _ = jobs
        carry_out = carry_out_job(turns, close, settle, remind)

        def ask_at(moment: datetime) -> None:
            if settle.due_at is None or moment < settle.due_at:
                settle.wake()

        def decided() -> None:
            carry_out.wake()
            close.wake()

        return Process(
            plumbing,
            public=[
                payment_api.public_routes(gateways, ask_at=ask_at, close_again=close.wake),
                payment_api.decision_routes(gateways, decided=decided),
                notice_routes(gateways),
            ],
            handlers=PAYMENT_HANDLERS,
            deps={
                "cycle": plumbing.cycle,
                "ask_gateway": settle.wake,
                "close_again": close.wake,
                "refund_soon": refund_soon,
            },
            jobs=[*jobs, carry_out],
        )

    def _notification(self) -> Process:
        settings = NotificationSettings(
            **self._given("notification"),
            aliyun_account_file=self.directory / "aliyun.json",
            smtp_account_file=self.directory / "smtp.json",
            receipts_secret_file=self.keys.receipts_secret_file,
            registration_internal_url="http://127.0.0.1:9",
            service_token_file=self.keys.service_token_file(
                "notification", at=datetime(2023, 1, 1, tzinfo=UTC)
            ),
        )
        plumbing = Plumbing.of(settings)
        wording = Wording.load()
        # One at a time: which of several leaves first is not chance's to say.
        channels = (
            Channel.of_one(Carrier.SMS, "aliyun", sending_by_sms(self.carriers), State.ACCEPTED, 1),
            Channel.of_one(Carrier.EMAIL, "smtp", sending_by_mail(self.carriers), State.DELIVERED, 1),
        )
        deliver = notification_jobs.delivery_jobs(
            [
                (
                    str(channel.carrier),
                    Delivery(
                        channel,
                        database=plumbing.database,
                        cycle=plumbing.cycle,
                        wording=wording,
                        vault=plumbing.vault,
                    ),
                )
                for channel in channels
            ]
        )

        def on_messages() -> None:
            for job in deliver:
                job.wake()

        token = self.keys.tokens.mint(
            ["service"], "notification", at=datetime(2023, 1, 1, tzinfo=UTC), lifetime=timedelta(days=3650)
        )
        contacts = _Contacts(
            lambda: self.processes["registration"].internal, {"authorization": f"Bearer {token}"}
        )
        fetch = notification_jobs.fetch_job(plumbing.database, contacts, plumbing.vault, on_messages)
        return Process(
            plumbing,
            public=[
                notification_api.public_routes(plumbing.database),
                notification_api.call_routes(plumbing.database, plumbing.vault),
                carrier_routes(plumbing.database, {"aliyun": self.carriers}, {"aliyun": 100.0}, SECRET),
            ],
            handlers=NOTIFICATION_HANDLERS,
            deps={"teller": Teller(plumbing.cycle, wording, fetch.wake, on_messages)},
            jobs=[fetch, *deliver, notification_jobs.calls_job(plumbing.database)],
        )

    # What a run does with them

    def jobs(self) -> list[tuple[str, Job]]:
        return self._jobs

    async def run_job(self, name: str, job: Job) -> None:
        """One turn, as the job's keeper takes it. The lock is asked for only where somebody could have it."""
        job.awake.clear()
        try:
            job.due_at = await (self.processes[name].jobs._once(job) if is_interleaved() else job.run())
        except Exception:
            job.due_at = self.clocks[name].now()
            raise

    async def run_rival(self, name: str, job: Job) -> None:
        """The same turn in the second process of the service. Whoever was locked out by it looks again after a while."""
        try:
            await self.rivals[name]._once(job)
        finally:
            job.wake()

    def door(self, name: str, *, internal: bool = False) -> Any:
        process = self.processes[name]
        return process.internal if internal else process.public

    async def let_go(self, name: str) -> None:
        """The sessions in which the service kept its jobs' locks are gone."""
        for jobs in (self.processes[name].jobs, self.rivals[name]):
            if jobs._locks is not None:
                await jobs._locks.execute("select pg_advisory_unlock_all()")

    async def end(self) -> None:
        for process in self.processes.values():
            await process.plumbing.database.dispose()
            for jobs in (process.jobs, self.rivals[process.plumbing.name]):
                if jobs._locks is not None:
                    await jobs._locks.close()
