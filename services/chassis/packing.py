"""From rows of the log to batches of the broker. A relay spends its time here, so every step of it is counted.

What a row becomes is what `Envelope.headers` and the broker's own partitioner would make of it, byte for byte, at a quarter of
their cost: what is the same for every event of a type is made once, and nothing is built only to be taken apart.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from struct import unpack
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaProducer

from contracts.catalogue import Unknown, look_up
from contracts.envelope import CONTENT_TYPE, SPEC_VERSION, rfc_3339
from contracts.event import schema_of
from services.chassis.record_batch import SIZE, Header, batches, body, sized

# In this order a row is read and taken apart.
COLUMNS: Final = "id, event_id, topic, key, type, sequence, occurred_at, payload, correlation_id, causation_id, traceparent"
_TOPIC: Final = 2  # in COLUMNS
_KEY: Final = 3

_SPEC: Final[Header] = ("ce_specversion", SPEC_VERSION.encode())
_CONTENT: Final[Header] = ("content-type", CONTENT_TYPE.encode())
_IDENTITY_LENGTH: Final = 36
_WITHOUT_CAUSE: Final = 12  # headers
_POSTGRES_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
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
    of_type, source, dataschema = _of_type(kind)
    found = [
        _SPEC,
        ("ce_id", str(event_id).encode()),
        of_type,
        source,
        ("ce_subject", key.encode()),
        ("ce_time", _moment(at).encode()),
        dataschema,
        ("ce_sequence", b"%d" % sequence),
        ("ce_correlationid", correlation.encode()),
        _CONTENT,
        ("correlation_id", correlation.encode()),
    ]
    if causation is not None:
        found.append(("ce_causationid", causation.encode()))
    found.append(("traceparent", (_trace_of(str(event_id)) if trace is None else trace).encode()))
    return found


def _trace_of(identity: str) -> str:
    """A trace of its own, and the same whenever it is published again."""
    plain = identity.replace("-", "")
    return f"00-{plain}-{plain[16:]}-01"


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


def _moment(at: datetime | int) -> str:
    """As contracts write it. Where the driver was told not to make a datetime of every one: microseconds since 2000."""
    if isinstance(at, int):
        at = _POSTGRES_EPOCH + timedelta(microseconds=at)
    text = at.isoformat()
    return text[:-6] + "Z" if text.endswith("+00:00") else rfc_3339(at)


@cache
def _fixed(kind: str) -> tuple[str, str, str, str]:
    """What is the same in every record of a type: its start without a cause and with one, then up to its key and its sequence."""
    of_type, source, dataschema = _of_type(kind)
    start = _written(_SPEC) + sized("ce_id") + SIZE[_IDENTITY_LENGTH]
    return (
        SIZE[_WITHOUT_CAUSE] + start,
        SIZE[_WITHOUT_CAUSE + 1] + start,
        _written(of_type) + _written(source) + sized("ce_subject"),
        _written(dataschema) + sized("ce_sequence"),
    )


def _written(header: Header) -> str:
    return sized(header[0]) + sized(header[1].decode("ascii"))


_TIME: Final = sized("ce_time")
_CORRELATION: Final = sized("ce_correlationid")
_CONTENT_AND: Final = _written(_CONTENT) + sized("correlation_id")
_CAUSE: Final = sized("ce_causationid")
_TRACE: Final = sized("traceparent")


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
    whole, rest = divmod(length, 4)  # words of a key; the last one is filled up with zeros
    each = -(-length // 8)  # pairs of words
    padding = b"\0" * (each * 8 - length)
    pairs = memoryview(padding.join([*keys, b""])).cast("Q")
    ones = int.from_bytes((b"\1" + b"\0" * 7) * len(keys), "little")
    mask = ones * _WORD
    h, pair = ones * (_SEED ^ length), 0
    for number in range(whole + (rest > 0)):
        if number % 2:
            pair >>= 32
        else:
            pair = int.from_bytes(pairs[number // 2 :: each].tobytes(), "little")
        k = pair & mask
        if number == whole:
            h = (h ^ k) * _M & mask
        else:
            k = k * _M & mask
            h = (h * _M ^ ((k ^ k >> 24) & mask) * _M) & mask
    h = ((h ^ h >> 13) & mask) * _M & mask
    return unpack(f"<{len(keys)}Q", ((h ^ h >> 15) & ones * 0x7FFFFFFF).to_bytes(8 * len(keys), "little"))


async def hand_over(kafka: AIOKafkaProducer, rows: Sequence[OutboxRow]) -> list[asyncio.Future[Any]]:
    """Give the producer all of these, in this order per key. Each future is one batch, done when it is acknowledged.

    What is handed over later goes out later: an idempotent producer never puts a batch before one that was its elder on
    the same partition, nor after one that failed.
    """
    partitions = {topic: sorted(await kafka.partitions_for(topic)) for topic in {row[_TOPIC] for row in rows}}
    moment = int(time.time() * 1000)
    return [
        await kafka.send_batch(batch, topic, partition=partition)
        for (topic, partition), bodies in bodies_of(rows, partitions).items()
        for batch in batches(bodies, moment)
    ]


def bodies_of(
    rows: Sequence[OutboxRow], partitions: Mapping[str, Sequence[int]]
) -> dict[tuple[str, int], list[str]]:
    """The record of each row, without its place in a batch, under the topic and the partition it goes to."""
    found: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    moment, at_field = None, ""
    for row, hashed in zip(rows, hashes_of([row[_KEY].encode() for row in rows]), strict=True):
        _, event_id, topic, key, kind, sequence, at, payload, chain, cause, trace = row
        choice = partitions[topic]
        bodies = found[topic, choice[hashed % len(choice)]]
        identity, number = str(event_id), str(sequence)
        if at != moment:  # events of one transaction have one moment
            moment, at_field = at, sized(_moment(at))
        if trace is None:
            trace = _trace_of(identity)
        if not (payload.isascii() and key.isascii() and chain.isascii() and trace.isascii()) or not (
            cause is None or cause.isascii()
        ):
            bodies.append(body(key.encode(), payload.encode(), headers_of(row)))
            continue
        start, start_with_cause, upto_key, upto_sequence = _fixed(kind)
        key, chain, cause_header = SIZE[len(key)] + key, SIZE[len(chain)] + chain, ""
        if cause is not None:
            start, cause_header = start_with_cause, f"{_CAUSE}{SIZE[len(cause)]}{cause}"
        bodies.append(
            f"{key}{SIZE[len(payload)]}{payload}{start}{identity}{upto_key}{key}{_TIME}{at_field}{upto_sequence}"
            f"{SIZE[len(number)]}{number}{_CORRELATION}{chain}{_CONTENT_AND}{chain}{cause_header}"
            f"{_TRACE}{SIZE[len(trace)]}{trace}"
        )
    return found
