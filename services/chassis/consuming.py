"""Door 2, below the handlers: from records of the broker to committed effects, at least once and once in effect.

A service hands over one table, `{event class: handler}`. The chassis subscribes once to each topic in it and
treats a poll's records as one unit: parse, claim in the inbox, run the handlers, commit, and only then commit
the offsets. Handlers take lists; events of one key come to them in the order of their versions, across types too.

When a unit fails, its events are tried again one at a time. What a database or broker fault stops is retried in
place and then given back to the broker: its partition waits, and nothing is parked. What fails for good is parked
with its reason, and later events of its key park behind it while other keys flow. What does not fit into memory is
parked too; when the next does not fit either, it is the process that is at fault, and it ends.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import asyncpg
import structlog
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from opentelemetry.trace import SpanKind

from contracts.catalogue import EVENTS, MalformedEvent, Unknown, fact_of, look_up, parse
from contracts.envelope import Envelope, MalformedEnvelope
from contracts.event import Event
from services.chassis import inbox, parked
from services.chassis.cause import Cause, bind_cause
from services.chassis.crash import crash_point, out_of_memory
from services.chassis.db import Database, UnitOfWork
from services.chassis.header_names import forgive
from services.chassis.heard import OVERTAKEN, Heard
from services.chassis.pacing import Pace
from services.chassis.telemetry import BATCH_SECONDS, DUPLICATES, HANDLED, PARKED, SKIPPED
from services.chassis.tracing import Tracing
from services.chassis.turns import Record, Taken, Unfit, in_turn, runs

log = structlog.get_logger(__name__)

Handler = Callable[..., Awaitable[None]]

BATCH: Final = 500
ATTEMPTS: Final = 3  # of an event that a handler refuses for a reason of its own, before it is parked
_BACKOFF: Final = (
    0.05,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    5.0,
    5.0,
)  # seconds; their sum stays far below the poll interval
_POLL_INTERVAL_MS: Final = 300_000
# A broker that is cut from its peers and not from us goes on answering as the leader it no longer is: only asking
# another one tells. At aiokafka's five minutes nothing would arrive for as long.
METADATA_AGE_MS: Final = 10_000
# Connection lost, resources short, lock or statement timeout, serialization failure, deadlock: another try may work.
# 25006: the address already leads to a standby, which is not promoted yet and only reads.
_TRANSIENT_SQLSTATES: Final = ("08", "53", "57", "55P03", "40001", "40P01", "58", "25006")


class Blocked(Exception):
    """The database cannot be reached: the records go back to the broker and their partitions wait."""


class Consumers:
    """A service's reactions to what other services said."""

    def __init__(
        self,
        handlers: Mapping[type[Event], Handler],
        *,
        database: Database,
        service: str,
        deps: Mapping[str, object] | None = None,
        tracing: Tracing | None = None,
        pace: float = 0.0,
        batch: int = BATCH,
    ) -> None:
        self._database = database
        self._batch = batch
        self._pace = Pace(pace)
        self._tracing = tracing or Tracing(service, None)
        self._service = service
        self._handlers = {event.type: (name_of(h), bind(h, deps or {})) for event, h in handlers.items()}
        self._by_name = dict(self._handlers.values())
        self._facts = {fact_of(kind) for kind in self._handlers}
        if len(self._by_name) != len(set(handlers.values())):
            raise ValueError(f"two handlers of {service} have one name: the inbox could not tell them apart")
        self.topics = sorted({event.topic for event in handlers})
        self.handled = 0
        self._heard = Heard()
        self._starved = False  # the event before did not fit into memory, alone
        self.busy = False
        self.assigned = False

    def subscribe(self, broker: KafkaBroker, *, group_instance_id: str | None = None) -> None:
        """One batch subscriber for the service's topics. The policy is set here and nowhere else."""
        if not self.topics:
            return
        subscriber = broker.subscriber(
            *self.topics,
            batch=True,
            max_records=self._batch,
            batch_timeout_ms=20,  # also how long FastStream looks away after an empty poll
            group_id=self._service,
            group_instance_id=group_instance_id,
            auto_offset_reset="earliest",
            max_poll_interval_ms=_POLL_INTERVAL_MS,
            session_timeout_ms=30_000 if group_instance_id else 10_000,
            # The only policy that loses nothing: offsets move after this function returned.
            ack_policy=AckPolicy.NACK_ON_ERROR,
            codec=_RawCodec(),
            parser=_header_safe,
        )
        subscriber(self.on_batch)

    def hurry(self) -> None:
        """Somebody waits for what comes: no pace is waited out."""
        self._pace.hurry()

    async def on_batch(self, records: Sequence[Record]) -> None:
        """Everything one poll brought. Returns when its effects are committed; raises to get it again."""
        started = time.monotonic()
        self.busy = True
        try:
            await self._pace.keep()
            self._pace.begin()
            await self._take_in(records)
        finally:
            self.busy = False
        crash_point("consumer-before-offset-commit")
        BATCH_SECONDS.labels(records[0].topic).observe(time.monotonic() - started)
        log.info(
            "batch",
            topic=records[0].topic,
            events=len(records),
            offset=records[-1].offset,
            milliseconds=round((time.monotonic() - started) * 1000, 1),
        )

    async def _take_in(self, records: Sequence[Record]) -> None:
        sorted_out = in_turn([found for record in records if (found := self.sort_out(record)) is not None])
        if not sorted_out:
            return
        parents = [f.envelope.traceparent for f in sorted_out if isinstance(f, Taken)]
        try:
            with self._tracing.span("batch", parents, SpanKind.CONSUMER):
                await self._together(sorted_out)
            self._starved = False
        except Exception as error:
            log.warning("batch-failed", error=type(error).__name__, transient=is_transient(error))
            for found in sorted_out:
                await self._alone(found)

    def sort_out(self, record: Record) -> Taken | Unfit | None:  # noqa: PLR0911 - one line per verdict
        """What a record is to this service. None: of a type that nobody here handles, counted and skipped."""
        try:
            envelope = Envelope.from_headers(record.headers)
        except MalformedEnvelope as error:
            return Unfit(record, f"malformed-envelope: {error}", None)
        known = look_up(envelope.type)
        if known is Unknown.MAJOR and fact_of(envelope.type) in self._facts:
            return Unfit(record, "unknown-major", envelope)
        if isinstance(
            known, Unknown
        ):  # also a newer major of what nobody here ever handled: it blocks no key
            SKIPPED.labels("unknown").inc()
            return None
        if known.type not in self._handlers:
            SKIPPED.labels(known.type).inc()
            return None
        try:
            event = parse(envelope, record.value or b"")
        except MalformedEvent as error:
            return Unfit(record, f"malformed-event: {error}", envelope)
        key = event.key
        if record.key is None or record.key.decode("utf-8", "replace") != key:
            return Unfit(record, "key-differs-from-event", envelope)
        return Taken(record, event, envelope, self._handlers[known.type][0], (record.topic, key))

    async def _together(self, found: Sequence[Taken | Unfit]) -> None:
        async with self._database.unit_of_work() as uow:
            blocked = await parked.blocked_keys(uow, {one.where for one in found})
            late = await self._heard.overtaken(uow, [one for one in found if isinstance(one, Taken)])
            good: list[Taken] = []
            for one in found:
                if isinstance(one, Unfit):
                    await self._park(uow, one.record, one.envelope, "", one.reason)
                    blocked.add(one.where)
                elif one.where in blocked:
                    await self._park(uow, one.record, one.envelope, one.handler, "behind-parked")
                elif late and (by := late.get(one.envelope.event_id)) is not None:
                    reason = f"{OVERTAKEN}: by version {by}"
                    await self._park(uow, one.record, one.envelope, one.handler, reason)
                else:
                    good.append(one)
            await self._apply(uow, good)
            uow.after_commit(partial(self._heard.remember, good))
        self.handled += len(found)

    async def _apply(self, uow: UnitOfWork, taken: Sequence[Taken]) -> None:
        """Claim, then hand each handler its new events, in runs that keep the order of every key."""
        ids: dict[str, list[Any]] = {}
        for one in taken:
            ids.setdefault(one.handler, []).append(one.envelope.event_id)
        new = {handler: await inbox.claim(uow, handler, claimed) for handler, claimed in ids.items()}
        fresh: list[Taken] = []
        for one in taken:
            # Twice in one batch is also twice: the first occurrence takes it.
            event_id, unclaimed = one.envelope.event_id, new[one.handler]
            if event_id in unclaimed:
                unclaimed.discard(event_id)
                fresh.append(one)
            else:
                DUPLICATES.labels(one.event.type).inc()
        for handler, events in runs(fresh):
            uow.cause = Cause.of(events[0].envelope)
            bind_cause(uow.cause)
            await self._by_name[handler](uow, events)
            HANDLED.labels(events[0].type).inc(len(events))
        crash_point("consumer-in-transaction")

    async def _alone(self, one: Taken | Unfit) -> None:
        """One event in a transaction of its own; parked when it fails for good; Blocked when nothing can work."""
        refused = 0
        for attempt, pause in enumerate((*_BACKOFF, None)):
            try:
                await self._together([one])
                self._starved = False
                return
            except Exception as error:
                if not is_transient(error):
                    refused += 1
                    log.warning(
                        "event-failed", attempt=attempt + 1, error=type(error).__name__, exc_info=True
                    )
                    if refused >= ATTEMPTS or isinstance(one, Unfit):
                        if self._starved and isinstance(error, MemoryError):
                            out_of_memory()
                        self._starved = isinstance(error, MemoryError)
                        await self._park_for_good(one, error)
                        return
                if pause is None:
                    raise Blocked(type(error).__name__) from error
                await asyncio.sleep(pause)

    async def _park_for_good(self, one: Taken | Unfit, error: Exception) -> None:
        handler = one.handler if isinstance(one, Taken) else ""
        async with self._database.unit_of_work() as uow:
            # The error's text may quote what it stumbled over: only its class is kept.
            await self._park(uow, one.record, one.envelope, handler, f"failed: {type(error).__name__}")
        self.handled += 1

    async def _park(
        self, uow: UnitOfWork, record: Record, envelope: Envelope | None, handler: str, reason: str
    ) -> None:
        await parked.park(uow, record, envelope, handler=handler, reason=reason)
        uow.after_commit(partial(_count_parked, reason, record.topic, record.partition, record.offset))

    async def replay(self, uow: UnitOfWork, *records: Record) -> None:
        """Take records in as if they came now; through the same inbox. Raises what a handler raises."""
        found = [one for record in records if (one := self.sort_out(record)) is not None]
        for one in found:
            if isinstance(one, Unfit):
                raise ValueError(one.reason)
        await self._apply(uow, [one for one in found if isinstance(one, Taken)])


