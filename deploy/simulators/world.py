"""The whole simulated outside in one event loop: five HTTP ports, one SMTP port, one agenda."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from deploy.simulators.agenda import Agenda
from deploy.simulators.alipay import TRADE_NO, AlipayGateway
from deploy.simulators.aliyun import AliyunCarrier
from deploy.simulators.control import ControlPort
from deploy.simulators.credentials import Credentials
from deploy.simulators.http import HOST, listen, serving
from deploy.simulators.journal import Journal
from deploy.simulators.mailbox import Mailbox
from deploy.simulators.order_book import OrderBook
from deploy.simulators.refund_book import RefundBook
from deploy.simulators.smtp import Door, SmtpSession
from deploy.simulators.tencent import TencentCarrier
from deploy.simulators.wechat import WeChatGateway
from services.chassis.clock import Clock
from services.chassis.wire import Wires


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the simulators live and how they behave. A port of 0 is chosen by the machine."""

    keys: Path
    data: Path
    wechat_port: int = 0
    alipay_port: int = 0
    sms_port: int = 0
    tencent_port: int = 0
    smtp_port: int = 0
    smtp_open: bool = False  # an open relay that asks nobody anything
    control_port: int = 0
    receipts_url: str | None = None
    tencent_receipts_url: str | None = None
    receipt_delay: timedelta = timedelta(seconds=2)
    receipt_grid: timedelta = timedelta(seconds=5)
    templates: Mapping[str, str] = field(default_factory=dict)
    tencent_templates: Mapping[str, str] = field(default_factory=dict)


class Simulators:
    """`async with Simulators(plan, clock) as world`: everything is listening inside, nothing afterwards."""

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self._plan = plan
        self._clock = clock
        self._stack = contextlib.AsyncExitStack()
        self.agenda = Agenda(clock)
        self.credentials = Credentials.of(plan.keys)
        self._sessions: set[SmtpSession] = set()
        books = ("wechat", "alipay", "sms", "wechat-refunds", "alipay-refunds", "tencent")
        self._journals = tuple(Journal(plan.data / f"{name}.jsonl") for name in books)
        self._client = Wires(connections=64, patience=30.0, limit=1 << 20)
        wechat, alipay = OrderBook(self._journals[0]), OrderBook(self._journals[1], TRADE_NO)
        self.wechat = WeChatGateway(
            self.credentials.wechat,
            wechat,
            RefundBook(self._journals[3], wechat),
            clock,
            self.agenda,
            self._client,
        )
        self.alipay = AlipayGateway(
            self.credentials.alipay,
            alipay,
            RefundBook(self._journals[4], alipay),
            clock,
            self.agenda,
            self._client,
        )
        receipts = {"receipt_delay": plan.receipt_delay, "receipt_grid": plan.receipt_grid}
        self.sms = AliyunCarrier(
            self.credentials.aliyun,
            clock,
            self.agenda,
            self._journals[2],
            self._client,
            templates=plan.templates,
            receipts_url=plan.receipts_url,
            **receipts,
        )
        self.tencent = TencentCarrier(
            self.credentials.tencent,
            clock,
            self.agenda,
            self._journals[5],
            self._client,
            templates=plan.tencent_templates,
            receipts_url=plan.tencent_receipts_url,
            **receipts,
        )
        self.mailbox = Mailbox(plan.data / "mail.mbox", clock, self.agenda)
        self.control = ControlPort(
            clock,
            self.agenda,
            {"wechat": self.wechat, "alipay": self.alipay},
            {"sms": self.sms, "tencent": self.tencent},
            self.mailbox,
        )
        self.wechat_url = self.alipay_url = self.sms_url = self.tencent_url = self.control_url = ""
        self.smtp_port = 0
        self.accounts: dict[str, Path] = {}

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.mailbox.close)
            for journal in self._journals:
                stack.callback(journal.close)
            stack.push_async_callback(self._client.aclose)
            agenda = asyncio.create_task(self.agenda.run())
            stack.push_async_callback(_end, agenda)
            self.smtp_port = await self._start_smtp(stack)
            plan = self._plan
            self.wechat_url = await stack.enter_async_context(serving(self.wechat.handle, plan.wechat_port))
            self.alipay_url = await stack.enter_async_context(serving(self.alipay.handle, plan.alipay_port))
            self.sms_url = await stack.enter_async_context(serving(self.sms.handle, plan.sms_port))
            self.tencent_url = await stack.enter_async_context(
                serving(self.tencent.handle, plan.tencent_port)
            )
            self.control_url = await stack.enter_async_context(
                serving(self.control.handle, plan.control_port)
            )
            self.accounts = self.credentials.write_account_files(
                self.wechat_url, self.alipay_url, self.sms_url, self.smtp_port, self.tencent_url
            )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def whereabouts(self) -> dict[str, Any]:
        """What others must know to use the simulated outside."""
        return {
            "wechat": self.wechat_url,
            "alipay": self.alipay_url,
            "sms": self.sms_url,
            "tencent": self.tencent_url,
            "control": self.control_url,
            "smtp": {"host": HOST, "port": self.smtp_port},
            "mail_page": f"{self.control_url}/mail",
            "bounces": str(self.mailbox.bouncer.directory),
            "accounts": {name: str(path) for name, path in self.accounts.items()},
        }

    def record_whereabouts(self) -> Path:
        path = self._plan.data / "simulators.json"
        path.write_text(json.dumps(self.whereabouts(), indent=2) + "\n", encoding="utf-8")
        return path

    async def _start_smtp(self, stack: contextlib.AsyncExitStack) -> int:
        listening = listen(self._plan.smtp_port)
        mail = self.credentials.mail
        door = None if self._plan.smtp_open else Door(mail.tls(), mail.username, mail.password)
        server = await asyncio.get_running_loop().create_server(
            lambda: SmtpSession(self.mailbox, self._sessions, door), sock=listening
        )
        stack.callback(self._end_sessions)
        stack.callback(server.close)
        port: int = listening.getsockname()[1]
        return port

    def _end_sessions(self) -> None:
        for session in list(self._sessions):
            session.close()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
