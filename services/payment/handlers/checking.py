"""“Check my payment now”: a candidate has the gateway asked at once, and is told what it said and what to do.

What it says goes the way of every query (`settling`, `receiving`). An order that can still be paid is only asked about, never
closed: the candidate may be about to pay it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import structlog
from prometheus_client import Counter

from contracts.cycle import Cycle
from contracts.refusals import Code, Refused
from services.chassis.db import Row
from services.chassis.how_often import once_every
from services.chassis.tokens import Actor
from services.payment.domain.obligation import Status
from services.payment.domain.order import UNDECIDED, Order, OrderStatus
from services.payment.handlers.receiving import Mismatch
from services.payment.handlers.settling import Gateways, Settled
from services.payment.ports import ChannelError, OrderState
from services.payment.repository import ledger, obligations, orders, recoveries

log = structlog.get_logger(__name__)

AGAIN_AFTER: Final = timedelta(seconds=10)
_LATEST: Final = 3  # of the orders that are decided and said to be unpaid: somebody says otherwise

CHECKS = Counter(
    "kaowu_payment_checks", "Candidates who had the gateway asked, by what came of it", ["outcome"]
)


class Outcome(StrEnum):
    """What a check came to."""

    PAID = "paid"
    GOES_BACK = "goes-back"  # money was found that is no fee
    PAYING = "paying"
    UNPAID = "unpaid"
    NO_ANSWER = "no-answer"
    NO_ORDER = "no-order"
    RESTORING = "restoring"


_SENTENCES: Final = {
    Outcome.PAID: "已查到您的付款，缴费成功，无需再次支付。",
    Outcome.GOES_BACK: "已查到您的付款，但该笔付款不能作为考试费（超过截止时间、重复支付、金额不符或已无应缴费用），"
    "将原路全额退回，请留意短信和退款到账通知。",
    Outcome.PAYING: "支付渠道答复：正在支付，尚无结果。请不要重复支付，稍后再查。",
    Outcome.NO_ANSWER: "支付渠道暂时没有答复，您的缴费状态没有改变。如果已经付款，款项不会丢失，系统会继续查询；"
    "请稍后再查，不要重复支付。",
    Outcome.RESTORING: "系统正在恢复，尚在逐笔向支付渠道核对此前的订单，您的缴费状态没有改变；请稍后再查，不要重复支付。",
}


async def check_now(
    gateways: Gateways, registration_id: UUID, actor: Actor, *, decided: Callable[[], None]
) -> dict[str, Any]:
    """Ask about what this registration may have paid. `decided` is called when an order was decided after the close."""
    async with gateways.database.unit_of_work() as uow:
        owed = await obligations.find(uow, registration_id)
        if owed is None:
            raise Refused(Code.NOT_FOUND, "还没有应缴费用：资格审核全部通过后才能缴费。")
        await once_every(uow, actor, f"check-payment:{registration_id}", AGAIN_AFTER)
    async with gateways.database.reading() as uow:
        tries = await orders.of_registration(uow, registration_id)
        unasked = await recoveries.is_unasked(uow, registration_id)
    if unasked:
        outcome, asked = Outcome.RESTORING, 0
    else:
        outcome, asked = await _ask_all(gateways, owed, tries, uow.at)
    if asked and uow.at >= owed.closes_at:
        decided()
    async with gateways.database.reading() as uow:
        now = await obligations.find(uow, registration_id)
    assert now is not None, "an obligation is never deleted"
    if now.status == Status.PAID and outcome is not Outcome.GOES_BACK:
        outcome = Outcome.PAID
    CHECKS.labels(outcome).inc()
    return {
        "registration_id": registration_id,
        "state": now.status,
        "outcome": outcome,
        "asked": asked,
        "checked_at": uow.at,
        "message": _message(outcome, now, uow.at, gateways.cycle),
    }


async def _ask_all(
    gateways: Gateways, owed: Row, tries: Sequence[Order], at: datetime
) -> tuple[Outcome, int]:
    """What the gateways say of the orders under way; if there are none, of the latest that they said were unpaid."""
    chosen = [order for order in tries if order.status in UNDECIDED]
    if not chosen and owed.status != Status.PAID:
        chosen = [order for order in tries if order.status is OrderStatus.CLOSED][-_LATEST:]
    if not chosen:
        return Outcome.NO_ORDER, 0
    over = at >= owed.closes_at or owed.status in {Status.CANCELLED, Status.HELD}
    outcomes = [await _ask(gateways, order, at, over=over) for order in chosen]
    found = next(one for one in Outcome if one in outcomes)
    return found, len(chosen)


async def _ask(gateways: Gateways, order: Order, at: datetime, *, over: bool) -> Outcome:
    if order.status in UNDECIDED and (over or at >= order.expires_at):
        # Nobody can want to pay it any more: the last word, as at the close.
        settled = await gateways.settle(order)
        if settled is not Settled.PAID:
            return Outcome.UNPAID if settled is Settled.UNPAID else Outcome.NO_ANSWER
    else:
        channel = gateways.channels.get(order.channel)
        try:
            if channel is None:
                return Outcome.NO_ANSWER
            answer = await channel.query(order.order_no)
            if answer.state is not OrderState.PAID:
                return _UNSETTLED.get(answer.state, Outcome.UNPAID)
            await gateways.take(order, answer)
        except ChannelError as error:
            log.warning("gateway-silent", channel=order.channel, reason=str(error))
            return Outcome.NO_ANSWER
        except Mismatch as mismatch:
            log.error("answer-does-not-fit", order_no=order.order_no, reason=mismatch.reason)
            return Outcome.NO_ANSWER
    async with gateways.database.reading() as uow:
        goes_back = await ledger.is_no_fee(uow, order.registration_id, order.order_no)
    return Outcome.GOES_BACK if goes_back else Outcome.PAID


_UNSETTLED: Final = {OrderState.PAYING: Outcome.PAYING, OrderState.REFUNDED: Outcome.GOES_BACK}


def _message(outcome: Outcome, owed: Row, at: datetime, cycle: Cycle) -> str:
    if outcome in _SENTENCES:
        return _SENTENCES[outcome]
    said = "支付渠道答复：尚未收到您的付款。" if outcome is Outcome.UNPAID else "没有查到您的缴费订单。"
    if owed.status == Status.EXPIRED:
        office = f"请持付款凭证联系考点（{cycle.contact_phone}）核实。"
        return f"{said}缴费已经截止，按规定视为自动放弃考试。如在截止前已经付款，{office}"
    if owed.status == Status.CANCELLED:
        return f"{said}您目前没有应缴费用，请查看审核结果。"
    if at >= owed.closes_at:
        return f"{said}缴费已经截止，结果正在核定，请稍后查看。"
    if at < owed.opens_at:
        return f"{said}网上缴费尚未开始，请在缴费时间内办理。"
    until = _deadline(owed.told_closes_at, cycle)
    return f"{said}请在{until}（北京时间）前完成网上缴费，逾期视为自动放弃考试，不受理现场缴费。"


def _deadline(moment: datetime, cycle: Cycle) -> str:
    """Midnight belongs to the day that ends with it: 24 o'clock is what people understand."""
    local = moment.astimezone(cycle.zone)
    clock = f"{local:%H:%M}"
    if clock == "00:00":
        local, clock = local - timedelta(days=1), "24:00"
    weekday = "一二三四五六日"[local.weekday()]
    return f"{local.year}年{local.month}月{local.day}日（星期{weekday}）{clock}"