def bind(handler: Handler, deps: Mapping[str, object]) -> Handler:
    """Give a handler the dependencies that its keyword parameters name. Raises TypeError for one nobody has."""
    wanted = [p.name for p in inspect.signature(handler).parameters.values() if p.kind is p.KEYWORD_ONLY]
    missing = [name for name in wanted if name not in deps]
    if missing:
        raise TypeError(f"{name_of(handler)} wants {missing}, which the composition root does not give")
    return partial(handler, **{name: deps[name] for name in wanted})


def name_of(handler: Handler) -> str:
    """What the inbox calls a handler. Renaming a handler makes it take every event in again."""
    return str(getattr(handler, "__name__", repr(handler)))


def is_transient(error: BaseException) -> bool:
    """Whether the same thing may work a moment later, because the fault lies with the infrastructure."""
    # The driver's internal error: a server that goes down has spoken into a connection that is not told so yet.
    if isinstance(
        error, OSError | TimeoutError | asyncpg.InterfaceError | asyncpg.InternalClientError | Blocked
    ):
        return True
    state = getattr(error, "sqlstate", None)
    return isinstance(state, str) and state.startswith(_TRANSIENT_SQLSTATES)


def _count_parked(reason: str, topic: str, partition: int, offset: int) -> None:
    PARKED.labels(reason.partition(":")[0]).inc()
    log.error("event-parked", reason=reason, topic=topic, partition=partition, offset=offset)


