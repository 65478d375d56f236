"""The payment service on a real, migrated database, before the simulated WeChat gateway, with its three doors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx2
from uuid_utils.compat import uuid7

from contracts import confirmation
from contracts.event import Event
from contracts.reasons import ReasonCode, WithdrawalReason
from contracts.registration import Withdrawn
from deploy.local.databases import DatabaseLogin
from deploy.local.keys import LocalKeys
from deploy.simulators.gateway import Gateway
from deploy.simulators.http import Reply, Request, serving
from deploy.simulators.outage import Outage
from deploy.simulators.world import Plan, Simulators
from services.chassis.clock import ClockControl, RehearsalClock
from services.chassis.clock_guard import Disagreement
from services.chassis.db import UnitOfWork
from services.payment.app import create_app
from services.payment.jobs import Turns
from services.payment.settings import NOTIFY_PATH, Settings
from tests.support.under_test import ServiceUnderTest, names

CYCLE_FILE = Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml"
CYCLE = "2024-health-leshan"
BEIJING = ZoneInfo("Asia/Shanghai")
OPENS, CLOSES = "2024-01-29 00:00", "2024-02-09 00:00"
_WAITING = "select count(*) as n from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


def moment(text: str) -> datetime:
    """A moment as people in Leshan write it; microseconds may be written."""
    return datetime.fromisoformat(text).replace(tzinfo=BEIJING).astimezone(UTC)


class System(ServiceUnderTest):
    """The service, the gateway, and what a test does to both from outside."""

    topic = "exam.payment"
    tables: ClassVar[Mapping[str, str]] = {
        "obligations": "registration_id",
        "orders": "order_no",
        "answers": "answer_id",
        "ledger": "entry_id",
        "refunds": "refund_no",
        "proofs": "number",
        "closings": "closes_at",
        "reminders": "registration_id, told_closes_at, offset_seconds",
        "reminder_runs": "told_closes_at, offset_seconds",
        "windows": "site_id",
        "decisions": "decision_id",
        "verdicts": "decision_id",
        "carried_out": "decision_id",
        "reconciliations": "number",
        "explanations": "bill_id, subject, reason",
        "breaks": "number",
        "break_closings": "break_id",
        "outbox": "id",
        "parked": "id",
    }

    def __init__(self, login: DatabaseLogin, directory: Path, world: Simulators, url: str) -> None:
        super().__init__()
        self.clock = ClockControl(directory / "clock")
        self.world = world
        self.url = url
        self.tokens = LocalKeys.of(directory / "keys", ["payment"]).tokens
        keys = LocalKeys.of(directory / "keys", ["payment"])
        self.settings = Settings(
            environment="local",
            database_url=login.url,
            kafka_bootstrap_servers="127.0.0.1:9",
            cycle_file=CYCLE_FILE,
            token_keys_file=keys.token_keys_file,
            vault_keys_file=keys.vault_file("payment"),
            clock_file=directory / "clock",
            wechat_account_file=world.accounts["wechat"],
            notify_base_url=url,
        )
        self.start()
        self.clocks_disagree: str | None = None
        self.heard: list[int] = []
        self.kept: list[tuple[dict[str, str], bytes]] | None = None  # notices held back from the service

    async def with_alipay(self) -> None:
        """From now on the office has an account there too."""
        await self.end()
        self.settings = self.settings.model_copy(
            update={"alipay_account_file": self.world.accounts["alipay"]}
        )
        self.start()

    def start(self) -> None:
        """A new process of the service, on the database that the settings name."""
        self.process = create_app(self.settings)
        self.cycle = self.process.plumbing.cycle
        jobs = {job.name: job for job in self.process.jobs.jobs}
        self.close_job, self.settle_job = jobs["close-window"], jobs["settle-orders"]
        self.remind_job, self.refund_job = jobs["remind"], jobs["refund"]
        self.carry_out_job, self.reconcile_job = jobs["carry-out"], jobs["reconcile"]
        turns = getattr(self.remind_job.run, "__self__", None)
        assert isinstance(turns, Turns)
        self.turns = turns
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.process.public), base_url="http://payment.test"
        )

    async def end(self) -> None:
        await self.http.aclose()
        for resource in self.process.resources:
            await resource.__aexit__(None, None, None)
        await self.database.dispose()

    def at(self, text: str) -> datetime:
        """Move time to this moment in Leshan."""
        self.clock.jump(moment(text))
        return moment(text)

    async def check_clocks(self) -> Disagreement | None:
        """What the clock guard says in this system."""
        if self.clocks_disagree is None:
            return None
        return Disagreement(self.clocks_disagree, datetime.now(UTC), None, None)

    # --- door 1

    async def call(self, method: str, path: str, role: str | None, body: object = None) -> httpx2.Response:
        headers = {"authorization": f"Bearer {self.token(role)}"} if role else {}
        return await self.http.request(method, path, json=body, headers=headers)

    def token(self, role: str) -> str:
        return self.tokens.mint(role, f"account-of-{role}", at=moment(OPENS))

    async def order(self, registration_id: UUID, channel: str = "wechat") -> httpx2.Response:
        return await self.call(
            "POST",
            f"/registrations/{registration_id}/orders",
            f"candidate:{registration_id}",
            {"channel": channel},
        )

    async def ordered(self, registration_id: UUID, channel: str = "wechat") -> str:
        answer = await self.order(registration_id, channel)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["order_no"])

    async def office(self, path: str) -> dict[str, Any]:
        answer = await self.call("GET", f"/office/{path}", "office")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def forward(self, request: Request) -> Reply:
        """What the gateway sends to the notify route reaches the service."""
        if self.kept is not None:
            sealed = {name: value for name, value in request.headers.items() if name.startswith("wechatpay-")}
            self.kept.append((sealed, request.body))
            return Reply(200)
        answer = await self.http.request(
            request.method, request.path, content=request.body, headers=dict(request.headers)
        )
        self.heard.append(answer.status_code)
        return Reply(answer.status_code, answer.content)

    # --- the gateway

    def pay(self, order_no: str, callbacks: Sequence[float] = ()) -> None:
        """A person pays at the gateway that has the order; it calls back after each of these seconds."""
        self._gateway_of(order_no).pay(order_no, list(callbacks))

    async def call_back(self, order_no: str) -> None:
        """The gateway tells us, now."""
        self._gateway_of(order_no).notify_again(order_no, None)
        await self.gateway_at_rest()

    def _gateway_of(self, order_no: str) -> Gateway:
        return self.world.alipay if self.world.alipay.book.find(order_no) else self.world.wechat

    async def gateway_at_rest(self) -> None:
        while self.world.agenda.pending().now:
            await asyncio.sleep(0.001)

    async def paid_and_heard(self, order_no: str) -> None:
        self.pay(order_no)
        await self.call_back(order_no)

    def gateway_down(self, seconds: float, how: Outage = Outage.REFUSE) -> None:
        self.world.wechat.weather.bring(seconds, how)

    async def notify(self, headers: dict[str, str], body: bytes) -> httpx2.Response:
        return await self.http.post(NOTIFY_PATH, content=body, headers=headers)

    # --- door 2

    async def deliver(self, *events: Event) -> None:
        """Each event twice in one poll, and the whole poll again."""
        await self.deliver_twice([self.record(event) for event in events])

    async def approved(self, many: int = 1) -> list[UUID]:
        found = [uuid7() for _ in range(many)]
        await self.deliver(*(approved(one) for one in found))
        return found

    async def owing(self) -> UUID:
        return (await self.approved())[0]

    # --- door 3

    async def close(self) -> datetime | None:
        return await self.close_job.run()

    async def settle(self) -> datetime | None:
        return await self.settle_job.run()

    async def refund(self) -> datetime | None:
        return await self.turns.refund()

    async def reconcile(self) -> datetime | None:
        return await self.reconcile_job.run()

    async def remind(self) -> datetime | None:
        return await self.remind_job.run()

    # --- what is there

    async def obligation(self, registration_id: UUID) -> dict[str, Any]:
        return (await self.rows("select * from obligations where registration_id = $1", registration_id))[0]

    async def status(self, registration_id: UUID) -> str:
        return str((await self.obligation(registration_id))["status"])

    async def order_row(self, order_no: str) -> dict[str, Any]:
        return (await self.rows("select * from orders where order_no = $1", order_no))[0]

    async def ledger(self, registration_id: UUID) -> list[tuple[str, int, str | None]]:
        rows = await self.rows(
            "select kind, amount_fen, cause from ledger where registration_id = $1 order by entry_id",
            registration_id,
        )
        return [(row["kind"], row["amount_fen"], row["cause"]) for row in rows]

    async def words(self, key: UUID | str | None) -> list[str]:
        """What was said of this key, without service and version."""
        return names(await self.said(key))

    async def until_waiting(self, many: int = 1) -> None:
        """Until so many wait for a row that somebody else holds."""
        for _ in range(500):
            if (await self.rows(_WAITING))[0]["n"] == many:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"not {many} came to wait")

    @contextlib.asynccontextmanager
    async def other_session(self) -> AsyncIterator[UnitOfWork]:
        """A second session's open transaction, committed at the end of the block."""
        async with self.database.unit_of_work() as uow:
            yield uow


