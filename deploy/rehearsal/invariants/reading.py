"""Collects the evidence from a system at rest: databases with read access, topics from their beginning to their end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from contracts.catalogue import EVENTS
from contracts.cycle import Cycle
from contracts.reasons import Channel
from contracts.topics import TOPICS
from deploy.rehearsal.doors import on_this_machine
from deploy.rehearsal.invariants.evidence import (
    Booked,
    Case,
    Closing,
    ComparedDay,
    Decision,
    Entry,
    Evidence,
    Fact,
    Key,
    Message,
    Obligation,
    OpenBreak,
    Order,
    Parked,
    Proof,
    Record,
    Registration,
    TwoPeople,
)
from deploy.rehearsal.invariants.privacy import Canaries, search
from services.chassis.header_names import forgive
from services.chassis.wire import Wires

_FACTS: Final = (
    "select event_id, topic, key, type, sequence, occurred_at, payload, causation_id from outbox order by id"
)
_INBOX: Final = "select handler, event_id from inbox"
_PARKED: Final = """
    select topic, partition, "offset", key, type, event_id, status, reason,
           octet_length(payload) > 0 and headers is not null as kept from parked
"""
_KEYS: Final = "select caller, key, answer is not null as answered from idempotency_keys"
_UNPUBLISHED: Final = """
    with c as (select * from relay_cursor where id = 1)
    select count(o.id) from c left join outbox o
    on o.xid >= c.lower and not (c.upper is not null and o.xid < c.upper and o.id <= c.last_id)
"""
_REGISTRATIONS: Final = """
    select id, number, site_id, version, form_version, withdrawn_at is not null as withdrawn, confirmation, payment
    from registrations
"""
_CASES: Final = "select registration_id, site_id, state, version, form_version from cases"
_DECISIONS: Final = "select registration_id, kind, actor, actor_kind from decisions"
_TWO_PEOPLE: Final = """
    select d.decision_id::text, d.asked_by, v.decided_by from decisions d join verdicts v using (decision_id)
    where v.word = 'approved'
"""
_OBLIGATIONS: Final = """
    select registration_id, status, version, amount_fen, closes_at, paid_at, expired_at, proof_id from obligations
"""
_ORDERS: Final = "select order_no, registration_id, status, amount_fen, answer_id from orders"
_LEDGER: Final = """
    select kind, registration_id, order_no, transaction_id, amount_fen, paid_at, answer_id from ledger
"""
_PROOFS: Final = "select proof_id, registration_id, closes_at, expired_at from proofs"
_CLOSINGS: Final = "select closes_at, closed_at, proofs from closings"
_COMPARED: Final = """
    select distinct on (channel, day) channel, day, lines from reconciliations order by channel, day, number desc
"""
# Money that the bill told us of, and that was booked since, is found: only the row waits for a person.
_OPEN_BREAKS: Final = """
    select b.channel, b.day, b.kind, b.order_no from breaks b
    where not exists (select from break_closings c where c.break_id = b.break_id)
      and not (b.kind = 'not-in-ledger' and exists (
          select from ledger l where l.channel = b.channel and l.transaction_id = b.transaction_id and l.kind = 'received'))
    order by b.number
"""
_MESSAGES: Final = """
    select registration_id, occasion, channel, state, caused_by, due_at, not_before, reason_code, {provider} as provider
    from messages
"""
# Version n-1 has one carrier and does not say which.
_KNOWS_PROVIDERS: Final = """
    select exists (select from pg_attribute where attrelid = 'messages'::regclass and attname = 'provider')
