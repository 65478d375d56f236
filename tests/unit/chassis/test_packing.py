"""What the relay packs is what the envelope and the broker's own partitioner say, byte for byte."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar
from uuid import UUID

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from contracts import confirmation
from contracts.catalogue import EVENTS, Catalogue
from contracts.envelope import Envelope
from services.chassis import packing
from services.chassis.packing import COLUMNS, hand_over, hashes_of, headers_of

EVENT = UUID("018f0000-0000-7000-8000-00000000abcd")
KIND = "kaowu.registration.pre-registered.v1"


class Row(dict[str, Any]):
    """As the driver gives it: by name, by place, and in the order of its columns."""

    def __getitem__(self, name: Any) -> Any:
        return list(self.values())[name] if isinstance(name, int) else super().__getitem__(name)

    def __iter__(self) -> Any:
        return iter(self.values())


def row(**changes: object) -> Row:
    values = (
        1,
        EVENT,
        "exam.registration",
        "key",
        KIND,
        1,
        datetime(2023, 12, 1, tzinfo=UTC),
        "{}",
        "chain",
        None,
        None,
    )
    return Row({**dict(zip(COLUMNS.split(", "), values, strict=True)), **changes})


@given(st.lists(st.binary(max_size=70)), st.integers(1, 64))
def test_every_key_goes_where_the_default_partitioner_puts_it(keys: list[bytes], partitions: int) -> None:
    choice = list(range(partitions))
    place = DefaultPartitioner()
    assert [h % partitions for h in hashes_of(keys)] == [place(key, choice, choice) for key in keys]


@given(
    st.sampled_from(sorted(EVENTS)),
    st.uuids(),
    st.integers(1, 10**17),
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=8))])),
    st.none() | st.just("018f0000-0000-7000-8000-00000000aaaa"),
    st.none() | st.just("00-018f0000000070008000000000000001-00f067aa0ba902b7-01"),
)
def test_headers_are_those_of_the_envelope(
    kind: str, event: UUID, sequence: int, at: datetime, causation: str | None, trace: str | None
) -> None:
    found = headers_of(
        row(
            type=kind,
            event_id=event,
            sequence=sequence,
            occurred_at=at,
            causation_id=causation,
            traceparent=trace,
        )
    )
    expected = Envelope(
        event_id=event,
        type=kind,
        source=EVENTS[kind].source,
        subject="key",
        time=at,
        dataschema=EVENTS[kind].dataschema(),
        sequence=sequence,
        correlation_id="chain",
        causation_id=causation,
        traceparent=trace or f"00-{event.hex}-{event.hex[16:]}-01",
    )
    assert found == expected.headers()
    assert Envelope.from_headers(found).traceparent == expected.traceparent


class Producer:
    """Keeps what it is given; a batch of it holds `room` records."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent: list[tuple[str, int, list[tuple[bytes, object]]]] = []

    async def partitions_for(self, _topic: str) -> set[int]:
        return {0, 1, 2, 3}

    def create_batch(self) -> Batch:
        return Batch(self.room)

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[None]:
        self.sent.append((topic, partition, batch.records))
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class Batch:
    def __init__(self, room: int) -> None:
        self.room = room
        self.records: list[tuple[bytes, object]] = []

    def append(self, *, value: bytes, headers: object, **_: object) -> object:
        if len(self.records) == self.room:
            return None
        self.records.append((value, headers))
        return self


async def test_a_page_goes_out_in_order_per_key_in_as_many_batches_as_it_takes() -> None:
    producer: Any = Producer(room=3)
    noon = datetime(2023, 12, 1, 4, tzinfo=UTC)
    rows = [
        row(key=f"k{n % 7}", payload=f"{n % 7}:{n}", occurred_at=noon + timedelta(seconds=n // 3))
        for n in range(50)
    ]
    handed = await hand_over(producer, rows)
    assert len(handed) == len(producer.sent) > 4
    seen: dict[str, list[int]] = {}
    where: dict[str, set[int]] = {}
    for _, partition, records in producer.sent:
        assert 1 <= len(records) <= 3
        for value, headers in records:
            key, _, number = value.decode().partition(":")
            assert headers == headers_of(rows[int(number)])
            seen.setdefault(key, []).append(int(number))
            where.setdefault(key, set()).add(partition)
    assert all(numbers == sorted(numbers) for numbers in seen.values())
    assert sum(map(len, seen.values())) == 50
    assert all(len(partitions) == 1 for partitions in where.values())


async def test_an_event_that_no_batch_holds_is_named() -> None:
    producer: Any = Producer(room=0)
    with pytest.raises(ValueError, match=str(EVENT)):
        await hand_over(producer, [row()])


def test_an_older_form_that_is_still_in_the_log_goes_out_as_what_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After an upgrade the log still holds events of the form before: the relay must not stop at them."""

    class Anew(confirmation.Reviewed):
        type: ClassVar[str] = "kaowu.confirmation.reviewed.v2"

    old = confirmation.Reviewed.type
    monkeypatch.setattr(packing, "look_up", Catalogue([Anew], {old: dict}).look_up)
    packing._of_type.cache_clear()
    try:
        assert dict(packing._of_type(old)) == {
            "ce_type": old.encode(),
            "ce_source": Anew.source.encode(),
            "ce_dataschema": b"contracts/schemas/confirmation/reviewed.v1.json",
        }
        with pytest.raises(KeyError):
            packing._of_type("kaowu.confirmation.reviewed.v3")
    finally:
        packing._of_type.cache_clear()
