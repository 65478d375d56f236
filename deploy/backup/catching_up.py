"""A service whose database is older than what it has said: everything since then taken from the topics again.

Its own topic is the log of what it said, and others have acted on it: nothing of it may be unsaid or said otherwise. So
its own events are put back into its log as they are and folded into its rows, and what it had heard goes through its consumers
again, both in the order in which they were lived through. What only others know (gateways, carriers) is asked by the service
itself, once it runs: `recoveries` and `messages.ask_since` tell it to. See docs/decisions/0015.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from contracts.catalogue import newest
from contracts.cycle import Cycle
from deploy.backup.archive import CannotRestore
from deploy.rehearsal.invariants.reading import subscriptions_of
from deploy.replay.engine import CannotReplay, replay
from deploy.replay.history import History, Said, owners, read_topics
from deploy.replay.order import Step, order
from deploy.replay.reactions import Recorded, consumers_of
from deploy.replay.topics import read_offsets
from services.chassis import audit
from services.chassis.db import Database, driver_url
from services.chassis.tokens import Actor
from services.notification.repository import silence
from services.payment.repository import recoveries
from services.payment.repository.left_behind import LeftBehind, Unrecorded, left_behind, unrecorded

_APPLICATION: Final = "kaowu-catch-up"
_ACTOR: Final = Actor(_APPLICATION, frozenset({"service"}))
_BATCH: Final = 500
_LOOKS: Final = 20
_PAUSE: Final = 0.5  # seconds between two looks
_LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LOG: Final = "select event_id, key, sequence from outbox"
# What had not gone out, as far as the backup knew.
_WAITING: Final = """
select o.event_id from outbox o, relay_cursor c
where c.id = 1 and o.xid >= c.lower and not (c.upper is not null and o.xid < c.upper and o.id <= c.last_id)
"""
_PARKED_KEYS: Final = "select topic, key from parked where status = 'parked' and key is not null"
# Transaction ids belong to a server, and this may be another one than the log's rows were written on. A row from its
# future would never go out; a cursor in its future would let everything said from now on go unpublished.
_NOT_FROM_HERE: Final = (
    "update outbox set xid = '3' where xid >= pg_current_xact_id() and event_id <> all($1::uuid[])"
)
_TO_GO_OUT: Final = "update outbox set xid = pg_current_xact_id() where event_id = any($1::uuid[])"
_FROM_HERE_ON: Final = (
    "update relay_cursor set lower = pg_current_xact_id(), upper = null, last_id = 0 where id = 1"
)
_OTHERS: Final = """
select application_name, count(*) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
group by application_name order by application_name
"""


@dataclass
class CaughtUp:
    """What one service was given back."""

    service: str
    folded: int = 0
    """Events of its own that it had forgotten."""
    heard: int = 0
    parked: int = 0
    to_go_out: int = 0
    """Events of its log that are on no topic."""
    to_ask: int = 0
    """Obligations that the gateway, or messages that a carrier is asked about."""
    strangers: list[UUID] = field(default_factory=list)
    """Registrations whose person no event can give back."""
    left_behind: list[LeftBehind] = field(default_factory=list)
    """Moved closes that had not reached everybody: two people had decided so, and somebody has to again."""
    unrecorded: list[Unrecorded] = field(default_factory=list)
    """Decisions of which only what they did is known."""


@dataclass(frozen=True)
class Remembered:
    """What a restored database knows."""

    log: frozenset[UUID]
    latest: Mapping[str, int]
    """key → sequence of its last event."""
    numbered: Mapping[tuple[str, int], UUID]
    waiting: frozenset[UUID]
    dealt_with: frozenset[UUID]
    """Events of others that were taken in or parked."""


async def refuse_while_used(service: str, url: str) -> None:
    """Raises CannotRestore while somebody else is connected: nothing may be decided while half is known."""
    connection = await asyncpg.connect(
        driver_url(url), timeout=10, server_settings={"application_name": _APPLICATION}
    )
    try:
        others = await connection.fetch(_OTHERS)
    finally:
        await connection.close()
    if others:
        who = ", ".join(f"{row[0] or 'unnamed'} ({row[1]})" for row in others)
        raise CannotRestore(f"{service}'s database is in use by {who}: stop every process of {service} first")


async def catch_up(
    databases: Mapping[str, str],
    cycle: Cycle,
    bootstrap: str,
    *,
    backup_at: datetime,
    at: datetime,
    say: Callable[[str], None] = lambda _: None,
    begin: Callable[[str, int], Callable[[int], None]] = lambda *_: lambda _: None,
) -> dict[str, CaughtUp]:
    """These services' databases, up to the present ends of the topics. `at`: now. Raises CannotRestore."""
    handlers = subscriptions_of(databases)
    for service, url in databases.items():
        # Before anything else: whoever starts a service on what is half done must not forfeit or send.
        await _tell_to_ask(service, url, backup_at, at)
    known = {service: await _remembered(service, url) for service, url in databases.items()}
    owner = owners()

    def keep(one: Said) -> bool:
        service = owner[one.topic]
        if service in known and one.event_id not in known[service].log:
            return True
        return any(
            other != service and newest(one.type) in handlers[other] and one.event_id not in memory.dealt_with
            for other, memory in known.items()
        )

    history = await _all_that_was_said(bootstrap, keep)
    say(f"{history.records} records on the topics")
    done = {}
    for service, url in databases.items():
        memory = known[service]
        own = [one for one in history.said[service] if one.event_id not in memory.log]
        heard = [
            one
            for other, said in history.said.items()
            if other != service
            for one in said
            if newest(one.type) in handlers[service] and one.event_id not in memory.dealt_with
        ]
        _refuse_another_history(service, memory, own)
        steps = order(own, heard, {})
        one = done[service] = CaughtUp(service)
        await _live_again(service, url, cycle, steps, one, begin(service, len(steps)))
        await _let_go_out(url, memory, history.seen[service], one)
        # Once more: what was made meanwhile may have left as well.
        await _tell_to_ask(service, url, backup_at, at)
        await _take_stock(service, url, one, at)
        await _note(url, one, backup_at, at)
    return done