class _RawCodec:
    """Hand the broker's records to the subscriber as they are: headers decide before anything is decoded."""

    async def decode(self, msg: Any) -> Any:
        return msg.raw_message

    async def decode_batch(self, msg: Any) -> Any:
        return msg.raw_message

    async def encode(self, msg: Any, serializer: Any = None) -> tuple[bytes, str | None]:
        raise RuntimeError("only the relay publishes")

    async def encode_batch(self, msgs: Any, serializer: Any = None) -> list[tuple[bytes, str | None]]:
        raise RuntimeError("only the relay publishes")


async def _header_safe(records: Any, original: Callable[[Any], Awaitable[Any]]) -> Any:
    """FastStream's parser loses a message whose header is null or not UTF-8: it is shown none at all, and of a batch only
    its ends, by which it names it."""
    message = await original(tuple(dataclasses.replace(records[end], headers=()) for end in (0, -1)))
    message.raw_message = tuple(records)
    return message


def make_broker(bootstrap_servers: str, *, service: str) -> KafkaBroker:
    """The consuming side of the broker; publishing is the relay's."""
    forgive()
    return KafkaBroker(
        # A cluster is named by several of its brokers. FastStream takes a string for one address, as it stands.
        [address.strip() for address in bootstrap_servers.split(",")],
        client_id=service,
        metadata_max_age_ms=METADATA_AGE_MS,
        apply_types=False,
        allow_auto_create_topics=False,
        graceful_timeout=15,
        logger=logging.getLogger("faststream"),
        log_level=logging.DEBUG,
    )


__all__ = [
    "BATCH",
    "EVENTS",
    "Blocked",
    "Consumers",
    "Handler",
    "Record",
    "Taken",
    "Unfit",
    "bind",
    "is_transient",
    "make_broker",
    "runs",
]
