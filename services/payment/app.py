"""The composition root of payment: the only file that sees its doors and its gateways."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime

from services.chassis.process import CannotStart, Plumbing, Process
from services.payment import api
from services.payment.adapters.wechat import WeChatPay
from services.payment.adapters.wechat_signatures import AccountInvalid, WeChatAccount
from services.payment.consumers import HANDLERS
from services.payment.handlers.settling import Gateways
from services.payment.jobs import Turns, make_jobs
from services.payment.settings import Settings


def create_app(settings: Settings) -> Process:
    """The service, put together; nothing is connected yet."""
    try:
        account = WeChatAccount.read(settings.wechat_account_file)
    except AccountInvalid as error:
        raise CannotStart(f"the gateway account is unusable: {error}") from None
    plumbing = Plumbing.of(settings)
    wechat = WeChatPay(
        account,
        notify_url=settings.wechat_notify_url,
        clock=plumbing.clock,
    )
    gateways = Gateways(
        channels={wechat.name: wechat}, database=plumbing.database, cycle=plumbing.cycle, vault=plumbing.vault
    )
    close, settle, remind = make_jobs(Turns(gateways, plumbing.clock, plumbing.guard, settings.sweep_chunk))

    def ask_at(moment: datetime) -> None:
        """An order has to be asked about then: only an earlier moment than the known one needs a word."""
        if settle.due_at is None or moment < settle.due_at:
            settle.wake()

    return Process(
        plumbing,
        public=[api.public_routes(gateways, ask_at=ask_at)],
        handlers=HANDLERS,
        deps={"cycle": plumbing.cycle, "ask_gateway": settle.wake, "close_again": close.wake},
        jobs=[close, settle, remind],
        resources=[aclosing(wechat)],
    )
