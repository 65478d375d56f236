"""Sending what is due on one channel: claim and keep the text, commit, send outside any transaction, record by set.

A process may die anywhere. Before the claim is committed nothing was sent; after that the lease runs out and the
message is sent again under the same reference, counted as possibly a second copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import orjson
import structlog
from prometheus_client import Counter

from contracts.cycle import Cycle
from contracts.reasons import Carrier
from services.chassis.crash import crash_point
from services.chassis.db import LOST, Database, OutcomeUnknown, Row, UnitOfWork
from services.chassis.enduring import endured
from services.chassis.vault import Vault
from services.notification.domain.life import CHANNEL_PAUSE, LEASE, TOO_LATE, State
from services.notification.domain.occasions import Occasion
from services.notification.domain.parts import parts
from services.notification.domain.urgency import BY_AGE_EVERY
from services.notification.domain.words import variables
from services.notification.handlers.asking import ask_about_accepted
from services.notification.handlers.contacts import row_of
from services.notification.handlers.flow import Flow
from services.notification.handlers.holding import close_of, end_of, note_superseded
from services.notification.handlers.outgoing import COLUMN, Channel, Outgoing, Tried
from services.notification.handlers.receipts import take_early
from services.notification.handlers.routing import Routing
from services.notification.handlers.scoreboard import Scoreboard
from services.notification.handlers.sending import AMBIGUOUS, PARTS, TRIES, Sending
from services.notification.repository import limits, messages, recipients, silence
from services.notification.repository.messages import Claim, Result
from services.notification.templates.wording import Wording

__all__ = ["AMBIGUOUS", "BATCH", "PARTS", "PATIENCE", "TRIES", "Channel", "Delivery"]

log = structlog.get_logger(__name__)

BATCH: Final = 256  # are claimed together
POSTPONED: Final = 5000  # are put off for the night together
TOGETHER: Final = 128  # are recorded together
HELD: Final = 2.0  # real seconds: what came back longer ago is recorded with fewer
# Real seconds from a claim until its message is begun; with two of the longest calls after it, still below the lease.
PATIENCE: Final = 45.0
# Real seconds for which what carriers answered is kept while the database is away: with all the above, below the lease.
KEPT: Final = 20.0
AGAIN: Final = 0.5  # real seconds between two tries to record it
MENDED_WITHIN: Final = timedelta(minutes=10)  # then what could not be written is looked at once more
UNWRITABLE: Final = Counter(
    "kaowu_messages_unwritable",
    "Looks at messages that could not be put into words, or whose address could not be opened",
    ["channel", "occasion"],
)


@dataclass(slots=True)
class Unwritable:
    """Messages of a batch that cannot be written, by occasion and fault. A text that is wrong is wrong for everybody: of each
    fault the first is said in full."""

    alike: dict[tuple[str, str], list[UUID]] = field(default_factory=dict)

    def note(self, row: Row, error: Exception) -> None:
        ids = self.alike.setdefault((row.occasion, type(error).__name__), [])
        ids.append(row.message_id)
        if len(ids) == 1:
            log.error("not-to-be-written", message_id=str(row.message_id), exc_info=error)


@dataclass(slots=True)
class Run:
    """What one run of a channel has seen so far."""

    claimed: int = 0
    came_back: int = 0
    failed: int = 0  # in a row, up to now
    under_way: set[UUID] = field(default_factory=set)
    """Claimed and not recorded. A clock that is set forward, or a machine that slept, has every lease run out at once:
    what this process is about to hear of itself it does not send again."""

    def take(self, batch: Sequence[Outgoing]) -> None:
        self.claimed += len(batch)
        self.under_way.update(one.message_id for one in batch)

    def learn(self, results: Sequence[Result]) -> None:
        for result in results:
            self.failed = self.failed + 1 if result.state is State.CREATED else 0
            self.under_way.discard(result.message_id)
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


class Delivery:
    """Sends what is due on one channel."""

    def __init__(
        self,
        channel: Channel,
        *,
        database: Database,
        cycle: Cycle,
        wording: Wording,
        vault: Vault,
        routing: Routing | None = None,
        scoreboard: Scoreboard | None = None,
    ) -> None:
        self._channel, self._routing, self._scoreboard = channel, routing, scoreboard
        self._sending = Sending(channel, database.clock, scoreboard)
        self._database, self._cycle, self._wording, self._vault = database, cycle, wording, vault
        self.ending: Callable[[], bool] = lambda: False
        """Whether the process wants to end: what is under way comes back and is recorded, nothing more is claimed."""
        self.on_accepted: Callable[[datetime], None] = lambda _: None
        """Told the moment at which carriers had taken some, of which a receipt is to come."""
        self._batches = 0

    async def deliver(self) -> datetime | None:
        """Send everything that is due; the moment when the next message is."""
        channel, ask_at = self._channel, None
        if channel.first.find is not None:
            ask_at = await ask_about_accepted(
                self._database, self._vault, channel.finder, channel.carrier, channel.in_flight
            )
        due_at = await self._deliver_all()
        return min((at for at in (ask_at, due_at) if at is not None), default=None)

    async def _deliver_all(self) -> datetime | None:
        """An answer that is slow to come holds up its own message: the others go on, and what came back is recorded by set."""
        run, due_at, more, away = Run(), None, True, None
        async with Flow(self._send_in_time, self._channel.in_flight) as flow:
            while True:
                if self.ending() or run.down:
                    more = False
                    await self._put_off(flow.put_off())
                elif more and flow.hungry and run.goes_on:
                    try:
                        batch, due_at, more = await self._claim(run.under_way)
                    except LOST as error:
                        # The database is away: what is under way comes back and is kept first.
                        batch, away, more = [], error, False
                    run.take(batch)
                    flow.put(batch)
                if flow.answered and (flow.idle or flow.answered >= TOGETHER or flow.held() > HELD):
                    due_at = await self._record(flow.take(), run)
                    away = None
                    more = more or _is_due(due_at, self._database.clock.now())
                if not flow.idle:
                    await flow.moves()
                elif flow.answered:
                    continue  # the last ones came back while those before them were recorded
                elif away is not None:
                    raise away
                elif run.failed_all:
                    # What waits behind a channel that is away need not find it out one by one.
                    return due_at and max(due_at, self._database.clock.now() + CHANNEL_PAUSE)
                elif self.ending() or not _is_due(due_at, self._database.clock.now()):
                    return due_at
                else:
                    more = True

    async def _claim(self, under_way: set[UUID]) -> tuple[list[Outgoing], datetime | None, bool]:
        """The next batch, its texts on record; without one, when there will be one; and whether more may be due."""
        carrier = self._channel.carrier
        self._batches += 1
        async with self._database.unit_of_work() as uow:
            until = self._cycle.quiet_until(uow.at)
            night = carrier is Carrier.SMS and until > uow.at
            if night and await messages.postpone(uow, until, POSTPONED) == POSTPONED:
                # A storm left more than that over: all of it is put off before anything is picked.
                return [], uow.at, True
            by_age = self._batches % BY_AGE_EVERY == 0
            picked = await messages.pick(uow, carrier, BATCH, by_age=by_age, besides=under_way)
            rows, ends = await self._judged(uow, picked)
            untrue = [row for row in rows if ends[row.message_id] is State.SUPERSEDED]
            await messages.supersede(uow, [row.message_id for row in untrue])
            going = [row for row in rows if ends[row.message_id] is None]
            batch, closed_until = await self._written(uow, [row for row in going if row.contact_sure]), None
            if self._routing is not None:
                batch, closed_until = await self._routing.route(uow, batch)
            await messages.claim(uow, [_claim_of(one) for one in batch], uow.at + LEASE)
            due_at = None if batch else await messages.next_due(uow, carrier)
        if batch:
            crash_point(f"{carrier}-claimed")
        note_superseded(carrier, untrue)
        late = {row.message_id: row.registration_id for row in rows if ends[row.message_id] is State.EXPIRED}
        if late:
            # Its people are locked before it, as everywhere, so not in the transaction that found it.
            async with self._database.unit_of_work() as uow:
                await silence.expire(uow, late, TOO_LATE)
                due_at = due_at if batch else await messages.next_due(uow, carrier)
        unsure = {row.message_id: row.registration_id for row in going if not row.contact_sure}
        if unsure:
            # What is kept of their contact is known to be old; of what was tried before, too.
            async with self._database.unit_of_work() as uow:
                await recipients.wait_for_contact(uow, unsure)
                due_at = due_at if batch else await messages.next_due(uow, carrier)
        if due_at is not None and closed_until is not None:
            due_at = max(due_at, closed_until)
        left = {row.message_id for row in going if row.contact_sure} - {one.message_id for one in batch}
        again = sum(row.state == State.SENDING and row.message_id not in left for row in rows)
        if again:
            AMBIGUOUS.labels(carrier).inc(again)
            log.warning("taken-over", channel=carrier, messages=again)
        # A batch that was not filled has emptied the table; what comes meanwhile is found when it is recorded.
        return batch, due_at, bool(batch) and len(picked) == BATCH

    async def _record(self, tried: Sequence[Tried], run: Run) -> datetime | None:
        """Record what came of these. When something is due."""
        carrier = self._channel.carrier
        results = [one.result for one in tried]
        crash_point(f"{carrier}-before-record")
        due_at = await self._keep(results, [one.one for one in tried if not one.left])
        crash_point(f"{carrier}-recorded")
        for provider in self._channel.providers.values():
            if provider.by_serial and any(one.one.provider == provider.name for one in tried):
                await take_early(self._database, provider.name)
        if any(result.state is State.ACCEPTED for result in results):
            self.on_accepted(self._database.clock.now())
        run.learn(results)
        log.info("delivered", channel=carrier, messages=len(results), down=run.failed_all)
        return due_at

    async def _keep(self, results: Sequence[Result], stayed: Sequence[Outgoing]) -> datetime | None:
        """Written, if need be once the database is there again: once forgotten, every mail among them would go out again."""

        def lost(error: Exception) -> None:
            nonlocal stayed
            if isinstance(error, OutcomeUnknown):
                stayed = []  # perhaps it is written: results know it by their claims, what stayed would count twice
            log.warning("not-recorded", messages=len(results), error=type(error).__name__)

        return await endured(lambda: self._write(results, stayed), within=KEPT, every=AGAIN, lost=lost)

    async def _write(self, results: Sequence[Result], stayed: Sequence[Outgoing]) -> datetime | None:
        """One transaction. When something is due."""
        async with self._database.unit_of_work() as uow:
            await messages.record(uow, results)
            # Carriers before numbers and days, as whoever claims locks them.
            if self._scoreboard is not None:
                await self._scoreboard.write(uow)
            if self._routing is not None:
                await self._routing.stayed(uow, stayed)
            return await messages.next_due(uow, self._channel.carrier)

    async def _put_off(self, left: Sequence[Outgoing]) -> None:
        """These were claimed and are not sent now."""
        if left:
            async with self._database.unit_of_work() as uow:
                await messages.record(uow, [self._sending.give_back(one).result for one in left])
                if self._routing is not None:
                    await self._routing.stayed(uow, left)

    async def _judged(
        self, uow: UnitOfWork, rows: Sequence[Row]
    ) -> tuple[Sequence[Row], dict[UUID, State | None]]:
        """Those that can be judged, and how each ends if it is not to go. A word of the version that runs beside us and that
        is not known here is for that version."""
        ends: dict[UUID, State | None] = {}
        strange = Unwritable()
        for row in rows:
            try:
                ends[row.message_id] = end_of(row, uow.at)
            except ValueError as error:
                strange.note(row, error)
        await self._hold(uow, strange)
        return [row for row in rows if row.message_id in ends], ends

    async def _written(self, uow: UnitOfWork, rows: Sequence[Row]) -> list[Outgoing]:
        """Ready to leave. What cannot be put into words, or whose address cannot be opened, waits for whoever mends that: it
        holds up nobody else, and its person is called like anybody whom nothing told."""
        batch: list[Outgoing] = []
        unwritable = Unwritable()
        for row in rows:
            try:
                batch.append(self._outgoing(row, uow.at))
            except Exception as error:
                unwritable.note(row, error)
        await self._hold(uow, unwritable)
        return batch

    async def _hold(self, uow: UnitOfWork, unwritable: Unwritable) -> None:
        for (occasion, fault), ids in unwritable.alike.items():
            UNWRITABLE.labels(self._channel.carrier, occasion).inc(len(ids))
            log.error("held-unwritten", occasion=occasion, error=fault, messages=len(ids))
            await limits.hold(uow, [(one, uow.at + MENDED_WITHIN) for one in ids])

    def _outgoing(self, row: Row, at: datetime) -> Outgoing:
        occasion, carrier = Occasion(row.occasion), self._channel.carrier
        facts = {**orjson.loads(row.facts), **close_of(row)}
        phrases = self._wording.phrases(carrier, occasion, row.variant, row.language)
        said = variables(occasion, facts, row.tail, self._cycle, phrases)
        text = self._wording.render(carrier, occasion, row.variant, said, row.language)
        address = row.address and self._vault.decrypt_text(
            row.address, row=row_of(row.registration_id, COLUMN[carrier])
        )
        return Outgoing(
            message_id=row.message_id,
            registration_id=row.registration_id,
            claim=row.claims + 1,
            tries=row.tries + 1,
            address=address,
            text=text,
            parts=parts(self._channel.signature + text.body) if carrier is Carrier.SMS else 1,
            priority=row.priority,
            had_by=row.provider or "",
            provider=self._channel.first.name,
            at=at,
            ask_since=self._ask_since(row),
            number=self._vault.index(address, purpose="sms-number") if address and self._routing else b"",
            until=asyncio.get_running_loop().time() + PATIENCE,
            erased=row.erased_at is not None,
        )

    def _ask_since(self, row: Row) -> datetime | None:
        """Since when a carrier may have this without our knowing: that can be asked, only of some."""
        if self._channel.finder(row.provider) is None:
            return None
        since: datetime | None = row.ask_since
        last: datetime = row.state_at
        if row.state == State.SENDING:
            # Whoever had claimed it never said what came of it.
            return min(since or last, last)
        return since

    async def _send_in_time(self, one: Outgoing) -> Tried:
        """Once. Never raises for one message's sake."""
        if asyncio.get_running_loop().time() < one.until:
            return await self._sending.send(one)
        return self._sending.give_back(one)


def _is_due(at: datetime | None, now: datetime) -> bool:
    return at is not None and at <= now


def _claim_of(one: Outgoing) -> Claim:
    text = one.text
    return Claim(
        one.message_id,
        text.version,
        text.subject,
        text.body,
        one.parts,
        one.provider,
        language=text.language,
    )
