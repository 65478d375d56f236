"""What holds for every event: narrow fields and no others, a docstring of three parts, an example that can be read."""

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pytest

import contracts.event
from contracts import confirmation, notification, payment, registration
from contracts.catalogue import EVENTS, look_up, parse
from contracts.envelope import Envelope
from contracts.event import CycleEvent, Event, RegistrationEvent, SiteEvent
from contracts.schemas.generation import EXAMPLES, example_file, published, reader_schema
from contracts.topics import TOPICS

MODULES = (registration, confirmation, payment, notification)
TYPES = sorted(EVENTS)

# Every field name that may stand on a topic. A new name is a decision: can a person be found in it?
ALLOWED = frozenset({
    "cycle_id", "registration_id", "site_id", "specialty_code", "level", "subjects", "form_version",
    "returning", "changed", "reason_code", "reason_codes", "desk", "fix_until", "decision", "opens_at",
    "closes_at", "closed_at", "amount_fen", "currency", "offset", "paid_at", "channel", "order_no",
    "cause", "proof_id", "refund_no", "counts", "awaiting", "reinstated", "paid", "expired", "held",
    "undecided", "sums_fen", "received", "due", "refunds_due", "proof_root", "proofs", "proofs_before", "expired_fen",
    "date", "lines",
    "matched", "explained", "billed", "booked", "breaks", "occasion", "template_version", "told_closes_at",
    "break_id", "kind", "billed_fen", "booked_fen",
})  # fmt: skip
LONGEST_TEXT = 64
PERSONAL = ("张三", "zhang san", "a@example.cn", "13800000000", "99900119900101123X", "乐山市第一医院")


