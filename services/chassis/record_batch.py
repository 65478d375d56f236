"""Kafka's record format: all records of a batch at once, from fields that are text already.

aiokafka's own builder takes a list of header pairs for every record, made only to be taken apart again: a third of what a
relay cost. Here a record is composed as text, one character for each byte, and a batch is encoded once. The head of a batch,
its checksum and the producer's state stay the library's. Tests compare every byte with what its builder makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

MAX_BATCH_BYTES: Final = 1 << 18
Header: TypeAlias = tuple[str, bytes]

_MAGIC: Final = 2
_KNOWN: Final = 1 << 14
_AROUND: Final = 16  # bytes of a record beside its body, at most


class _Sizes(dict[int, str]):
    """Numbers as the format writes them: seven bits a byte, the lowest ones first, doubled for the sign."""

    def __missing__(self, number: int) -> str:
        rest, found = number * 2, ""
        while rest > 0x7F:
            found += chr(rest & 0x7F | 0x80)
            rest >>= 7
        return found + chr(rest)


SIZE: Final = _Sizes()  # what stands before a field of so many bytes
SIZE.update((number, SIZE[number]) for number in range(_KNOWN))
_FIRST: Final = (
    "\0\0"  # attributes; and a timestamp that is the batch's own: its records are handed over at one moment
)


def sized(text: str) -> str:
    """A field of ASCII text."""
    return SIZE[len(text)] + text


def body(key: bytes, value: bytes, headers: Sequence[Header]) -> str:
    """What a record of any bytes says, after its place in the batch."""
    written = "".join(_field(name.encode()) + _field(content) for name, content in headers)
    return f"{_field(key)}{_field(value)}{SIZE[len(headers)]}{written}"


def _field(content: bytes) -> str:
    return SIZE[len(content)] + content.decode("latin-1")


def batches(bodies: Sequence[str], moment: int) -> Iterator[RecordBatch]:
    """As many batches as these records need, in their order. A record that is larger than a batch gets one of its own."""
    parts: list[str] = []
    room, count = MAX_BATCH_BYTES, 0
    for said in bodies:
        needed = len(said) + _AROUND
        if needed > room and count:
            yield RecordBatch("".join(parts), count, moment)
            parts, room, count = [], MAX_BATCH_BYTES, 0
        place = _FIRST + SIZE[count]
        parts += (SIZE[len(place) + len(said)], place, said)
        room -= needed
        count += 1
    if count:
        yield RecordBatch("".join(parts), count, moment)


class RecordBatch(BatchBuilder):  # type: ignore[misc]  # it has no types
    """A full batch, for `send_batch`. `moment`, in milliseconds, is that of all its records."""

    def __init__(self, records: str, count: int, moment: int) -> None:
        super().__init__(MAX_BATCH_BYTES, 0)
        # The builder in C takes records only through its own `append`; the same in Python shows what it holds.
        head: Any = _DefaultRecordBatchBuilderPy(_MAGIC, 0, 0, -1, -1, 0, MAX_BATCH_BYTES)
        head._buffer += records.encode("latin-1")  # noqa: SLF001 - there is no other way in
        head._num_records, head._last_offset = count, count - 1  # noqa: SLF001
        head._first_timestamp = head._max_timestamp = moment  # noqa: SLF001
        self._builder = head
        self._relative_offset = count
        self.close()

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        """The same as the library's, which insists on the builder in C."""
        self._builder.set_producer_state(producer_id, producer_epoch, base_sequence)
