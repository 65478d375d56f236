"""Sending what is due on one channel: claim and keep the text, commit, send outside any transaction, record by set.

A process may die anywhere. Before the claim is committed nothing was sent; after that the lease runs out and the
message is sent again under the same reference, counted as possibly a second copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias
from uuid import UUID

import orjson
import structlog
from prometheus_client import Counter

from contracts.cycle import Cycle
from contracts.reasons import Carrier
from services.chassis.crash import crash_point
from services.chassis.db import Database, Row
from services.chassis.vault import Vault
from services.notification.domain.life import (
    CHANNEL_PAUSE,
    ERASED,
    GIVEN_UP,
    LEASE,
    TOO_LATE,
    Failure,
    State,
    next_try,
    reason_word,
)
from services.notification.domain.occasions import Occasion
from services.notification.domain.urgency import BY_AGE_EVERY
from services.notification.domain.words import variables
from services.notification.handlers.asking import FOUND, Find, ask_about_accepted
from services.notification.handlers.contacts import row_of
from services.notification.handlers.flow import Flow
from services.notification.handlers.holding import close_of, end_of, note_superseded
from services.notification.ports import Accepted, NoAnswer, Rejected
from services.notification.repository import messages, silence
from services.notification.repository.messages import Claim, Result
from services.notification.templates.wording import Text, Wording

log = structlog.get_logger(__name__)

BATCH: Final = 256  # are claimed together
TOGETHER: Final = 128  # are recorded together
HELD: Final = 2.0  # real seconds: what came back longer ago is recorded with fewer
# Real seconds from a claim until its message is begun; with two of the longest calls after it, still below the lease.
PATIENCE: Final = 45.0
TRIES: Final = Counter(
    "kaowu_message_tries", "Messages handed to a carrier, by outcome", ["channel", "outcome"]
)
PARTS: Final = Counter("kaowu_sms_parts", "Parts that accepted SMS were cut into")
AMBIGUOUS: Final = Counter(
    "kaowu_messages_ambiguous",
    "Tries whose outcome was never learned: at most so many copies too many",
    ["channel"],
)

Send: TypeAlias = Callable[[str, Text, str], Awaitable[Accepted]]
_COLUMN: Final[Mapping[Carrier, str]] = {Carrier.SMS: "phone", Carrier.EMAIL: "email"}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message ready to leave."""

    message_id: UUID
    registration_id: UUID
    claim: int
    tries: int
    address: str | None
    text: Text
    ask_since: datetime | None
    until: float  # on the loop's clock: what is not begun by then is given back
    erased: bool = False


@dataclass(slots=True)
class Run:
    """What one run of a channel has seen so far."""

    claimed: int = 0
    came_back: int = 0
    failed: int = 0  # in a row, up to now

    def learn(self, results: Sequence[Result]) -> None:
        for result in results:
            self.failed = self.failed + 1 if result.state is State.CREATED else 0
        self.came_back += len(results)

    @property
    def goes_on(self) -> bool:
        """Nothing was tried yet, or it works: more may be claimed before all of this is back."""
        return not self.claimed or self.failed < self.came_back

    @property
    def down(self) -> bool:
        return self.failed >= BATCH

    @property
    def failed_all(self) -> bool:
        """The channel seems away."""
        return self.came_back > 0 and self.failed >= min(BATCH, self.came_back)


@dataclass(frozen=True, slots=True)
class Channel:
    """One way out. `accepted`: what the carrier's yes means here; `in_flight`: how many at a time; `find`: how it is asked."""

    carrier: Carrier
    send: Send
    accepted: State
    in_flight: int
    find: Find | None = None