async def _all_that_was_said(bootstrap: str, keep: Callable[[Said], bool]) -> History:
    """The topics, once the broker shows at least as much of them as groups have taken in."""
    looks = _LOOKS
    while True:
        history = await read_topics(bootstrap, keep=keep)
        taken = await read_offsets(bootstrap)
        short = [
            part
            for offsets in taken.values()
            for part, offset in offsets.items()
            if history.ends[part] < offset
        ]
        if not short:
            return history
        looks -= 1
        if not looks:
            raise CannotRestore(
                f"the broker holds less of {short[0].topic} ({short[0].partition}) than has been read of it: not all that was "
                "said is there. Wait until every broker is up; if records are lost: docs/runbooks/restore.md"
            )
        await asyncio.sleep(_PAUSE)


async def _remembered(service: str, url: str) -> Remembered:
    connection = await asyncpg.connect(driver_url(url), timeout=10)
    try:
        log = await connection.fetch(_LOG)
        inbox = await connection.fetch("select event_id from inbox")
        parked = await connection.fetch("select event_id from parked where event_id is not null")
        waiting = await connection.fetch(_WAITING)
    finally:
        await connection.close()
    latest: dict[str, int] = {}
    for _, key, sequence in log:
        latest[key] = max(latest.get(key, 0), sequence)
    return Remembered(
        log=frozenset(row[0] for row in log),
        latest=latest,
        numbered={(row[1], row[2]): row[0] for row in log},
        waiting=frozenset(row[0] for row in waiting),
        dealt_with=frozenset(row[0] for row in (*inbox, *parked)),
    )


def _refuse_another_history(service: str, memory: Remembered, own: Sequence[Said]) -> None:
    """The topic must go on where the log ends, for every key, and say nothing else about what the log says."""
    following = dict(memory.latest)
    for one in sorted(own, key=lambda one: one.sequence):
        other = memory.numbered.get((one.key, one.sequence))
        if other is not None:
            raise CannotRestore(
                f"{service}'s log and {one.topic} are two histories: version {one.sequence} of {one.key} is "
                f"{other} in the log and {one.event_id} on the topic. Is it a backup of another system?"
            )
        expected = following.get(one.key, 0) + 1
        if one.sequence != expected:
            raise CannotRestore(
                f"{one.topic} no longer holds all that {service} has said since the backup: after version "
                f"{expected - 1} of {one.key} comes {one.sequence}. Take a younger backup"
            )
        following[one.key] = expected


async def _live_again(
    service: str,
    url: str,
    cycle: Cycle,
    steps: Sequence[Step],
    done: CaughtUp,
    tick: Callable[[int], None],
) -> None:
    clock = Recorded(_LONG_AGO)
    database = Database(url, clock=clock, pool_size=2, application=_APPLICATION)
    try:
        async with database.unit_of_work() as uow:
            await uow.sql("analyze")
        for start in range(0, len(steps), _BATCH):
            batch = steps[start : start + _BATCH]
            held_up = await _keys_held_up(database)
            try:
                if any((step.said.topic, step.said.key) in held_up for step in batch):
                    raise CannotReplay("a key waits behind a parked event")
                lived = await replay(database, service, cycle, batch, book=False)
            except CannotReplay:
                await _one_by_one(service, database, clock, cycle, batch, done)
            else:
                _refuse_contradictions(service, lived.contradictions)
                done.folded += lived.folded + lived.reacted
                done.heard += lived.heard
            tick(len(batch))
    finally:
        await database.dispose()