@contextlib.asynccontextmanager
async def running(
    login: DatabaseLogin, directory: Path, gateway_keys: Path, at: str = OPENS
) -> AsyncIterator[System]:
    """The service and its gateway on one virtual clock that stands still until a test moves it."""
    ClockControl(directory / "clock", moment(at))
    clock = RehearsalClock(directory / "clock")
    systems: list[System] = []

    async def forward(request: Request) -> Reply:
        return await systems[0].forward(request)

    async with (
        serving(forward) as url,
        Simulators(Plan(keys=gateway_keys, data=directory / "gateway"), clock) as world,
    ):
        system = System(login, directory, world, url)
        systems.append(system)
        try:
            yield system
        finally:
            await system.gateway_at_rest()
            await system.end()


def approved(registration_id: UUID, **changed: Any) -> confirmation.Approved:
    facts: dict[str, Any] = {
        "cycle_id": CYCLE,
        "level": "junior",
        "subjects": (1, 2, 3, 4),
        "specialty_code": "203",
        **changed,
    }
    return confirmation.Approved(registration_id=registration_id, **facts)


def rejected(registration_id: UUID) -> confirmation.Rejected:
    return confirmation.Rejected(
        cycle_id=CYCLE,
        registration_id=registration_id,
        level="site",
        reason_codes=(ReasonCode.EDUCATION,),
    )


def returned(registration_id: UUID) -> confirmation.Returned:
    return confirmation.Returned(
        cycle_id=CYCLE,
        registration_id=registration_id,
        level="desk",
        reason_codes=(ReasonCode.FORM_OUTDATED,),
        fix_until=None,
    )


def withdrawn(registration_id: UUID) -> Withdrawn:
    return Withdrawn(cycle_id=CYCLE, registration_id=registration_id, reason_code=WithdrawalReason.PERSONAL)


def hours(count: float) -> timedelta:
    return timedelta(hours=count)