def objects(schema: object) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for inner in schema.values():
            yield from objects(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from objects(inner)


def forbidden_fields(event: type[Event]) -> set[str]:
    return {name for each in objects(reader_schema(event)) for name in each["properties"]} - ALLOWED


def loose_fields(event: type[Event]) -> list[str]:
    """Fields into which a sentence would fit: text that is not limited by values, format or a short pattern."""
    schema = reader_schema(event)
    return [path for path, inner in texts(schema, "$") if not is_narrow(inner)]


def texts(schema: object, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        # `additionalProperties: true` or no type at all would let anything through.
        if schema.get("type") == "string" or (schema.get("title") and not _typed(schema)):
            yield path, schema
        for key, inner in schema.items():
            yield from texts(inner, f"{path}.{key}")
    elif isinstance(schema, list):
        for index, inner in enumerate(schema):
            yield from texts(inner, f"{path}[{index}]")


def _typed(schema: dict[str, Any]) -> bool:
    return any(key in schema for key in ("type", "$ref", "anyOf", "oneOf", "properties", "enum", "const"))


def is_narrow(schema: dict[str, Any]) -> bool:
    if "enum" in schema or "const" in schema or schema.get("format") in {"uuid", "date-time", "date"}:
        return True
    pattern = schema.get("pattern")
    if pattern is None or not (pattern.startswith("^") and pattern.endswith("$")):
        return False
    bounded = schema.get("maxLength", LONGEST_TEXT + 1) <= LONGEST_TEXT or re.search(
        r"\{\d*,?\d+\}\$$", pattern
    )
    return bool(bounded) and not any(re.search(pattern, text) for text in PERSONAL)


@pytest.mark.parametrize("type_", TYPES)
def test_no_field_outside_the_allow_list(type_: str) -> None:
    assert forbidden_fields(EVENTS[type_]) == set(), (
        "a field that is not on the allow-list of this test: can it carry a name, a number or a sentence?"
    )


@pytest.mark.parametrize("type_", TYPES)
def test_no_field_takes_free_text(type_: str) -> None:
    assert loose_fields(EVENTS[type_]) == []


def test_these_guards_see_a_name_and_a_sentence() -> None:
    class Gossip(RegistrationEvent):
        topic: ClassVar[str] = "exam.test"
        source: ClassVar[str] = "/services/test"
        type: ClassVar[str] = "kaowu.test.gossip.v1"

        name: str
        reason_code: str
        counts: dict[str, str]
        lines: Any

    assert forbidden_fields(Gossip) == {"name"}
    assert loose_fields(Gossip) == [
        "$.properties.name",
        "$.properties.reason_code",
        "$.properties.counts.additionalProperties",
        "$.properties.lines",
    ]


def test_no_allowed_name_is_unused() -> None:
    used = {
        name
        for event in EVENTS.values()
        for each in objects(reader_schema(event))
        for name in each["properties"]
    }
    assert used == ALLOWED


@pytest.mark.parametrize("type_", TYPES)
def test_a_docstring_says_when_what_and_who(type_: str) -> None:
    text = inspect.getdoc(EVENTS[type_]) or ""
    assert re.fullmatch(r"When: .+\nWhat became true: .+\nWho reacts: .+", text, re.DOTALL), text


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_type_is_a_literal_on_its_class(module: Any) -> None:
    """Renaming a class or a module must never rename what is on the wire."""
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    literals = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == "type":
                    assert isinstance(line.value, ast.Constant), f"{node.name}.type is not a literal"
                    literals[node.name] = line.value.value
    of_module = {
        event.__name__: type_ for type_, event in EVENTS.items() if event.__module__ == module.__name__
    }
    assert literals == of_module


def test_every_event_class_is_in_the_catalogue() -> None:
    found = {
        each
        for module in MODULES
        for each in vars(module).values()
        if inspect.isclass(each) and issubclass(each, Event) and "type" in vars(each)
    }
    assert found == set(EVENTS.values())


@pytest.mark.parametrize("type_", TYPES)
def test_type_topic_source_and_schema_agree(type_: str) -> None:
    event = EVENTS[type_]
    service = event.__module__.removeprefix("contracts.")
    assert re.fullmatch(rf"kaowu\.{service}\.[a-z]+(-[a-z]+)*\.v1", type_)
    assert event.topic == f"exam.{service}"
    assert event.source == f"/services/{service}"
    assert TOPICS[event.topic].owner == service
    assert Path(contracts.__path__[0]).parent.joinpath(event.dataschema()).is_file()


@pytest.mark.parametrize("type_", TYPES)
def test_the_committed_example_is_read(type_: str) -> None:
    event = EVENTS[type_]
    example = json.loads(example_file(event).read_text(encoding="utf-8"))
    payload = json.dumps(example["payload"]).encode()
    envelope = Envelope.from_headers((name, value.encode()) for name, value in example["headers"].items())
    assert envelope.headers() == [(name, value.encode()) for name, value in example["headers"].items()]
    read = parse(envelope, payload)
    assert type(read) is event
    assert read.key == example["key"] == envelope.subject
    assert envelope.dataschema == event.dataschema()
    assert json.loads(read.model_dump_json()) == example["payload"], (
        "an example shows every field, as it is written"
    )


def test_every_example_is_of_a_type_that_can_be_read() -> None:
    examples = sorted(EXAMPLES.rglob("*.json"))
    assert len(examples) >= len(EVENTS)
    for path in examples:
        type_ = f"kaowu.{path.parent.name}.{path.name.removesuffix('.json')}"
        assert look_up(type_) in set(EVENTS.values()), f"{path}: its reader is gone; add an upcaster"


def test_every_message_ever_published_can_still_be_read() -> None:
    editions = published()
    assert {edition.type for edition in editions} >= set(EVENTS)
    for edition in editions:
        headers = json.loads(example_file(EVENTS["kaowu.payment.due.v1"]).read_text())["headers"]
        envelope = Envelope.from_headers(
            (name, value.encode()) for name, value in {**headers, "ce_type": edition.type}.items()
        )
        assert isinstance(parse(envelope, json.dumps(edition.example).encode()), Event)


def test_the_key_says_whose_order_is_kept() -> None:
    class OfSite(SiteEvent):
        type: ClassVar[str] = "kaowu.test.site.v1"

    class OfCycle(CycleEvent):
        type: ClassVar[str] = "kaowu.test.cycle.v1"

    class OfNobody(Event):
        type: ClassVar[str] = "kaowu.test.nobody.v1"

    one = UUID("0190a3f5-7c1e-7d2a-9b60-4f1d2c3b5a69")
    assert registration.ContactChanged(cycle_id="2024-health-leshan", registration_id=one).key == str(one)
    assert OfSite(cycle_id="2024-health-leshan", site_id="ebian").key == "2024-health-leshan:ebian"
    assert OfCycle(cycle_id="2024-health-leshan").key == "2024-health-leshan"
    with pytest.raises(TypeError, match="abstract"):
        OfNobody(cycle_id="2024-health-leshan")  # type: ignore[abstract]


def test_an_event_cannot_be_changed() -> None:
    event = registration.ContactChanged(
        cycle_id="2024-health-leshan", registration_id=UUID("0190a3f5-7c1e-7d2a-9b60-4f1d2c3b5a69")
    )
    with pytest.raises(ValueError, match="frozen"):
        event.cycle_id = "2025-health-leshan"  # type: ignore[misc]  # that it cannot is what is tested
