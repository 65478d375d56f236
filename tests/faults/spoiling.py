"""Records that no producer of ours would write: good ones, spoilt in ways that a seed chooses, and put between good ones.

What a service must make of each is known when it is spoilt: the reason it is parked with, or that it is skipped.
"""

from __future__ import annotations

import random
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.record.util import calc_crc32c

from contracts.topics import TOPICS

Headers = Sequence[tuple[str, bytes | None]]
SKIPPED: Final = ""
_STAND_IN: Final = b"4x4b"


@dataclass(frozen=True)
class Content:
    """A record without its place."""

    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True)
class Spoilt:
    """What became of a good record, and how a service that reads it must call it (`SKIPPED`: not at all)."""

    how: str
    content: Content
    reason: str


Spoil = Callable[[random.Random, Content], Content]


def _with(headers: Headers, name: str, value: bytes | None) -> Headers:
    return [(one, value if one == name else content) for one, content in headers]


def _truncated(chance: random.Random, good: Content) -> Content:
    value = good.value or b""
    return Content(good.key, value[: chance.randrange(len(value))], good.headers)


def _noise(chance: random.Random, good: Content) -> Content:
    return Content(good.key, b"\xff" + chance.randbytes(chance.randrange(1, 400)), good.headers)


def _flipped(chance: random.Random, good: Content) -> Content:
    """One byte becomes one that UTF-8 knows nowhere."""
    value = bytearray(good.value or b"")
    value[chance.randrange(len(value))] = chance.choice((0xC0, 0xC1, 0xF5, 0xFF))
    return Content(good.key, bytes(value), good.headers)


def _odd(chance: random.Random, good: Content) -> Content:
    """JSON of another kind, or more of it than anybody reads."""
    value = chance.choice(
        (
            b"[]", b"null", b"7", b'"text"', b"{}", b"NaN", b"[" * 60_000, b'{"cycle_id":' * 9_000, b'{"a\\u0000":1}',
            b'{"cycle_id":"\\ud800"}', b'{"cycle_id":1e999}', b"9" * 9_000, b" " * 900,
        )
    )  # fmt: skip
    return Content(good.key, value, good.headers)


def _null_value(_: random.Random, good: Content) -> Content:
    return Content(good.key, None, good.headers)


def _null_header(chance: random.Random, good: Content) -> Content:
    name = chance.choice(_NEEDED)
    return Content(good.key, good.value, _with(good.headers, name, None))


def _header_not_utf8(chance: random.Random, good: Content) -> Content:
    name = chance.choice((*_NEEDED, "content-type"))
    return Content(good.key, good.value, _with(good.headers, name, b"\xff\xfe" + chance.randbytes(8)))


def _header_missing(chance: random.Random, good: Content) -> Content:
    name = chance.choice(_NEEDED)
    return Content(good.key, good.value, [one for one in good.headers if one[0] != name])


def _header_twice(chance: random.Random, good: Content) -> Content:
    return Content(good.key, good.value, [*good.headers, (chance.choice(_NEEDED), b"another")])


def _header_with_nul(_: random.Random, good: Content) -> Content:
    """A name that no column of text can hold, and nothing of ours beside it."""
    return Content(good.key, good.value, [("x\0y", b"\0"), ("\0", None)])


def _no_headers(_: random.Random, good: Content) -> Content:
    return Content(good.key, good.value, [])


def _no_key(_: random.Random, good: Content) -> Content:
    return Content(None, good.value, good.headers)


def _other_key(chance: random.Random, good: Content) -> Content:
    key = chance.choice((b"\xff\xfe\xfd", (good.key or b"") + b"\0", b"", chance.randbytes(16)))
    return Content(key, good.value, good.headers)


