"""The composition root of payment: the only file that sees its doors and its gateways."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime

from services.chassis.clock import Clock
from services.chassis.process import CannotStart, Plumbing, Process
from services.payment import api
from services.payment.adapters.alipay import Alipay
from services.payment.adapters.alipay_signatures import AlipayAccount
from services.payment.adapters.asking import AccountInvalid
from services.payment.adapters.wechat import WeChatPay
from services.payment.adapters.wechat_signatures import WeChatAccount
from services.payment.consumers import HANDLERS
from services.payment.handlers.reconciling import Bills
from services.payment.handlers.refunding import Refunds
from services.payment.handlers.settling import Gateways
from services.payment.jobs import Turns, carry_out_job, make_jobs, reconcile_job
from services.payment.ports import Capability
from services.payment.settings import Settings


def create_app(settings: Settings) -> Process:
    """The service, put together; nothing is connected yet."""
    plumbing = Plumbing.of(settings)
    channels = _channels(settings, plumbing.clock)
    database, cycle, vault = plumbing.database, plumbing.cycle, plumbing.vault

    def refund_soon() -> None:
        refund.wake()  # made below, of what is made here

    gateways = Gateways(channels, database, cycle, vault, refund_soon)
    refunds = Refunds(channels, database, cycle, vault)
    turns = Turns(gateways, refunds, plumbing.clock, plumbing.guard, settings.sweep_chunk, plumbing.visitors)
    close, settle, remind, refund, post_fees = make_jobs(turns)
    carry_out = carry_out_job(turns, close, settle, remind)
    bills = Bills(
        {name: one for name, one in channels.items() if Capability.BILLS in one.capabilities}, gateways
    )
    reconcile = reconcile_job(turns, bills)

    def decided() -> None:
        carry_out.wake()
        close.wake()  # what was rejected holds nobody's close up any more

    def ask_at(moment: datetime) -> None:
        """An order has to be asked about then: only an earlier moment than the known one needs a word."""
        if settle.due_at is None or moment < settle.due_at:
            settle.wake()

    return Process(
        plumbing,
        public=[
            api.public_routes(gateways, ask_at=ask_at, close_again=close.wake),
            api.notice_routes(gateways),
            api.decision_routes(gateways, decided=decided),
            api.bill_routes(bills, fetch=reconcile.wake),
        ],
        handlers=HANDLERS,
        deps={
            "cycle": plumbing.cycle,
            "ask_gateway": settle.wake,
            "close_again": close.wake,
            "refund_soon": refund_soon,
        },
        jobs=[close, settle, remind, refund, post_fees, carry_out, reconcile],
        resources=[aclosing(channel) for channel in channels.values()],
    )


def _channels(settings: Settings, clock: Clock) -> dict[str, WeChatPay | Alipay]:
    """Those that an account is given for, by name."""
    channels: dict[str, WeChatPay | Alipay] = {}
    try:
        wechat = WeChatAccount.read(settings.wechat_account_file)
        channels["wechat"] = WeChatPay(wechat, notify_url=settings.wechat_notify_url, clock=clock)
        if settings.alipay_account_file is not None:
            alipay = AlipayAccount.read(settings.alipay_account_file)
            channels["alipay"] = Alipay(alipay, notify_url=settings.alipay_notify_url, clock=clock)
    except AccountInvalid as error:
        raise CannotStart(f"the gateway account is unusable: {error}") from None
    return channels