class Delivery:
    """Sends what is due on one channel."""

    def __init__(
        self, channel: Channel, *, database: Database, cycle: Cycle, wording: Wording, vault: Vault
    ) -> None:
        self._channel = channel
        self._database, self._cycle, self._wording, self._vault = database, cycle, wording, vault
        self.ending: Callable[[], bool] = lambda: False
        """Whether the process wants to end: what is under way comes back and is recorded, nothing more is claimed."""
        self._batches = 0

    async def deliver(self) -> datetime | None:
        """Send everything that is due; the moment when the next message is."""
        find, channel = self._channel.find, self._channel
        ask_at = find and await ask_about_accepted(
            self._database, self._vault, find, channel.carrier, channel.in_flight
        )
        due_at = await self._deliver_all()
        return min((at for at in (ask_at, due_at) if at is not None), default=None)

    async def _deliver_all(self) -> datetime | None:
        """An answer that is slow to come holds up its own message: the others go on, and what came back is recorded by set."""
        run, due_at, more = Run(), None, True
        async with Flow(self._send_in_time, self._channel.in_flight) as flow:
            while True:
                if self.ending() or run.down:
                    more = False
                    await self._put_off(flow.put_off())
                elif more and flow.hungry and run.goes_on:
                    batch, due_at = await self._claim()
                    run.claimed += len(batch)
                    flow.put(batch)
                    more = bool(batch)
                if flow.answered and (flow.idle or flow.answered >= TOGETHER or flow.held() > HELD):
                    due_at = await self._record(flow.take(), run)
                    more = more or _is_due(due_at, self._database.clock.now())
                if not flow.idle:
                    await flow.moves()
                elif run.failed_all:
                    # What waits behind a channel that is away need not find it out one by one.
                    return due_at and max(due_at, self._database.clock.now() + CHANNEL_PAUSE)
                elif self.ending() or not _is_due(due_at, self._database.clock.now()):
                    return due_at
                else:
                    more = True

    async def _claim(self) -> tuple[list[Outgoing], datetime | None]:
        """The next batch, its texts on record; without one, when there will be one."""
        carrier = self._channel.carrier
        self._batches += 1
        async with self._database.unit_of_work() as uow:
            until = self._cycle.quiet_until(uow.at)
            if carrier is Carrier.SMS and until > uow.at:
                await messages.postpone(uow, until)
            rows = await messages.pick(uow, carrier, BATCH, by_age=self._batches % BY_AGE_EVERY == 0)
            ends = {row.message_id: end_of(row, uow.at) for row in rows}
            untrue = [row for row in rows if ends[row.message_id] is State.SUPERSEDED]
            await messages.supersede(uow, [row.message_id for row in untrue])
            batch = [self._outgoing(row) for row in rows if ends[row.message_id] is None]
            await messages.claim(uow, [_claim_of(one) for one in batch], uow.at + LEASE)
            due_at = None if batch else await messages.next_due(uow, carrier)
        note_superseded(carrier, untrue)
        late = {row.message_id: row.registration_id for row in rows if ends[row.message_id] is State.EXPIRED}
        if late:
            # Its people are locked before it, as everywhere, so not in the transaction that found it.
            async with self._database.unit_of_work() as uow:
                await silence.expire(uow, late, TOO_LATE)
                due_at = due_at if batch else await messages.next_due(uow, carrier)
        again = sum(row.state == State.SENDING for row in rows)
        if again:
            AMBIGUOUS.labels(carrier).inc(again)
            log.warning("taken-over", channel=carrier, messages=again)
        return batch, due_at

    async def _record(self, results: Sequence[Result], run: Run) -> datetime | None:
        """Record what came of these. When something is due."""
        carrier = self._channel.carrier
        crash_point(f"{carrier}-before-record")
        async with self._database.unit_of_work() as uow:
            await messages.record(uow, results)
            due_at = await messages.next_due(uow, carrier)
        run.learn(results)
        log.info("delivered", channel=carrier, messages=len(results), down=run.failed_all)
        return due_at

    async def _put_off(self, left: Sequence[Outgoing]) -> None:
        """These were claimed and are not sent now."""
        if left:
            async with self._database.unit_of_work() as uow:
                await messages.record(uow, [self._give_back(one) for one in left])

    def _outgoing(self, row: Row) -> Outgoing:
        occasion, carrier = Occasion(row.occasion), self._channel.carrier
        facts = {**orjson.loads(row.facts), **close_of(row)}
        phrases = self._wording.phrases(carrier, occasion, row.variant, row.language)
        said = variables(occasion, facts, row.tail, self._cycle, phrases)
        address = row.address and self._vault.decrypt_text(
            row.address, row=row_of(row.registration_id, _COLUMN[carrier])
        )
        return Outgoing(
            message_id=row.message_id,
            registration_id=row.registration_id,
            claim=row.claims + 1,
            tries=row.tries + 1,
            address=address,
            text=self._wording.render(carrier, occasion, row.variant, said, row.language),
            ask_since=None if row.ask_since is None else max(row.ask_since, row.created_at),
            until=asyncio.get_running_loop().time() + PATIENCE,
            erased=row.erased_at is not None,
        )

    async def _send_in_time(self, one: Outgoing) -> Result:
        """Once. Never raises for one message's sake."""
        if asyncio.get_running_loop().time() < one.until:
            return await self._send(one)
        return self._give_back(one)

    async def _send(self, one: Outgoing) -> Result:
        if one.address is None:
            return self._ended(one, ERASED if one.erased else "no-address", None)
        return await self._known(one, one.address) or await self._send_now(one, one.address)

    async def _send_now(self, one: Outgoing, address: str) -> Result:
        carrier = self._channel.carrier
        try:
            accepted = await self._channel.send(address, one.text, str(one.message_id))
        except Rejected as error:
            if error.permanent:
                TRIES.labels(carrier, Failure.REFUSED).inc()
                return self._ended(one, reason_word(error.code), error.code)
            return self._again(one, Failure.BUSY, error.code)
        except NoAnswer as error:
            failure = Failure.AMBIGUOUS if error.maybe_accepted else Failure.UNREACHED
            return self._again(one, failure, error.reason)
        except Exception as error:
            # An adapter's own fault must not stop the batch; whether the message left is not known.
            log.exception("send-failed", channel=carrier, error=type(error).__name__)
            return self._again(one, Failure.AMBIGUOUS, type(error).__name__)
        crash_point(f"{carrier}-accepted")
        TRIES.labels(carrier, "accepted").inc()
        if carrier is Carrier.SMS:
            PARTS.inc(one.text.parts)
        return Result(
            one.message_id,
            one.claim,
            one.registration_id,
            self._channel.accepted,
            provider_ref=accepted.provider_ref,
        )

    async def _known(self, one: Outgoing, address: str) -> Result | None:
        """What came of it if the carrier has it already, which only a restore makes us ask. None: it may be sent."""
        find = self._channel.find
        if one.ask_since is None or find is None:
            return None
        try:
            sent = await find(address, one.ask_since, str(one.message_id))
        except Rejected as error:
            # A number that it will not even talk about was never sent anything.
            return None if error.permanent else self._again(one, Failure.BUSY, error.code)
        except NoAnswer as error:
            return self._again(one, Failure.UNREACHED, error.reason)
        if sent is None:
            return None
        FOUND.labels(self._channel.carrier).inc()
        ends = {None: self._channel.accepted, True: State.DELIVERED, False: State.UNDELIVERED}
        return Result(
            one.message_id,
            one.claim,
            one.registration_id,
            ends[sent.delivered],
            carrier_code=sent.code or None,
            reason_code=reason_word(sent.code) if sent.delivered is False else None,
            tried=False,
        )

    def _again(self, one: Outgoing, failure: Failure, code: str) -> Result:
        carrier = self._channel.carrier
        TRIES.labels(carrier, failure).inc()
        ambiguous = failure is Failure.AMBIGUOUS
        if ambiguous:
            AMBIGUOUS.labels(carrier).inc()
        due_at = next_try(failure, one.tries, self._database.clock.now())
        if due_at is None:
            log.warning("given-up", channel=carrier, message_id=str(one.message_id), failure=failure)
            return self._ended(one, GIVEN_UP, code, ambiguous=ambiguous)
        return Result(
            one.message_id,
            one.claim,
            one.registration_id,
            State.CREATED,
            due_at=due_at,
            carrier_code=code,
            ambiguous=ambiguous,
        )

    def _give_back(self, one: Outgoing) -> Result:
        """Not tried: a slow carrier used up the time in which this claim is surely ours alone."""
        at = self._database.clock.now()
        return Result(one.message_id, one.claim, one.registration_id, State.CREATED, due_at=at, tried=False)

    @staticmethod
    def _ended(one: Outgoing, reason: str, code: str | None, *, ambiguous: bool = False) -> Result:
        return Result(
            one.message_id,
            one.claim,
            one.registration_id,
            State.UNDELIVERED,
            carrier_code=code,
            reason_code=reason,
            ambiguous=ambiguous,
        )


def _is_due(at: datetime | None, now: datetime) -> bool:
    return at is not None and at <= now


def _claim_of(one: Outgoing) -> Claim:
    text = one.text
    return Claim(one.message_id, text.version, text.subject, text.body, text.parts, language=text.language)
