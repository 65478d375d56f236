"""After a restore: what the gateways know and the restored book does not.

Orders made since the backup are found by their numbers (`domain.order_number`); money that had been said is booked
again. Until every question has its answer nobody is forfeited, nobody is reminded and nothing is ordered.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from services.chassis.db import Database
from services.payment.domain import Order
from services.payment.handlers.metrics import RECOVERED
from services.payment.handlers.ordering import new_order
from services.payment.handlers.receiving import Mismatch
from services.payment.handlers.settling import AT_ONCE, Gateways
from services.payment.ports import Answer, ChannelError, OrderState
from services.payment.repository import orders, recoveries
from services.payment.repository.recoveries import Owed

log = structlog.get_logger(__name__)

_PAGE: Final = 200


class _Silent(Exception):
    """A gateway gave no answer: the recovery stays open and goes on later where it was."""


async def is_open(database: Database) -> bool:
    """Whether a restore is not yet made up for."""
    async with database.reading() as uow:
        return await recoveries.open_one(uow) is not None


async def recover(gateways: Gateways) -> bool:
    """Ask for everything that may be missing; whether every question was answered."""
    try:
        await _book_what_was_said(gateways)
        await _find_what_was_ordered(gateways)
    except _Silent:
        log.warning("recovery-waits", reason="a gateway gave no answer")
        return False
    async with gateways.database.unit_of_work() as uow:
        recovery = await recoveries.open_one(uow)
        if recovery is not None:
            await recoveries.finish(uow, recovery.recovery_id)
            log.info("recovered")
    return True


async def _book_what_was_said(gateways: Gateways) -> None:
    after = ""
    while True:
        async with gateways.database.reading() as uow:
            page = await recoveries.unbooked(uow, after, _PAGE)
        if not page:
            return
        answers = await _ask_all(gateways, page)
        booked = 0
        for order, answer in zip(page, answers, strict=True):
            if answer.state is not OrderState.PAID:
                # We said that it was paid, the gateway denies it: a person has to look, and nothing goes on meanwhile.
                log.error("said-paid-and-denied", order_no=order.order_no, state=answer.state)
                raise _Silent
            await _take(gateways, order, answer)
            booked += 1
        async with gateways.database.unit_of_work() as uow:
            recovery = await recoveries.open_one(uow)
            if recovery is not None:
                await recoveries.booked(uow, recovery.recovery_id, booked)
        RECOVERED.labels("booked").inc(booked)
        after = page[-1].order_no


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
        found = sum(await asyncio.gather(*(_find(gateways, owed, places) for owed in page)))
        async with gateways.database.unit_of_work() as uow:
            last = page[-1].obligation.registration_id
            await recoveries.asked(uow, recovery.recovery_id, last, len(page), found)
        RECOVERED.labels("found").inc(found)


async def _find(gateways: Gateways, owed: Owed, places: asyncio.Semaphore) -> int:
    """Every order of one registration, in every channel, until the gateway has not heard of the next; how many."""
    found = 0
    async with places:
        number = owed.next_number
        while True:
            heard = 0
            for channel in gateways.channels:
                order = new_order(
                    owed.obligation, number, channel, gateways.database.clock.now(), gateways.cycle
                )
                answer = await _query(gateways, order)
                if answer.state is OrderState.UNKNOWN_ORDER:
                    continue
                async with gateways.database.unit_of_work() as uow:
                    # Nobody holds a code for it any more: it is written down as one whose outcome is to be asked.
                    await orders.add(uow, order)
                    await orders.unknown(uow, order.order_no)
                await _take(gateways, order, answer)
                heard += 1
            if not heard:
                return found
            found += heard
            number += 1


async def _take(gateways: Gateways, order: Order, answer: Answer) -> None:
    """Write down what the gateway said. What is not decided yet is closed there, asked again, and decided."""
    if answer.state is OrderState.PAID:
        try:
            await gateways.take(order, answer)
        except Mismatch as mismatch:
            log.error("answer-does-not-fit", order_no=order.order_no, reason=mismatch.reason)
            raise _Silent from mismatch
        return
    await gateways.settle(order)


async def _ask_all(gateways: Gateways, page: list[Order]) -> list[Answer]:
    places = asyncio.Semaphore(AT_ONCE)

    async def ask(order: Order) -> Answer:
        async with places:
            return await _query(gateways, order)

    return await asyncio.gather(*(ask(order) for order in page))


async def _query(gateways: Gateways, order: Order) -> Answer:
    try:
        return await gateways.channels[order.channel].query(order.order_no)
    except ChannelError as error:
        raise _Silent from error
