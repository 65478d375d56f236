"""Money that a gateway reports: into the book first, then the verdict."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Final

import structlog

from contracts import payment
from contracts.cycle import Cycle
from contracts.reasons import Channel, ReinstatementCause
from services.chassis import outbox
from services.chassis.cause import current_cause
from services.chassis.db import Database, UnitOfWork
from services.chassis.vault import Vault
from services.payment.domain.obligation import Fact, Obligation, Verdict, refund_of
from services.payment.domain.order import Order, OrderStatus, Success
from services.payment.handlers.metrics import PAID, REFUNDS_DUE, REINSTATED
from services.payment.handlers.till import Till
from services.payment.ports import Notification, OrderState, PaymentChannel
from services.payment.repository import ledger, obligations, orders, receipts, refunds
from services.payment.repository.orders import Evidence
from services.payment.repository.receipts import Receipt

log = structlog.get_logger(__name__)

_PROVES: Final = re.compile(
    "signature|serial|timestamp|nonce", re.IGNORECASE
)  # in the name of a header field


class Taken(StrEnum):
    """What a reported payment came to."""

    PAID = "paid"
    REINSTATED = "reinstated"
    REFUND_DUE = "refund-due"
    DUPLICATE = "duplicate"
    REFUND_NEWS = "refund-news"  # it is worth asking about its refund now
    NOTHING = "nothing"  # a notice that reports no payment


class Mismatch(Exception):
    """Truly from the gateway, and not about anything of ours: nothing changes. `reason` is a short code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Notice:
    """One call on the notification route, verified."""

    notification: Notification
    raw: bytes
    headers: Mapping[str, str]

    def evidence(self) -> Evidence:
        """The bytes, and the header fields that prove them."""
        kept = {name.lower(): value for name, value in self.headers.items() if _PROVES.search(name)}
        return Evidence("notice", self.notification.order_no, self.notification.state, self.raw, kept)


def open_till(database: Database, cycle: Cycle, vault: Vault) -> Till:
    """Where notices of plain payments are taken in together."""

    async def write(together: Sequence[Receipt]) -> frozenset[int]:
        async with database.unit_of_work() as uow:
            taken = await receipts.take_plain(uow, vault, cycle.id, together)
            for place in taken:
                uow.after_commit(PAID.labels(together[place].evidence.kind).inc)
        return taken

    return Till(write)


async def take_notice(
    database: Database,
    till: Till,
    channel: PaymentChannel,
    headers: Mapping[str, str],
    raw: bytes,
    *,
    at: datetime,
    cycle: Cycle,
    vault: Vault,
    refund_soon: Callable[[], None],
) -> Taken:
    """Verify the raw bytes, then take them in; returns after the commit. Raises NotificationRefused or Mismatch."""
    notification = channel.parse_notification(headers, raw, at)
    if notification.state is OrderState.REFUNDED:
        async with database.unit_of_work(at) as uow:
            await refunds.ask_now(uow, channel.name, notification.transaction_id)
            uow.after_commit(refund_soon)
        return Taken.REFUND_NEWS
    notice = Notice(notification, raw, headers)
    if notification.state is not OrderState.PAID or notification.paid_at is None:
        # A failed attempt is not final, and never overwrites a success: the query tells, when it is asked.
        return Taken.NOTHING
    success = Success(
        order_no=notification.order_no,
        transaction_id=notification.transaction_id,
        amount_fen=notification.amount_fen,
        currency=notification.currency,
        paid_at=notification.paid_at,
    )
    evidence = notice.evidence()
    if await till.take(Receipt(channel.name, success, evidence, current_cause())):
        taken = Taken.PAID
    else:
        async with database.unit_of_work(at) as uow:
            taken = await record_success(
                uow,
                channel.name,
                success,
                evidence,
                cycle=cycle,
                vault=vault,
                refund_soon=refund_soon,
            )
    log.info("notice-taken", outcome=taken, order_no=success.order_no)
    return taken


