"""Records whose headers have names that are no UTF-8. Kafka keeps them; aiokafka raises before anybody has seen the record, on
every poll again, and drops what the same poll had brought of other partitions, with their positions already moved.

So a poll reads such a batch once more with whatever is no text replaced, and the record is judged like any other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import structlog
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

log = structlog.get_logger(__name__)

_LENGTH_AT: Final = 8  # in a batch: after its first offset
_BEFORE_LENGTH_COUNTS: Final = 12


def forgive() -> None:
    """From now on every consumer of this process reads so. Safe to call again."""
    fetcher.MemoryRecords = ForgivingRecords


class ForgivingRecords:
    """What one fetch brought of one partition, batch by batch, as aiokafka's own class of that use."""

    def __init__(self, found: bytes) -> None:
        self._records: Any = MemoryRecords(found)
        self._found = found
        self._at = 0

    def size_in_bytes(self) -> int:
        size: int = self._records.size_in_bytes()
        return size

    def has_next(self) -> bool:
        more: bool = self._records.has_next()
        return more

    def next_batch(self) -> Any:
        """None when there is none."""
        batch = self._records.next_batch()
        if batch is None:
            return None
        begins = self._at
        (length,) = struct.unpack_from(">i", self._found, begins + _LENGTH_AT)
        self._at = begins + _BEFORE_LENGTH_COUNTS + length
        return _Batch(batch, memoryview(self._found)[begins : self._at])


class _Batch:
    """A batch that can be read in any case."""

    def __init__(self, batch: Any, content: memoryview) -> None:
        self._batch = batch
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except UnicodeDecodeError:
            log.warning("header-name-not-utf8", first_offset=self._batch.base_offset)
            return iter(_read_again(self._content))


def _read_again(content: memoryview) -> list[Any]:
    batch: Any = iter(_DefaultRecordBatchPy(content))  # which unpacks what is compressed
    batch._buffer = _Bytes(batch._buffer)  # noqa: SLF001 - there is no other way in
    return list(batch)


class _Bytes(bytearray):
    """Every piece of it is some text."""

    def __getitem__(self, place: Any) -> Any:
        piece = super().__getitem__(place)
        return _Text(piece) if isinstance(place, slice) else piece


class _Text(bytes):
    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        del errors
        return super().decode(encoding, "replace")
