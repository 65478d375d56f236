"""After a restore: what the gateways know and the restored book does not.

Orders made since the backup are found by their numbers (`domain.order_number`); money that had been said is booked again.
Until every question has its answer nobody is forfeited and nobody is reminded; a registration that was asked about may
order again at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Final, TypeVar

import structlog

from services.chassis.db import Database
from services.payment.domain.obligation import Status
from services.payment.domain.order import LAPSING_AT_ONCE, ORDER_LIFE, Order, order_number
from services.payment.handlers.deciding_again import ask_again
from services.payment.handlers.metrics import RECOVERED
from services.payment.handlers.ordering import new_order, opens_on
from services.payment.handlers.receiving import Mismatch
from services.payment.handlers.settling import AT_ONCE, Gateways
from services.payment.ports import Answer, ChannelError, OrderState
from services.payment.repository import orders, recoveries
from services.payment.repository.recoveries import Known, Owed

log = structlog.get_logger(__name__)

T = TypeVar("T")
_PAGE: Final = 200
_OWING: Final = frozenset({Status.AWAITING, Status.HELD})
# A payment that has gone back since was a payment.
_PAID: Final = frozenset({OrderState.PAID, OrderState.REFUNDED})


class _Silent(Exception):
    """A gateway gave no answer: the recovery stays open and goes on later where it was."""


async def is_open(database: Database) -> bool:
    """Whether a restore is not yet made up for."""
    async with database.reading() as uow:
        return await recoveries.open_one(uow) is not None


async def recover(gateways: Gateways) -> bool:
    """Ask for everything that may be missing; whether every question was answered."""
    try:
        denied = await _book_what_was_said(gateways)
        await _find_what_was_ordered(gateways)
        if await _codes_may_be_out(gateways):
            return False
        await _find_what_was_ordered(gateways)
    except _Silent as silent:
        log.warning("recovery-waits", reason=str(silent))
        return False
    if denied:
        # Perhaps another gateway is asked than the one that was paid: then nothing it denied is a proof of anything.
        log.error("recovery-waits", reason="a gateway denies what we have said", orders=denied)
        return False
    async with gateways.database.unit_of_work() as uow:
        recovery = await recoveries.open_one(uow)
        if recovery is not None:
            # With the end of the recovery, because from then on forfeiting goes on.
            await ask_again(uow, gateways.cycle, gateways.vault)
            await recoveries.finish(uow, recovery.recovery_id)
            log.info("recovered", asked=recovery.asked, found=recovery.found, booked=recovery.booked)
    return True


async def _book_what_was_said(gateways: Gateways) -> int:
    """Book every payment that was said; how many the gateway denies."""
    denied, after = 0, ""
    while True:
        async with gateways.database.reading() as uow:
            page = await recoveries.unbooked(uow, after, _PAGE)
        if not page:
            return denied
        answers = await _ask_all(gateways, page)
        booked = 0
        for order, answer in zip(page, answers, strict=True):
            if answer.state in _PAID and await _take(gateways, order, answer):
                booked += 1
                continue
            denied += 1
            log.error("said-paid-and-denied", order_no=order.order_no, state=answer.state)
        async with gateways.database.unit_of_work() as uow:
            recovery = await recoveries.open_one(uow)
            if recovery is not None:
                await recoveries.booked(uow, recovery.recovery_id, booked)
        RECOVERED.labels("booked").inc(booked)
        after = page[-1].order_no


async def _codes_may_be_out(gateways: Gateways) -> bool:
    """Whether somebody may still pay an order that neither we nor its gateway know. Once that is over, everything is asked
    again: till then a code of before the restore can be opened."""
    if all(map(gateways.remembers, gateways.channels)):
        return False
    async with gateways.database.unit_of_work() as uow:
        recovery = await recoveries.open_one(uow)
        if recovery is None or recovery.again:
            return False
        if uow.at < recovery.begun_at + ORDER_LIFE:
            return True
        await recoveries.ask_again(uow, recovery.recovery_id)
        return False


async def _find_what_was_ordered(gateways: Gateways) -> None:
    while True:
        async with gateways.database.reading() as uow:
            recovery = await recoveries.open_one(uow)
            if recovery is None:
                return
            page = await recoveries.page(uow, recovery.asked_up_to, _PAGE)
        if not page:
            return
        places = asyncio.Semaphore(AT_ONCE)
        await _all(*(_find(gateways, owed, places) for owed in page))
        async with gateways.database.unit_of_work() as uow:
            last = page[-1].obligation.registration_id
            await recoveries.asked(uow, recovery.recovery_id, last, len(page))


async def _find(gateways: Gateways, owed: Owed, places: asyncio.Semaphore) -> None:
    """Every order that one registration may have made, in every channel."""
    number = unheard = 0
    day = opens_on(owed.obligation, gateways.cycle)
    # See domain.order_number.
    may_be_missing = len(gateways.channels) - 1
    if not all(map(gateways.remembers, gateways.channels)):
        may_be_missing += LAPSING_AT_ONCE
    async with places:
        while True:
            number += 1
            known = owed.orders.get(order_number(owed.obligation.registration_id, day, number))
            if known is Known.PAID and owed.obligation.status is Status.PAID:
                return  # nothing is ordered after a payment
            if known in (Known.PAID, Known.CLOSED):
                continue
            heard = False
            for channel in gateways.channels:
                order, answer = await _query_number(gateways, owed, number, channel)
                if answer.state is OrderState.UNKNOWN_ORDER:
                    continue
                heard = True
                if known is not Known.UNDECIDED:
                    await _write_down(gateways, order)
                await _decide(gateways, order, answer)
            # See domain.order_number: how many can be missing below one that a gateway has heard of.
            unheard += not heard and number > owed.heard
            if unheard > may_be_missing:
                return


async def _query_number(gateways: Gateways, owed: Owed, number: int, channel: str) -> tuple[Order, Answer]:
    at = gateways.database.clock.now()
    order = new_order(owed.obligation, number, channel, at, gateways.cycle)
    if owed.obligation.status not in _OWING:
        # Nothing is owed: what can still be paid is to be closed at once.
        order = replace(order, expires_at=at)
    return order, await _query(gateways, order)


async def _write_down(gateways: Gateways, order: Order) -> None:
    """As an order whose outcome is to be asked about. Whoever holds its code may still pay it until it ends."""
    while True:
        async with gateways.database.unit_of_work() as uow:
            if await orders.add(uow, order):
                await orders.unknown(uow, order)
                await recoveries.found(uow)
                uow.after_commit(RECOVERED.labels("found").inc)
                return
            _, earlier = await orders.lock_obligation(uow, order.registration_id)
        if earlier is None or not await _out_of_the_way(gateways, earlier):
            raise _Silent(f"order {order.order_no} was made while another is undecided")


async def _out_of_the_way(gateways: Gateways, earlier: Order) -> bool:
    await gateways.settle(earlier)
    async with gateways.database.reading() as uow:
        return not await orders.is_under_way(uow, earlier.order_no)


async def _decide(gateways: Gateways, order: Order, answer: Answer) -> None:
    """A last word is written down. Anything else leaves the order undecided: asked about at its end, never forfeited over."""
    if answer.state in _PAID or answer.state is OrderState.CLOSED:
        await _take(gateways, order, answer)


async def _take(gateways: Gateways, order: Order, answer: Answer) -> bool:
    try:
        await gateways.take(order, answer)
    except Mismatch as mismatch:
        # Signed, for our order, and still not our money: a person has to look, and the order stays undecided.
        log.error("answer-does-not-fit", order_no=order.order_no, reason=mismatch.reason)
        return False
    return True


async def _ask_all(gateways: Gateways, page: list[Order]) -> list[Answer]:
    places = asyncio.Semaphore(AT_ONCE)

    async def ask(order: Order) -> Answer:
        async with places:
            return await _query(gateways, order)

    return await _all(*(ask(order) for order in page))


async def _all(*questions: Awaitable[T]) -> list[T]:
    """Every answer. Where one is missing the others are waited for all the same: nothing goes on behind our back."""
    answers = await asyncio.gather(*questions, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]


async def _query(gateways: Gateways, order: Order) -> Answer:
    channel = gateways.channels.get(order.channel)
    if channel is None:
        raise _Silent(f"there is no account at gateway {order.channel} any more")
    try:
        return await channel.query(order.order_no)
    except ChannelError as error:
        raise _Silent(f"gateway {order.channel} gave no answer") from error
