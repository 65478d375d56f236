"""A header's name that is no UTF-8: the record is read, and so is everything around it."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from services.chassis.header_names import ForgivingRecords, forgive

_STAND_IN = b"4x4b"


def batch(first: int, *names: bytes) -> bytes:
    """A batch as a broker keeps it: one record for each name, four bytes long, of its header."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 1 << 16)
    for number in range(len(names)):
        headers = [("ce_id", b"1"), (_STAND_IN.decode(), b"value"), ("null", None)]
        builder.append(number, 5, b"key", b"value of %d" % (first + number), headers)
    content = bytearray(builder.build())
    for name in names:
        at = content.index(_STAND_IN)
        content[at : at + len(_STAND_IN)] = name
    content[0:8] = struct.pack(">q", first)
    content[17:21] = struct.pack(">I", calc_crc32c(bytes(content[21:])))
    return bytes(content)


FETCHED = batch(7, b"good", b"\xff\xfe\x00\x80", b"fine") + batch(10, b"next", b"last")


def read(found: bytes) -> list[Any]:
    """As a consumer unpacks one partition's part of a fetch."""
    place = TopicPartition("t", 0)
    records = fetcher.MemoryRecords(found)
    return list(fetcher.PartitionRecords(place, records, [], 7, None, None, True, 0))


def test_the_client_alone_fails_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should this ever fail, the module is no longer needed."""
    monkeypatch.setattr(fetcher, "MemoryRecords", MemoryRecords)
    with pytest.raises(UnicodeDecodeError):
        read(FETCHED)


def test_every_record_is_read_and_only_that_name_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "MemoryRecords", MemoryRecords)
    forgive()
    assert fetcher.MemoryRecords is ForgivingRecords
    found = read(FETCHED)
    assert [(one.offset, one.value) for one in found] == [
        (number, b"value of %d" % number) for number in range(7, 12)
    ]
    assert [one.headers[1][0] for one in found] == ["good", "\ufffd\ufffd\0\ufffd", "fine", "next", "last"]
    assert {one.headers[0] for one in found} == {("ce_id", b"1")}
    assert {one.headers[2] for one in found} == {("null", None)}


def test_what_is_text_is_read_as_the_client_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    good = batch(7, b"good", b"fine") + batch(9, "类x".encode(), b"last") + b"\0\0\0\0\0\0\0\x0b\0\0"
    monkeypatch.setattr(fetcher, "MemoryRecords", MemoryRecords)
    plain = read(good)
    monkeypatch.setattr(fetcher, "MemoryRecords", ForgivingRecords)
    assert read(good) == plain
    assert len(plain) == 4
    assert ForgivingRecords(b"").has_next() is False
    assert ForgivingRecords(good).size_in_bytes() == len(good)
