"""Each day's bill of each gateway against our book and the registrations' states: matched, explained, or on a list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from contracts import payment
from contracts.reasons import Channel
from services.chassis import audit, outbox
from services.chassis.crash import crash_point
from services.chassis.db import UnitOfWork
from services.chassis.tokens import Actor
from services.payment.domain.reconciling import (
    NEAR_MIDNIGHT,
    ask_again_after,
    begins_at,
    days_due,
    next_fetch,
    none_is_final,
)
from services.payment.handlers.metrics import BREAKS_FOUND, RECONCILED
from services.payment.handlers.settling import Gateways
from services.payment.ports import Bill, Billing, ChannelError, NoBill, NoBillYet
from services.payment.repository import bills, breaks, cycle_words

log = structlog.get_logger(__name__)

_PAGE: Final = 500
_ASK_AGAIN: Final = timedelta(hours=4)
_NONE_BUT_BOOKED: Final = "none-but-booked"
_OTHER_DAY: Final = "other-day"
_FROM_THE_TOPIC: Final = "restored-from-topic"
_RESTORED: Final = Actor(_FROM_THE_TOPIC, frozenset({"service"}))
_WORDS_LOST: Final = "数据库还原前已由考试办公室处理完毕；处理说明随还原丢失，原因见代码。"


@dataclass(frozen=True)
class Bills:
    """The channels that say what they have booked, and what is needed to write down what it comes to."""

    channels: Mapping[str, Billing]
    gateways: Gateways

    async def reconcile(self) -> datetime | None:
        """Every day whose bill should be here by now; returns when to come again."""
        window, at = self.gateways.cycle.windows.payment, self.gateways.database.clock.now()
        moments = [next_fetch(window.opens, window.closes, at)]
        for name, channel in sorted(self.channels.items()):
            async with self.gateways.database.reading(at) as uow:
                settled = await bills.settled(uow, name)
                waits = {row.day: row for row in await bills.waits(uow) if row.channel == name}
            for day in sorted({
                *days_due(window.opens, window.closes, at, settled.keys()),
                *(day for day, row in waits.items() if row.again),
            }):  # fmt: skip
                wait = waits.get(day)
                moments.append(
                    wait.ask_at
                    if wait is not None and wait.ask_at > at
                    else await self._day(channel, day, wait.attempts + 1 if wait is not None else 1)
                )
            moments.append(await self._ask(name, at))
        await self._close_again()
        return min((moment for moment in moments if moment is not None), default=None)

    async def _day(self, channel: Billing, day: date, attempt: int) -> datetime | None:
        """One day's bill; None when it is compared, else when to ask for it again."""
        at = self.gateways.database.clock.now()
        again = at + ask_again_after(attempt)
        try:
            bill = await channel.fetch_bill(day)
        except NoBill as word:
            if none_is_final(day, at) and await self._none(channel.name, day):
                return None
            return await self._wait(channel.name, day, str(word), again)
        except (NoBillYet, ChannelError) as error:
            return await self._wait(channel.name, day, str(error), again)
        if not _is_of_its_day(bill):
            log.error("bill-of-another-day", channel=channel.name, day=str(day))
            return await self._wait(channel.name, day, _OTHER_DAY, again)
        await self._take(bill)
        return None

    async def _wait(self, channel: str, day: date, code: str, again: datetime) -> datetime:
        log.warning("bill-not-here", channel=channel, day=str(day), code=code)
        async with self.gateways.database.unit_of_work() as uow:
            await bills.wait(uow, channel, day, code[:64], again)
        return again

    async def _none(self, channel: str, day: date) -> bool:
        """The gateway booked nothing on this day. False if we did: then the day stays open."""
        bill_id = bills.bill_id_of(channel, day, None)
        async with self.gateways.database.unit_of_work() as uow:
            await bills.hold(uow)
            if not await bills.is_empty(uow, channel, day):
                log.error(_NONE_BUT_BOOKED, channel=channel, day=str(day))
                return False
            await bills.add(uow, bill_id, channel, day, None, None, 0)
            await self._compare(uow, channel, day, bill_id)
        return True

    async def _take(self, bill: Bill) -> None:
        """Write a bill down, its lines first and in parts, then compare it in one transaction."""
        bill_id = bills.bill_id_of(bill.channel, bill.day, bill.digest)
        if await self._stands(bill.channel, bill.day, bill_id):
            return
        for first, lines in bills.parts(bill.lines):
            async with self.gateways.database.unit_of_work() as uow:
                await bills.add_lines(uow, bill_id, first, lines)
            crash_point("bill-in-part")
        sealed = self.gateways.vault.encrypt(bill.raw, row=str(bill_id))
        async with self.gateways.database.unit_of_work() as uow:
            await bills.hold(uow)
            await bills.add(uow, bill_id, bill.channel, bill.day, bill.digest, sealed, len(bill.lines))
            await self._compare(uow, bill.channel, bill.day, bill_id)

    async def _stands(self, channel: str, day: date, bill_id: UUID) -> bool:
        """Whether this is the bill in force: then nothing is done but to look again some day."""
        async with self.gateways.database.unit_of_work() as uow:
            if (await bills.settled(uow, channel)).get(day) != bill_id:
                return False
            await bills.look_again(uow, channel, day)
        return True

    async def _compare(self, uow: UnitOfWork, channel: str, day: date, bill_id: UUID) -> None:
        """The bill that is in force already changes nothing; another one is compared anew, and said so."""
        before = (await bills.settled(uow, channel)).get(day)
        if before == bill_id:
            await bills.look_again(uow, channel, day)
            return
        last = await breaks.last_number(uow)
        found = await bills.compare(uow, channel, day, bill_id)
        await bills.conclude(uow, channel, day, bill_id, found, changed=before is not None)
        await self._say(uow, channel, day, found, last, changed=before is not None)
        crash_point("bill-compared")
        uow.after_commit(RECONCILED.labels(channel, "changed" if before is not None else "new").inc)
        log.info(
            "reconciled",
            channel=channel,
            day=str(day),
            lines=found.lines,
            breaks=found.breaks,
            changed=before is not None,
        )

    async def _say(
        self, uow: UnitOfWork, channel: str, day: date, found: bills.Compared, last: int, *, changed: bool
    ) -> None:
        """The breaks newer than number `last`, then the day. What stood there before a restore is not said again."""
        cycle_id = self.gateways.cycle.id
        event = payment.Reconciled(
            cycle_id=cycle_id,
            channel=Channel(channel),
            date=day,
            counts=payment.ReconciledCounts(
                lines=found.lines, matched=found.matched, explained=found.explained
            ),
            sums_fen=payment.ReconciledSums(billed=found.billed_fen, booked=found.booked_fen),
            breaks=found.breaks,
        )
        if new := await breaks.unsaid_after(uow, cycle_id, last):
            await breaks.say(uow, cycle_id, await cycle_words.next_sequence(uow, cycle_id, new), last)
            uow.after_commit(lambda: BREAKS_FOUND.labels(channel).inc(new))
        if changed or not await breaks.was_said(uow, event):
            await outbox.add(uow, event, sequence=await cycle_words.next_sequence(uow, cycle_id))

    async def _close_again(self) -> None:
        """What a person had closed when the database was put back to before it stays closed; the words are lost with it."""
        cycle_id = self.gateways.cycle.id
        async with self.gateways.database.unit_of_work() as uow:
            for row in await breaks.closed_before_a_restore(uow, cycle_id):
                sealed = self.gateways.vault.encrypt(_WORDS_LOST, row=str(row.break_id))
                await breaks.close(
                    uow, row.break_id, _FROM_THE_TOPIC, row.reason_code, sealed, at=row.occurred_at
                )
                await audit.record(
                    uow,
                    _RESTORED,
                    "break-closed-again",
                    subject=str(row.break_id),
                    detail={"closed_at": row.occurred_at},
                )

    async def _ask(self, channel: str, at: datetime) -> datetime | None:
        """Money that a bill has and our book has not may be a payment whose notice got lost: the normal path decides."""
        async with self.gateways.database.reading(at) as uow:
            wanted = await breaks.orders_to_ask(uow, channel, _PAGE)
        if not wanted:
            return None
        await self.gateways.settle_all(wanted)
        async with self.gateways.database.reading(at) as uow:
            left = await breaks.orders_to_ask(uow, channel, 1)
        return at + _ASK_AGAIN if left else None


def _is_of_its_day(bill: Bill) -> bool:
    """Whether any payment in it is of its day: a whole bill of another day is not compared with this one's book."""
    paid = [line.at for line in bill.lines if line.refund_no is None]
    begins, ends = begins_at(bill.day) - NEAR_MIDNIGHT, begins_at(bill.day + timedelta(days=1))
    return not paid or any(begins <= at < ends for at in paid)