async def _keys_held_up(database: Database) -> Collection[tuple[str, str]]:
    async with database.reading() as uow:
        return {(row.topic, row.key) for row in await uow.sql(_PARKED_KEYS)}


async def _one_by_one(
    service: str, database: Database, clock: Recorded, cycle: Cycle, batch: Sequence[Step], done: CaughtUp
) -> None:
    """As the service itself takes events in: what fails for good is parked, and what comes later of its key behind it."""
    consumers = consumers_of(service, database, cycle)
    for step in batch:
        if step.own:
            try:
                lived = await replay(database, service, cycle, [step], book=False)
            except CannotReplay as error:
                raise CannotRestore(
                    f"what {service} has said cannot be lived through again: {error}"
                ) from None
            _refuse_contradictions(service, lived.contradictions)
            done.folded += lived.folded + lived.reacted
            continue
        clock.at = step.at
        parked = await _parked(database)
        await consumers.on_batch([step.said.record()])
        more = await _parked(database) - parked
        done.parked += more
        done.heard += 1 - more


async def _parked(database: Database) -> int:
    async with database.reading() as uow:
        return int((await uow.sql("select count(*) as n from parked"))[0].n)


def _refuse_contradictions(service: str, found: Sequence[Any]) -> None:
    if found:
        one = found[0]
        raise CannotRestore(
            f"{service} said {one.said_then} as version {one.sequence} of {one.key}, and what led to it gives "
            f"{one.says_now} now ({', '.join(one.fields) or 'another type'}): this version of {service} decides otherwise. "
            "Restore with the version that ran"
        )


async def _let_go_out(url: str, memory: Remembered, on_topic: Collection[UUID], done: CaughtUp) -> None:
    """The relay goes on with exactly what is on no topic, whatever server this is."""
    connection = await asyncpg.connect(driver_url(url), timeout=10)
    try:
        async with connection.transaction():
            log = await connection.fetch("select event_id from outbox")
            new = {row[0] for row in log} - memory.log
            left = [event_id for event_id in memory.waiting | new if event_id not in on_topic]
            await connection.execute(_NOT_FROM_HERE, left)
            await connection.execute(_TO_GO_OUT, left)
            await connection.execute(_FROM_HERE_ON)
    finally:
        await connection.close()
    done.to_go_out = len(left)


async def _tell_to_ask(service: str, url: str, backup_at: datetime, at: datetime) -> None:
    if service not in ("payment", "notification"):
        return
    database = Database(url, clock=Recorded(at), pool_size=1, application=_APPLICATION)
    try:
        async with database.unit_of_work() as uow:
            if service == "payment":
                await recoveries.begin(uow, backup_at)
            else:
                await silence.ask_first(uow, backup_at)
    finally:
        await database.dispose()


async def _note(url: str, done: CaughtUp, backup_at: datetime, at: datetime) -> None:
    """In the audit trail: from here on it is another life than the one that was written down."""
    database = Database(url, clock=Recorded(at), pool_size=1, application=_APPLICATION)
    counted = {name: len(getattr(done, name)) for name in ("strangers", "left_behind", "unrecorded")}
    detail = {"backup_at": backup_at.isoformat(), **asdict(done), **counted}
    try:
        async with database.unit_of_work() as uow:
            await audit.record(uow, _ACTOR, "catch-up", subject=done.service, detail=detail)
    finally:
        await database.dispose()


_TO_ASK: Final = {
    "payment": "select count(*) from obligations",
    "notification": "select count(*) from messages where ask_since is not null and state in ('created', 'sending')",
}
_STRANGERS: Final = """
select r.id from registrations r where not exists (select from people p where p.registration_id = r.id) order by r.id
"""


async def _take_stock(service: str, url: str, done: CaughtUp, at: datetime) -> None:
    connection = await asyncpg.connect(driver_url(url), timeout=10)
    try:
        if service in _TO_ASK:
            done.to_ask = int(await connection.fetchval(_TO_ASK[service]))
        if service == "registration":
            done.strangers = [row[0] for row in await connection.fetch(_STRANGERS)]
    finally:
        await connection.close()
    if service == "payment":
        database = Database(url, clock=Recorded(at), pool_size=1, application=_APPLICATION)
        try:
            async with database.reading() as uow:
                done.left_behind, done.unrecorded = await left_behind(uow), await unrecorded(uow)
        finally:
            await database.dispose()
