"""From rows of the log to batches of the broker. A relay spends its time here, so every step of it is counted.

What a row becomes is what `Envelope.headers` and the broker's own partitioner would make of it, byte for byte, at a third of
their cost: what is the same for every event of a type is made once, and nothing is built only to be taken apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from struct import Struct, unpack
from typing import Any, Final, Protocol, TypeAlias

from aiokafka import AIOKafkaProducer

from contracts.catalogue import Unknown, look_up
from contracts.envelope import CONTENT_TYPE, SPEC_VERSION, rfc_3339
from contracts.event import schema_of

# In this order a row is read and taken apart.
COLUMNS: Final = "id, event_id, topic, key, type, sequence, occurred_at, payload, correlation_id, causation_id, traceparent"
_KEY: Final = 3  # in COLUMNS
Header: TypeAlias = tuple[str, bytes]

_SPEC: Final[Header] = ("ce_specversion", SPEC_VERSION.encode())
_CONTENT: Final[Header] = ("content-type", CONTENT_TYPE.encode())
_WORD: Final = 0xFFFFFFFF
_M: Final = 0x5BD1E995  # of murmur2, as the seed
_SEED: Final = 0x9747B28C


class OutboxRow(Protocol):
    """One event as it stands in the log: `COLUMNS`, by name or in their order."""

    def __getitem__(self, name: Any) -> Any: ...

    def __iter__(self) -> Any: ...


def headers_of(row: OutboxRow) -> list[Header]:
    """The CloudEvents attributes of a row of the log."""
    _, event_id, _, key, kind, sequence, at, _, correlation, causation, trace = (
        row[name] for name in COLUMNS.split(", ")
    )
    return _headers(str(event_id), key.encode(), kind, sequence, _moment(at), correlation, causation, trace)


def _headers(
    identity: str,
    key: bytes,
    kind: str,
    sequence: int,
    at: bytes,
    correlation_id: str,
    causation_id: str | None,
    traceparent: str | None,
) -> list[Header]:
    of_type, source, dataschema = _of_type(kind)
    correlation = correlation_id.encode()
    if traceparent is None:
        # A trace of its own, and the same whenever it is published again.
        plain = identity.replace("-", "")
        traceparent = f"00-{plain}-{plain[16:]}-01"
    found = [
        _SPEC,
        ("ce_id", identity.encode()),
        of_type,
        source,
        ("ce_subject", key),
        ("ce_time", at),
        dataschema,
        ("ce_sequence", b"%d" % sequence),
        ("ce_correlationid", correlation),
        _CONTENT,
        ("correlation_id", correlation),
    ]
    if causation_id is not None:
        found.append(("ce_causationid", causation_id.encode()))
    found.append(("traceparent", traceparent.encode()))
    return found


@cache
def _of_type(kind: str) -> tuple[Header, Header, Header]:
    """What every event of a type says of itself, also of an older form that is still in the log. Raises KeyError."""
    event = look_up(kind)
    if isinstance(event, Unknown):
        raise KeyError(kind)
    return (
        ("ce_type", kind.encode()),
        ("ce_source", event.source.encode()),
        ("ce_dataschema", schema_of(kind).encode()),
    )


def _moment(at: datetime) -> bytes:
    text = at.isoformat()
    return (text[:-6] + "Z" if text.endswith("+00:00") else rfc_3339(at)).encode()


def hashes_of(keys: Sequence[bytes]) -> list[int]:
    """Of each key the number that the default partitioner of every client takes modulo the partitions: murmur2, 31 bits.

    All keys of one length at once, each in a lane of 64 bits of one large integer: a product of two numbers of 32 bits
    never leaves its lane, so that one multiplication serves a whole page.
    """
    found = [0] * len(keys)
    of_length: dict[int, list[int]] = {}
    for place, key in enumerate(keys):
        of_length.setdefault(len(key), []).append(place)
    for length, places in of_length.items():
        for place, value in zip(places, _lanes([keys[i] for i in places], length), strict=True):
            found[place] = value
    return found


def _lanes(keys: Sequence[bytes], length: int) -> tuple[int, ...]:
    count, whole = len(keys), length // 4
    each = whole + (length % 4 > 0)  # words of a key, the last one filled up with zeros
    padding = b"\0" * (each * 4 - length)
    words = unpack(f"<{count * each}I", b"".join([key + padding for key in keys] if padding else keys))
    lanes = Struct(f"<{count}Q")
    ones = int.from_bytes(lanes.pack(*[1] * count), "little")
    mask = ones * _WORD
    h = ones * (_SEED ^ length)
    for number in range(each):
        k = int.from_bytes(lanes.pack(*words[number::each]), "little")
        if number == whole:
            h = (h ^ k) * _M & mask
        else:
            k = k * _M & mask
            h = (h * _M ^ ((k ^ k >> 24) & mask) * _M) & mask
    h = ((h ^ h >> 13) & mask) * _M & mask
    return lanes.unpack(((h ^ h >> 15) & ones * 0x7FFFFFFF).to_bytes(lanes.size, "little"))


async def hand_over(kafka: AIOKafkaProducer, rows: Sequence[OutboxRow]) -> list[asyncio.Future[Any]]:
    """Give the producer all of these, in this order per key. Each future is one batch, done when it is acknowledged.

    What is handed over later goes out later: an idempotent producer never puts a batch before one that was its elder on
    the same partition, nor after one that failed. Raises ValueError for an event that no batch can hold.
    """
    batches: dict[tuple[str, int], Any] = {}
    handed: list[asyncio.Future[Any]] = []
    partitions: dict[str, list[int]] = {}
    moment, written = None, b""
    keys = [row[_KEY].encode() for row in rows]
    for row, key, hashed in zip(rows, keys, hashes_of(keys), strict=True):
        _, event_id, topic, _, kind, sequence, at, payload, correlation, causation, trace = row
        if (choice := partitions.get(topic)) is None:
            choice = partitions[topic] = sorted(await kafka.partitions_for(topic))
        where = (topic, choice[hashed % len(choice)])
        if at != moment:  # events of one transaction have one moment
            moment, written = at, _moment(at)
        headers = _headers(str(event_id), key, kind, sequence, written, correlation, causation, trace)
        value = payload.encode()
        if (batch := batches.get(where)) is None:
            batch = batches[where] = kafka.create_batch()
        if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
            handed.append(await kafka.send_batch(batch, topic, partition=where[1]))
            batches[where] = batch = kafka.create_batch()
            if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
                raise ValueError(f"event {event_id} is larger than a batch of the broker")
    for (topic, partition), batch in batches.items():
        handed.append(await kafka.send_batch(batch, topic, partition=partition))
    return handed
