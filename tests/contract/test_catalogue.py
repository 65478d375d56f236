"""Finding and reading events: unknown types, malformed payloads, old versions lifted through upcasters."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

import pytest

from contracts import payment
from contracts.catalogue import EVENTS, Catalogue, MalformedEvent, Unknown, Upcaster, look_up, parse
from contracts.envelope import Envelope
from contracts.event import Event, RegistrationEvent

ID = UUID("0190a3f5-7c1e-7d2a-9b60-4f1d2c3b5a69")
ENVELOPE = Envelope(
    event_id=UUID("0190a3f5-7c1e-7d2a-9b60-4f1d2c3b5b00"),
    type=payment.Due.type,
    source="/services/payment",
    subject=str(ID),
    time=datetime(2024, 1, 10, tzinfo=UTC),
    dataschema=payment.Due.dataschema(),
    sequence=1,
    correlation_id="c",
)
DUE: dict[str, Any] = {
    "cycle_id": "2024-health-leshan",
    "registration_id": str(ID),
    "amount_fen": 28000,
    "currency": "CNY",
    "opens_at": "2024-01-28T16:00:00Z",
    "closes_at": "2024-02-09T00:00:00+08:00",
}


def read(data: Mapping[str, Any] | str | bytes, envelope: Envelope = ENVELOPE) -> Event:
    if isinstance(data, Mapping):
        data = json.dumps(data)
    return parse(envelope, data.encode() if isinstance(data, str) else data)


def test_an_event_comes_with_its_envelope_and_in_utc() -> None:
    event = read(DUE)
    assert isinstance(event, payment.Due)
    assert event.envelope is ENVELOPE
    assert event.key == str(ID)
    assert event.closes_at == datetime(2024, 2, 8, 16, tzinfo=UTC)
    assert json.loads(event.model_dump_json())["closes_at"] == "2024-02-08T16:00:00Z"


def test_an_event_made_here_has_no_envelope_and_equals_what_is_read() -> None:
    made = payment.Due.model_validate(DUE)
    with pytest.raises(LookupError, match="has not come over the wire"):
        made.envelope  # noqa: B018
    assert made == read(DUE)
    assert hash(made) == hash(read(DUE))
    assert made != made.model_copy(update={"amount_fen": 20000})


def test_a_reader_ignores_what_it_does_not_know() -> None:
    assert read({**DUE, "added_later": {"deep": [1, 2]}}) == read(DUE)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"amount_fen": "28000"}, "amount_fen: int_type"),
        ({"amount_fen": 28000.5}, "amount_fen: int"),
        ({"amount_fen": True}, "amount_fen: int_type"),
        ({"amount_fen": 0}, "amount_fen: greater_than_equal"),
        ({"registration_id": "张三"}, "registration_id: uuid_parsing"),
        ({"registration_id": None}, "registration_id: uuid_type"),
        ({"closes_at": "2024-02-09T00:00:00"}, "closes_at: timezone_aware"),
        ({"closes_at": 1707408000}, "closes_at: datetime_type"),
        ({"currency": "USD"}, "currency: literal_error"),
        ({"cycle_id": "张三 999001199001011234"}, "cycle_id: string_pattern_mismatch"),
    ],
)
def test_a_malformed_payload_is_named_without_its_value(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(MalformedEvent) as raised:
        read({**DUE, **change})
    assert raised.value.reason.startswith(complaint)
    for value in change.values():
        assert str(value) not in raised.value.reason or str(value) in {"True", "None", "0"}
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("payload", [b"", b"null", b"[]", b"{", b"\xff", b'{"cycle_id": 1'])
def test_what_is_no_object_is_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedEvent, match=r"payload|cycle_id"):
        read(payload)


def test_many_faults_are_summed_up() -> None:
    with pytest.raises(MalformedEvent, match="and 1 more"):
        read({})


@pytest.mark.parametrize(
    ("type_", "verdict"),
    [
        ("kaowu.payment.expired.v2", Unknown.MAJOR),
        ("kaowu.payment.expired.v999", Unknown.MAJOR),
        ("kaowu.payment.forfeited.v1", Unknown.TYPE),
        ("kaowu.examination.seat-assigned.v1", Unknown.TYPE),
        ("kaowu.payment.expired", Unknown.TYPE),
        ("kaowu.payment.expired.v0", Unknown.TYPE),
        ("kaowu.payment.expired.v1.x", Unknown.TYPE),
        ("com.example.order", Unknown.TYPE),
        ("", Unknown.TYPE),
    ],
)
def test_what_nobody_reads_gets_a_verdict(type_: str, verdict: Unknown) -> None:
    assert look_up(type_) is verdict
    with pytest.raises(MalformedEvent):
        read(DUE, ENVELOPE._replace(type=type_))


def test_every_type_is_looked_up_as_its_own_class() -> None:
    assert {type_: look_up(type_) for type_ in EVENTS} == dict(EVENTS)


# An example of three versions of one fact, of which readers only know the last.


class Moved(RegistrationEvent):
    topic: ClassVar[str] = "exam.test"
    source: ClassVar[str] = "/services/test"
    type: ClassVar[str] = "kaowu.test.moved.v2"

    site_id: str
    reason_code: str


def from_desk(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "site": data["desk"]["id"]}


def from_site(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "site_id": data["site"], "reason_code": data.get("reason_code", "other")}


STEPS: dict[str, Upcaster] = {"kaowu.test.moved.v1": from_site}
WHO = {"cycle_id": "2024-health-leshan", "registration_id": str(ID)}


def lifted(catalogue: Catalogue, type_: str, data: Mapping[str, Any]) -> Event:
    return catalogue.parse(ENVELOPE._replace(type=type_), json.dumps(data).encode())


def test_an_old_major_is_read_as_the_newest_class() -> None:
    catalogue = Catalogue([Moved], STEPS)
    assert catalogue.look_up("kaowu.test.moved.v1") is Moved
    event = lifted(catalogue, "kaowu.test.moved.v1", {**WHO, "site": "shawan"})
    assert event == Moved(
        cycle_id="2024-health-leshan", registration_id=ID, site_id="shawan", reason_code="other"
    )
    assert event.envelope.type == "kaowu.test.moved.v1"
    assert catalogue.look_up("kaowu.test.moved.v3") is Unknown.MAJOR


def test_steps_are_chained() -> None:
    class MovedV3(Moved):
        type: ClassVar[str] = "kaowu.test.moved.v3"

    catalogue = Catalogue([MovedV3], {"kaowu.test.moved.v1": from_desk, "kaowu.test.moved.v2": from_site})
    event = lifted(
        catalogue, "kaowu.test.moved.v1", {**WHO, "desk": {"id": "ebian"}, "reason_code": "outage"}
    )
    assert isinstance(event, MovedV3)
    assert (event.site_id, event.reason_code) == ("ebian", "outage")
    assert catalogue.look_up("kaowu.test.moved.v2") is MovedV3


def test_an_old_payload_that_cannot_be_lifted_is_malformed_without_its_value() -> None:
    catalogue = Catalogue([Moved], STEPS)
    for data in ({**WHO}, {**WHO, "site": 5}):
        with pytest.raises(MalformedEvent):
            lifted(catalogue, "kaowu.test.moved.v1", data)
    with pytest.raises(MalformedEvent, match="JSONDecodeError"):
        catalogue.parse(ENVELOPE._replace(type="kaowu.test.moved.v1"), b"{")
    with pytest.raises(MalformedEvent, match="RecursionError"):
        catalogue.parse(ENVELOPE._replace(type="kaowu.test.moved.v1"), b"[" * 100_000)


def test_steps_that_lead_nowhere_are_refused() -> None:
    with pytest.raises(ValueError, match="end at v2, which has no class"):
        Catalogue([], STEPS)
    with pytest.raises(ValueError, match="is not kaowu"):
        Catalogue([Moved], {"moved.v1": from_site})