_NEEDED: Final = ("ce_specversion", "ce_id", "ce_type", "ce_time", "ce_sequence", "ce_correlationid")
WAYS: Final[dict[str, tuple[Spoil, str]]] = {
    "truncated": (_truncated, "malformed-event"),
    "noise": (_noise, "malformed-event"),
    "a byte that is not UTF-8": (_flipped, "malformed-event"),
    "odd JSON": (_odd, "malformed-event"),
    "null value": (_null_value, "malformed-event"),
    "null header": (_null_header, "malformed-envelope"),
    "header that is not UTF-8": (_header_not_utf8, "malformed-envelope"),
    "header missing": (_header_missing, "malformed-envelope"),
    "header twice": (_header_twice, "malformed-envelope"),
    "header's name with NUL": (_header_with_nul, "malformed-envelope"),
    "no headers": (_no_headers, "malformed-envelope"),
    "no key": (_no_key, "key-differs-from-event"),
    "another key": (_other_key, "key-differs-from-event"),
}


def _named(batch: Any, name: bytes) -> None:
    """Let the broker have this in the place of a header's name that clients would write: they know only text."""
    build = batch._build

    def built() -> bytearray:
        content = bytearray(build())
        at = content.index(_STAND_IN)
        content[at : at + len(_STAND_IN)] = name
        content[17:21] = struct.pack(">I", calc_crc32c(bytes(content[21:])))  # of everything behind it
        return content

    batch._build = built


def of_type(good: Content, type_: str) -> Content:
    """The same said of itself to be of another type."""
    return Content(good.key, good.value, _with(good.headers, "ce_type", type_.encode()))


def renamed(good: Content, key: UUID) -> Content:
    """The same of somebody else, who does not exist: nobody's later events wait behind it."""
    old, new = good.key or b"", str(key).encode()
    return Content(new, (good.value or b"").replace(old, new), _with(good.headers, "ce_subject", new))


def anew(good: Content, event_id: UUID) -> Content:
    """The same once more, as another event."""
    return Content(good.key, good.value, _with(good.headers, "ce_id", str(event_id).encode()))


def spoilt(chance: random.Random, good: Content, how: str) -> Spoilt:
    """A good record, spoilt in this way."""
    spoil, reason = WAYS[how]
    return Spoilt(how, spoil(chance, good), reason)


@dataclass(frozen=True)
class Planted:
    """A spoilt record and where it lies."""

    topic: str
    partition: int
    offset: int
    spoilt: Spoilt

    @property
    def place(self) -> tuple[str, int, int]:
        return self.topic, self.partition, self.offset


@dataclass
class Planter:
    """Puts records on topics as whoever has a client and no manners could."""

    producer: AIOKafkaProducer
    planted: list[Planted] = field(default_factory=list)

    async def plant(self, topic: str, partition: int, one: Spoilt) -> Planted:
        """At the end of this partition, acknowledged."""
        content = one.content
        where = await self.producer.send_and_wait(
            topic,
            content.value,
            key=content.key,
            headers=list(content.headers),
            partition=partition,
        )
        self.planted.append(Planted(topic, partition, where.offset, one))
        return self.planted[-1]

    async def plant_named(self, topic: str, partition: int, one: Spoilt, name: bytes) -> Planted:
        """With one header more, of a name (four bytes) that is no text."""
        content = one.content
        batch = self.producer.create_batch()
        headers = [*content.headers, (_STAND_IN.decode(), b"1")]
        batch.append(key=content.key, value=content.value, timestamp=None, headers=headers)
        batch.close()
        _named(batch, name)
        where = await (await self.producer.send_batch(batch, topic, partition=partition))
        self.planted.append(Planted(topic, partition, where.offset, one))
        return self.planted[-1]


@asynccontextmanager
async def planting(bootstrap: str) -> AsyncIterator[Planter]:
    """A producer of nobody."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=1 << 20)
    await producer.start()
    try:
        yield Planter(producer)
    finally:
        await producer.stop()


async def records_of(bootstrap: str, *topics: str) -> list[Any]:
    """What lies in these topics now, as a client of the broker gets it, in the order of every partition."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        places = [
            TopicPartition(name, number) for name in topics for number in range(TOPICS[name].partitions)
        ]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        found: list[Any] = []
        left = {place for place in places if ends[place]}
        while left:
            for batch in (await consumer.getmany(*left, timeout_ms=500)).values():
                found += batch
            left = {place for place in left if await consumer.position(place) < ends[place]}
        return found
    finally:
        await consumer.stop()