async def record_success(
    uow: UnitOfWork,
    channel: str,
    success: Success,
    evidence: Evidence,
    *,
    cycle: Cycle,
    vault: Vault,
    refund_soon: Callable[[], None],
) -> Taken:
    """Write the money down, once for each transaction of the gateway; then decide what it means.

    `refund_soon` is called after the commit when money has to go back.
    """
    found = await orders.lock_by_number(uow, success.order_no)
    if found is None or found[1].channel != channel:
        raise Mismatch("unknown-order")
    owed, order = found
    if success.currency != order.currency or success.amount_fen < 1:
        raise Mismatch("foreign-money")
    if order.status is OrderStatus.PAID and not await ledger.is_booked(
        uow, owed.registration_id, order.order_no
    ):
        return await _book_again(uow, owed, order, channel, success, evidence, vault, refund_soon)
    answer_id = await ledger.receive(uow, vault, owed.registration_id, channel, success, evidence)
    if answer_id is None:
        return Taken.DUPLICATE
    verdict = owed.receive(success, order.amount_fen)
    if verdict.refund is not None:
        await orders.decided_paid(uow, success.order_no, answer_id)
        await ledger.owe_back(uow, owed.registration_id, channel, success, verdict.refund)
        uow.after_commit(REFUNDS_DUE.labels(verdict.refund).inc)
        uow.after_commit(refund_soon)
        log.warning("refund-due", cause=verdict.refund, registration_id=str(owed.registration_id))
        return Taken.REFUND_DUE
    await obligations.pay(
        uow,
        owed,
        verdict.obligation,
        paid_at=success.paid_at,
        order_no=success.order_no,
        answer_id=answer_id,
    )
    await ledger.keep(uow, answer_id)
    await _say(uow, owed, verdict, channel, success, cycle)
    uow.after_commit(PAID.labels(evidence.kind).inc)
    if Fact.REINSTATED in verdict.facts:
        uow.after_commit(REINSTATED.inc)
        return Taken.REINSTATED
    return Taken.PAID


async def _book_again(
    uow: UnitOfWork,
    owed: Obligation,
    order: Order,
    channel: str,
    success: Success,
    evidence: Evidence,
    vault: Vault,
    refund_soon: Callable[[], None],
) -> Taken:
    """Paid by what we said before a restore; now the money is in the restored book too, as of when it first was."""
    if success.amount_fen != order.amount_fen:
        raise Mismatch("said-otherwise")
    answer_id = await ledger.receive(
        uow,
        vault,
        owed.registration_id,
        channel,
        success,
        evidence,
        recorded_at=await orders.decided_at(uow, order.order_no),
    )
    if answer_id is None:
        raise Mismatch("booked-for-another-order")
    await orders.prove(uow, order.order_no, answer_id)
    await ledger.keep(uow, answer_id)
    cause = refund_of(owed)
    if cause is None:
        return Taken.DUPLICATE
    since = await obligations.changed_at(uow, owed.registration_id)
    await ledger.owe_back_all(uow, owed.registration_id, cause, recorded_at=since)
    uow.after_commit(REFUNDS_DUE.labels(cause).inc)
    uow.after_commit(refund_soon)
    return Taken.REFUND_DUE


async def _say(
    uow: UnitOfWork, owed: Obligation, verdict: Verdict, channel: str, success: Success, cycle: Cycle
) -> None:
    said: dict[Fact, partial[payment.Reinstated] | partial[payment.Paid]] = {
        Fact.REINSTATED: partial(
            payment.Reinstated, cause=ReinstatementCause.PAID_IN_TIME, closes_at=owed.told_closes_at
        ),
        Fact.PAID: partial(
            payment.Paid,
            amount_fen=success.amount_fen,
            paid_at=success.paid_at,
            channel=Channel(channel),
            order_no=success.order_no,
        ),
    }
    for number, fact in enumerate(verdict.facts, start=1):
        event = said[fact](cycle_id=cycle.id, registration_id=owed.registration_id)
        await outbox.add(uow, event, sequence=owed.version + number)
