"""A candidate orders: the order is written down, then the gateway is asked, then its answer is written down."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from uuid import UUID

from contracts.cycle import Cycle
from services.payment.domain.obligation import Obligation, Status
from services.payment.domain.order import (
    LAPSING_AT_ONCE,
    Order,
    OrderStatus,
    free_number,
    order_expires_at,
    order_number,
    refusal_word,
)
from services.payment.domain.ordering import check_order
from services.payment.domain.refusals import (
    ChannelNotOffered,
    CodesLetGo,
    NotAllowed,
    WindowClosed,
)
from services.payment.handlers.metrics import ORDERS
from services.payment.handlers.settling import Gateways, Settled
from services.payment.ports import ChannelRefused, ChannelUnavailable, NumberInUse, PlacedOrder
from services.payment.repository import closing, orders, recoveries, windows

_TRIES = 4  # one each for the order under way and for what was let go, and two that lost a race


class GatewayRefused(Exception):
    """The gateway would not take the order, or gave no answer: nothing can be paid with it."""


class GatewaySilent(GatewayRefused):
    """It gave no answer: the order may exist there, and no code for it was given out. Until it answers there is no other."""


class EarlierUndecided(GatewayRefused):
    """Whether an order of before was paid is not known yet: there is no other one, and nobody is told that nothing was paid."""


async def place_order(
    gateways: Gateways, registration_id: UUID, channel: str, *, ask_at: Callable[[datetime], None]
) -> Order:
    """An order that can be paid now. Raises a rule of domain.py or GatewayRefused."""
    if channel not in gateways.channels:
        raise ChannelNotOffered
    order = await _write_down(gateways, registration_id, channel)
    placed = await _place(gateways, order)
    async with gateways.database.unit_of_work() as uow:
        opened = await orders.opened(uow, order, placed.code_url)
        taken_over = not opened and await orders.is_open(uow, order.order_no)
    if not opened:
        # Another request or a rejection decided it meanwhile: nobody may pay it, unless that request has used its
        # number again. Then it is that one's order.
        if not taken_over:
            await gateways.settle(order)
        raise NotAllowed("overtaken by another order")
    ask_at(order.expires_at)
    ORDERS.labels(channel, "open").inc()
    return Order(
        order_no=order.order_no,
        registration_id=registration_id,
        channel=channel,
        amount_fen=order.amount_fen,
        currency=order.currency,
        status=OrderStatus.OPEN,
        created_at=order.created_at,
        expires_at=order.expires_at,
        code_url=placed.code_url,
    )


async def _write_down(gateways: Gateways, registration_id: UUID, channel: str) -> Order:
    """Commit an order before the gateway hears of it, after those before it were asked about."""
    asked: set[str] = set()
    for _ in range(_TRIES):
        async with gateways.database.unit_of_work() as uow:
            owed, earlier = await orders.lock_obligation(uow, registration_id)
            desk_closes_at = None
            if owed is None or owed.status is not Status.AWAITING:
                desk_closes_at = await windows.close_of(uow, gateways.cycle, registration_id)
            owed = check_order(uow.at, gateways.cycle.windows.payment, owed, desk_closes_at)
            if await closing.has_begun(uow, gateways.cycle.id, owed.closes_at):
                raise WindowClosed  # a clock that was set back opens nothing again
            before = [earlier] if earlier else []
            if earlier is None:
                if await recoveries.is_unasked(uow, registration_id):
                    raise EarlierUndecided  # what was ordered before the restore must be known first
                numbers = await orders.numbers(uow, registration_id, channel)
                before = [one for one in numbers.lapsing if one.order_no not in asked]
                if not before:
                    if len(numbers.lapsing) >= LAPSING_AT_ONCE and not gateways.remembers(channel):
                        raise CodesLetGo
                    number = free_number(registration_id, opens_on(owed, gateways.cycle), numbers.used)
                    order = new_order(owed, number, channel, uow.at, gateways.cycle)
                    if await orders.add(uow, order):
                        return order
        for one in before:
            asked.add(one.order_no)
            settled = await gateways.settle(one)
            if settled in {Settled.NO_ANSWER, Settled.UNDECIDED} and one is earlier:
                raise EarlierUndecided
            if settled is Settled.PAID:
                break  # perhaps it was the fee, perhaps it goes back: what is owed now is read again
    raise NotAllowed("several orders at once")


def opens_on(owed: Obligation, cycle: Cycle) -> date:
    """The day on which the window opened, as people read it."""
    return owed.opens_at.astimezone(cycle.zone).date()


def new_order(owed: Obligation, number: int, channel: str, at: datetime, cycle: Cycle) -> Order:
    """The registration's order of this number, before the gateway hears of it."""
    return Order(
        order_no=order_number(owed.registration_id, opens_on(owed, cycle), number),
        registration_id=owed.registration_id,
        channel=channel,
        amount_fen=owed.amount_fen,
        currency=owed.currency,
        status=OrderStatus.CREATING,
        created_at=at,
        expires_at=order_expires_at(at, owed.closes_at),
    )


async def _place(gateways: Gateways, order: Order) -> PlacedOrder:
    try:
        return await gateways.channels[order.channel].place_order(
            order.order_no, order.amount_fen, "考试费", order.expires_at
        )
    except (ChannelUnavailable, NumberInUse) as error:
        async with gateways.database.unit_of_work() as uow:
            await orders.unknown(uow, order)
        ORDERS.labels(order.channel, "unknown").inc()
        if isinstance(error, NumberInUse):
            raise GatewayRefused from error  # it answers: another channel may go on
        raise GatewaySilent from error
    except ChannelRefused as error:
        async with gateways.database.unit_of_work() as uow:
            await orders.failed(uow, order, refusal_word(error.code))
        ORDERS.labels(order.channel, "failed").inc()
        raise GatewayRefused from error