"""
_PIECE: Final = 4 * 2**20


async def gather(
    cycle: Cycle,
    databases: Mapping[str, str],
    bootstrap: str,
    *,
    simulators: str | None,
    canaries: Canaries,
    metrics: Mapping[str, str],
    files: Iterable[Path],
    subscriptions: Mapping[str, Mapping[str, str]],
    now: Any,
) -> Evidence:
    """Everything the invariants look at. `metrics`: service → address of its internal listener."""
    evidence = Evidence(
        cycle, subscriptions={name: dict(handlers) for name, handlers in subscriptions.items()}
    )
    for service, url in databases.items():
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            await read_database(evidence, service, connection, now)
        finally:
            await connection.close()
    await _topics(evidence, bootstrap, canaries)
    await _lag(evidence, bootstrap)
    async with on_this_machine() as wire:
        if simulators is not None:
            evidence.book = [order for channel in Channel async for order in _book(wire, simulators, channel)]
        for service, url in metrics.items():
            reply = await wire.request("GET", f"{url}/metrics", {})
            search(evidence, canaries, "metrics", [(service, reply.body)])
    for path in files:
        await asyncio.to_thread(search_file, evidence, canaries, path)
    return evidence


def search_file(evidence: Evidence, canaries: Canaries, path: Path, where: str = "logs") -> None:
    """Look through a file piece by piece, never cutting a line in two."""
    with path.open("rb") as file:
        while lines := file.readlines(_PIECE):
            search(evidence, canaries, where, [(path.name, b"".join(lines))])


async def read_database(evidence: Evidence, service: str, connection: Any, now: Any) -> None:
    """What one service's database says: its log, inbox, parked events and keys, and its own tables."""
    await _plumbing(evidence, service, connection)
    await _OWN[service](evidence, connection, now)


async def _plumbing(evidence: Evidence, service: str, connection: Any) -> None:
    evidence.facts[service] = [
        Fact(
            row["event_id"],
            row["topic"],
            row["key"],
            row["type"],
            row["sequence"],
            row["occurred_at"],
            orjson.loads(row["payload"]),
            row["causation_id"],
        )
        for row in await connection.fetch(_FACTS)
    ]
    evidence.inbox[service] = {(row[0], row[1]) for row in await connection.fetch(_INBOX)}
    evidence.parked.extend(Parked(service, *row) for row in await connection.fetch(_PARKED))
    evidence.keys.extend(Key(service, *row) for row in await connection.fetch(_KEYS))
    evidence.unpublished[service] = await connection.fetchval(_UNPUBLISHED)


async def _registration(evidence: Evidence, connection: Any, _: Any) -> None:
    rows = await connection.fetch(_REGISTRATIONS)
    evidence.registrations = [Registration(str(row[0]), *row[1:]) for row in map(tuple, rows)]


async def _confirmation(evidence: Evidence, connection: Any, _: Any) -> None:
    evidence.cases = [Case(str(row[0]), *row[1:]) for row in map(tuple, await connection.fetch(_CASES))]
    evidence.decisions = [
        Decision(str(row[0]), *row[1:]) for row in map(tuple, await connection.fetch(_DECISIONS))
    ]


async def _payment(evidence: Evidence, connection: Any, _: Any) -> None:
    fetch = connection.fetch
    evidence.two_people = [TwoPeople(*row) for row in await fetch(_TWO_PEOPLE)]
    evidence.obligations = [
        Obligation(str(row[0]), *row[1:]) for row in map(tuple, await fetch(_OBLIGATIONS))
    ]
    evidence.orders = [Order(row[0], str(row[1]), *row[2:]) for row in map(tuple, await fetch(_ORDERS))]
    evidence.ledger = [Entry(row[0], str(row[1]), *row[2:]) for row in map(tuple, await fetch(_LEDGER))]
    evidence.proofs = [Proof(row[0], str(row[1]), *row[2:]) for row in map(tuple, await fetch(_PROOFS))]
    evidence.closings = [Closing(*row) for row in await fetch(_CLOSINGS)]
    if await connection.fetchval("select to_regclass('breaks') is not null"):  # version n-1 compares no bills
        evidence.compared = [ComparedDay(*row) for row in await fetch(_COMPARED)]
        evidence.open_breaks = [OpenBreak(*row) for row in await fetch(_OPEN_BREAKS)]


async def _notification(evidence: Evidence, connection: Any, now: Any) -> None:
    provider = "provider" if await connection.fetchval(_KNOWS_PROVIDERS) else "null"
    for row in await connection.fetch(_MESSAGES.format(provider=provider)):
        due = row["due_at"] or row["not_before"]
        waits = row["state"] == "created" and due is not None and due > now
        evidence.messages.append(
            Message(
                str(row["registration_id"]),
                row["occasion"],
                row["channel"],
                row["state"],
                row["caused_by"],
                waits,
                row["reason_code"],
                row["provider"] or "",
            )
        )


