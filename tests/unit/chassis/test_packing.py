"""What the relay packs is what the envelope and the broker's own partitioner say, byte for byte."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar
from uuid import UUID

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from contracts import confirmation
from contracts.catalogue import EVENTS, Catalogue
from contracts.envelope import Envelope
from services.chassis import packing
from services.chassis.packing import COLUMNS, hand_over, hashes_of, headers_of
from services.chassis.record_batch import MAX_BATCH_BYTES, batches, body
from services.chassis.tables import MAX_PAYLOAD_BYTES

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
    """Keeps the batches it is given."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int, Any]] = []

    async def partitions_for(self, _topic: str) -> set[int]:
        return {0, 1, 2, 3}

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> asyncio.Future[None]:
        self.sent.append((topic, partition, batch))
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


def records_in(batch: Any) -> list[Any]:
    """As a consumer reads them."""
    return list(MemoryRecords(bytes(batch._build())).next_batch())


async def test_a_page_goes_out_in_order_per_key_in_as_many_batches_as_it_takes() -> None:
    producer: Any = Producer()
    noon = datetime(2023, 12, 1, 4, tzinfo=UTC)
    padding = "x" * 20_000  # so that a batch holds some of them
    rows = [
        row(key=f"k{n % 7}", payload=f"{n % 7}:{n}:{padding}", occurred_at=noon + timedelta(seconds=n // 3))
        for n in range(200)
    ]
    handed = await hand_over(producer, rows)
    assert len(handed) == len(producer.sent) > 4
    seen: dict[str, list[int]] = {}
    where: dict[str, set[int]] = {}
    for topic, partition, batch in producer.sent:
        records = records_in(batch)
        assert 1 <= len(records) == batch.record_count()
        assert batch.size() <= MAX_BATCH_BYTES
        assert topic == "exam.registration"
        for record in records:
            key, number, _ = record.value.decode().split(":")
            assert list(record.headers) == headers_of(rows[int(number)])
            assert record.key == f"k{key}".encode()
            seen.setdefault(key, []).append(int(number))
            where.setdefault(key, set()).add(partition)
    assert all(numbers == sorted(numbers) for numbers in seen.values())
    assert sum(map(len, seen.values())) == 200
    assert all(len(partitions) == 1 for partitions in where.values())


async def test_an_event_that_is_larger_than_a_batch_goes_out_alone() -> None:
    producer: Any = Producer()
    large = "y" * MAX_PAYLOAD_BYTES
    await hand_over(producer, [row(payload="{}"), row(payload=large), row(payload="{}")])
    assert [[len(record.value) for record in records_in(batch)] for _, _, batch in producer.sent] == [
        [2],
        [MAX_PAYLOAD_BYTES],
        [2],
    ]


texts = st.text(st.characters(codec="utf-8"), max_size=80) | st.text("abc-", min_size=70, max_size=300)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(sorted(EVENTS)),
                "event_id": st.uuids(),
                "key": texts,
                "sequence": st.integers(1, 10**17),
                "occurred_at": st.datetimes(timezones=st.just(UTC)),
                "payload": texts | st.integers(16_300, 16_500).map("p".__mul__),
                "correlation_id": texts,
                "causation_id": st.none() | texts,
                "traceparent": st.none() | texts,
            }
        ),
        min_size=1,
        max_size=20,
    ),
    st.booleans(),
)
async def test_a_batch_is_the_one_that_the_librarys_builder_makes_of_these_headers(
    changes: list[dict[str, Any]], in_microseconds: bool
) -> None:
    rows = [row(**one) for one in changes]
    producer: Any = Producer()
    since = datetime(2000, 1, 1, tzinfo=UTC)
    read = [
        row(**{**one, "occurred_at": (one["occurred_at"] - since) // timedelta(microseconds=1)})
        if in_microseconds
        else row(**one)
        for one in changes
    ]
    await hand_over(producer, read)
    choice = [0, 1, 2, 3]
    place = DefaultPartitioner()
    for _, partition, batch in producer.sent:
        own = [one for one in rows if place(one["key"].encode(), choice, choice) == partition]
        theirs = BatchBuilder(MAX_BATCH_BYTES, 0)
        moment = batch._builder._first_timestamp
        for one in own:
            key, value = one["key"].encode(), one["payload"].encode()
            theirs.append(timestamp=moment, key=key, value=value, headers=headers_of(one))
        assert batch.record_count() == theirs.record_count() == len(own)
        assert bytes(batch._build()) == bytes(theirs._build())


def test_a_batch_says_who_produced_it_as_the_librarys_does() -> None:
    (batch,) = batches([body(b"key", b"value", [("name", b"content")])], 1_700_000_000_000)
    theirs = BatchBuilder(MAX_BATCH_BYTES, 0)
    theirs.append(timestamp=1_700_000_000_000, key=b"key", value=b"value", headers=[("name", b"content")])
    assert batch.closed()
    for each in (batch, theirs):
        each._set_producer_state(4711, 3, 99)
    assert bytes(batch._build()) == bytes(theirs._build())


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
