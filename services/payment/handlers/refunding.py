"""Money that has to go back goes back: asked for under one number, until the gateway itself says that it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from contracts import payment
from contracts.cycle import Cycle
from services.chassis import outbox
from services.chassis.db import Database
from services.chassis.vault import Vault
from services.payment.domain.asking_again import ask_refund_again_at
from services.payment.domain.book import RefundStatus
from services.payment.handlers.metrics import REFUNDS
from services.payment.ports import ChannelError, RefundAnswer, Refunding, RefundState
from services.payment.repository import ledger, obligations, refunds
from services.payment.repository.orders import Evidence
from services.payment.repository.refunds import Refund

log = structlog.get_logger(__name__)

_PAGE: Final = 500
_AT_ONCE: Final = 8
_LOOK_AT_REFUSED: Final = timedelta(days=1)
_REASON: Final = "考试费退款"


@dataclass(frozen=True)
class Refunds:
    """The channels that can give back, and what is needed to write down what they say."""

    channels: Mapping[str, Refunding]
    database: Database
    cycle: Cycle
    vault: Vault

    async def give_back(self) -> datetime | None:
        """Everything whose moment has come; returns the next moment."""
        while True:
            async with self.database.unit_of_work() as uow:
                begun = await refunds.open_due(uow, _PAGE)
                due = await refunds.to_ask(uow, _PAGE)
                upcoming = None if due else await refunds.next_to_ask(uow)
            if not due and not begun:
                return upcoming
            places = asyncio.Semaphore(_AT_ONCE)
            await asyncio.gather(*(self._one(places, refund) for refund in due))

    async def _one(self, places: asyncio.Semaphore, refund: Refund) -> None:
        async with places:
            answer = await self._ask(refund)
        if answer is None:
            # Nothing was learned: what was known of it still stands.
            await self._stands(refund, refund.status, refund.code)
        elif answer.state is RefundState.DONE and answer.amount_fen == refund.amount_fen:
            await self._done(refund, answer)
        elif answer.state in {RefundState.DONE, RefundState.REFUSED}:
            # Another amount went back than was due: that is for people, not for another try.
            code = answer.code or "other-amount"
            log.error("refund-refused", refund_no=refund.refund_no, code=code)
            await self._stands(refund, RefundStatus.REFUSED, code)
        else:
            await self._stands(
                refund, RefundStatus.ASKED if answer.state is RefundState.UNDER_WAY else RefundStatus.DUE
            )

    async def _ask(self, refund: Refund) -> RefundAnswer | None:
        channel = self.channels.get(refund.channel)
        if channel is None:
            log.error("refund-without-channel", channel=refund.channel)
            return None
        try:
            if refund.status is RefundStatus.ASKED:
                answer = await channel.query_refund(refund.order_no, refund.refund_no)
                if answer.state is not RefundState.UNKNOWN:
                    return answer
            # Full amounts only: what a candidate paid is what goes back.
            return await channel.refund(
                refund.order_no, refund.refund_no, refund.amount_fen, refund.amount_fen, _REASON
            )
        except ChannelError as error:
            log.warning("refund-unanswered", channel=refund.channel, reason=str(error))
            return None

    async def _stands(self, refund: Refund, status: RefundStatus, code: str | None = None) -> None:
        async with self.database.unit_of_work() as uow:
            again = (
                uow.at + _LOOK_AT_REFUSED
                if status is RefundStatus.REFUSED
                else ask_refund_again_at(uow.at, refund.attempts + 1)
            )
            await refunds.stands(uow, refund.refund_no, status, code, again)
        REFUNDS.labels(refund.channel, status).inc()

    async def _done(self, refund: Refund, answer: RefundAnswer) -> None:
        """The book, the refund and the event in one transaction."""
        evidence = Evidence("refund", refund.order_no, answer.state, answer.raw, answer.signature)
        async with self.database.unit_of_work() as uow:
            owed = (await obligations.lock_all(uow, [refund.registration_id]))[refund.registration_id]
            booked = await ledger.give_back(uow, self.vault, refund.channel, refund.transaction_id, evidence)
            await refunds.done(uow, refund.refund_no)
            if not booked or await refunds.was_said(uow, refund.registration_id, refund.refund_no):
                return
            told = owed.refunded()
            await obligations.tell(uow, owed, told)
            event = payment.Refunded(
                cycle_id=self.cycle.id,
                registration_id=refund.registration_id,
                amount_fen=refund.amount_fen,
                cause=refund.cause,
                refund_no=refund.refund_no,
            )
            await outbox.add(uow, event, sequence=told.version)
            uow.after_commit(REFUNDS.labels(refund.channel, RefundStatus.DONE).inc)