_OWN: Final = {
    "registration": _registration,
    "confirmation": _confirmation,
    "payment": _payment,
    "notification": _notification,
}


async def _topics(evidence: Evidence, bootstrap: str, canaries: Canaries) -> None:
    """Every record of every topic. Headers are read leanly: a rehearsal has tens of thousands."""
    forgive()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        fetch_max_bytes=32 * 2**20,
        # A reset to the latest, which assign() begins by itself otherwise, may overtake seek_to_beginning().
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        partitions = [
            TopicPartition(t.name, n) for t in TOPICS.values() if t.consumers for n in range(t.partitions)
        ]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        left = {partition for partition, end in ends.items() if end > 0}
        evidence.records = {partition.topic: [] for partition in partitions}
        while left:
            batches = await consumer.getmany(timeout_ms=1000, max_records=20_000)
            for partition, batch in batches.items():
                read_records(evidence, canaries, partition, batch)
                if batch and batch[-1].offset + 1 >= ends[partition]:
                    left.discard(partition)
    finally:
        await consumer.stop()


def read_records(
    evidence: Evidence, canaries: Canaries, partition: TopicPartition, batch: Iterable[Any]
) -> None:
    """What lies in a partition, in order; looked through for personal data on the way."""
    records = evidence.records[partition.topic]
    seen: list[bytes] = []
    for record in batch:
        headers = dict(record.headers)
        seen.append(
            b"\n".join(
                (record.key or b"", record.value or b"", *(value or b"" for value in headers.values()))
            )
        )
        try:
            records.append(
                Record(
                    partition.topic,
                    partition.partition,
                    record.offset,
                    record.key.decode(),
                    UUID(headers["ce_id"].decode()),
                    headers["ce_type"].decode(),
                    int(headers["ce_sequence"]),
                )
            )
        except (
            KeyError,
            ValueError,
            AttributeError,
            TypeError,
        ) as error:  # headers may be missing, odd or null
            where = f"{partition.topic} {partition.partition}:{record.offset}"
            evidence.unreadable.append(f"{where}: no readable envelope ({type(error).__name__})")
    search(evidence, canaries, "topics", [(partition.topic, b"\n".join(seen))])


async def _lag(evidence: Evidence, bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    ends: dict[TopicPartition, int] = {}
    for topic, records in evidence.records.items():
        for record in records:
            partition = TopicPartition(topic, record.partition)
            ends[partition] = max(ends.get(partition, 0), record.offset + 1)
    try:
        for group in sorted({group for topic in TOPICS.values() for group in topic.consumers}):
            read = [partition for partition in ends if group in TOPICS[partition.topic].consumers]
            # Partitions are named because the last resort's broker knows no other way to ask; -1: none committed.
            taken = await admin.list_consumer_group_offsets(group, partitions=read) if read else {}
            evidence.lag[group] = sum(max(0, ends[part] - max(0, taken[part].offset)) for part in read)
    finally:
        await admin.close()


async def _book(wire: Wires, simulators: str, channel: str) -> Any:
    after: int | None = 0
    while after is not None:
        reply = await wire.request("GET", f"{simulators}/sim/{channel}/book?after={after}", {})
        answer = orjson.loads(reply.body)
        for order in answer["orders"]:
            paid_at = order["paid_at"]
            yield Booked(
                order["out_trade_no"],
                order["state"] in ("SUCCESS", "REFUND"),
                order["amount_fen"],
                order["transaction_id"],
                paid_at,
            )
        after = answer["next"]


def subscriptions_of(services: Iterable[str]) -> dict[str, dict[str, str]]:
    """service → event type → handler, read from each service's own table. Raises ImportError for an unknown one."""
    from importlib import import_module  # noqa: PLC0415  the services are only needed where a system is checked

    from services.chassis.consuming import name_of  # noqa: PLC0415

    found: dict[str, dict[str, str]] = {}
    for service in services:
        handlers = import_module(f"services.{service}.consumers").HANDLERS
        found[service] = {event.type: name_of(handler) for event, handler in handlers.items()}
    assert all(kind in EVENTS for handlers in found.values() for kind in handlers)
    return found
