"""JSON Schemas of the events, what is written (closed) and what is read (open), and what of them was published.

`published.jsonl` is append-only: one line per type and edition, each with the hash of the line before it.
Compatibility is judged against it, so that generating the schema files again can never hide a broken promise.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from contracts.catalogue import EVENTS
from contracts.event import Event
from contracts.schemas.compatibility import Incompatibility, Schema, incompatibilities

FOLDER = Path(__file__).parent
PUBLISHED = FOLDER / "published.jsonl"
EXAMPLES = FOLDER.parent / "examples"
COMMAND = "python -m contracts.schemas"

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PROSE = frozenset({"$schema", "$id", "title", "description", "examples", "deprecated"})
_START = "0" * 64


@dataclass(frozen=True, slots=True)
class Edition:
    """One published shape of one type. Within a major every edition must understand every other."""

    type: str
    number: int
    writer: Schema
    reader: Schema
    example: Mapping[str, Any]
    previous: str

    def line(self) -> str:
        return _compact(
            {
                "type": self.type,
                "edition": self.number,
                "writer": self.writer,
                "reader": self.reader,
                "example": self.example,
                "previous": self.previous,
            }
        )

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.line().encode()).hexdigest()


class RecordBroken(ValueError):
    """published.jsonl was changed other than by adding a line."""


def writer_schema(event: type[Event]) -> dict[str, Any]:
    """What is written: nothing but the listed fields."""
    schema = _schema(event, "serialization")
    for inner in _objects(schema):
        inner.setdefault("additionalProperties", False)
    return schema


def reader_schema(event: type[Event]) -> dict[str, Any]:
    """What is read: unknown fields are ignored."""
    return _schema(event, "validation")


def files() -> dict[Path, str]:
    """Every committed schema file and its text."""
    texts = {}
    for event in EVENTS.values():
        path = FOLDER.parent.parent / event.dataschema()
        texts[path] = _pretty(writer_schema(event))
        texts[path.with_suffix(".reader.json")] = _pretty(reader_schema(event))
    return texts


def published(record: Path = PUBLISHED) -> list[Edition]:
    """The record, its chain checked."""
    editions: list[Edition] = []
    previous = _START
    numbers: dict[str, int] = {}
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    for position, line in enumerate(lines, start=1):
        data = json.loads(line)
        edition = Edition(
            data["type"], data["edition"], data["writer"], data["reader"], data["example"], data["previous"]
        )
        expected = numbers.get(edition.type, 0) + 1
        if edition.previous != previous or edition.line() != line or edition.number != expected:
            raise RecordBroken(f"{record.name}, line {position}: changed after it was published; restore it")
        numbers[edition.type] = expected
        previous = edition.digest
        editions.append(edition)
    return editions


def broken_promises(event: type[Event], editions: list[Edition]) -> list[Incompatibility]:
    """What today's class cannot read of any edition of its type, or writes and an edition could not read."""
    writer, reader = writer_schema(event), reader_schema(event)
    broken = []
    for edition in editions:
        if edition.type != event.type:
            continue
        for found, side in (
            (incompatibilities(edition.writer, reader), f"cannot read what edition {edition.number} wrote"),
            (incompatibilities(writer, edition.reader), f"writes what edition {edition.number} cannot read"),
        ):
            broken += [Incompatibility(f"{event.type} {one.path}", f"{side}: {one.reason}") for one in found]
    return broken


def unpublished(editions: list[Edition]) -> list[type[Event]]:
    """Classes whose shape is not the newest published one."""
    newest = {edition.type: edition for edition in editions}
    return [
        event
        for event in EVENTS.values()
        if event.type not in newest
        or _shape(writer_schema(event)) != _shape(newest[event.type].writer)
        or _shape(reader_schema(event)) != _shape(newest[event.type].reader)
    ]


def next_edition(event: type[Event], editions: list[Edition], example: Mapping[str, Any]) -> Edition:
    return Edition(
        event.type,
        1 + sum(1 for edition in editions if edition.type == event.type),
        writer_schema(event),
        reader_schema(event),
        example,
        editions[-1].digest if editions else _START,
    )


def example_file(event: type[Event]) -> Path:
    service, fact = event.type.removeprefix("kaowu.").split(".", 1)
    return EXAMPLES / service / f"{fact}.json"


def _schema(event: type[Event], mode: Literal["serialization", "validation"]) -> dict[str, Any]:
    schema = event.model_json_schema(mode=mode)
    return {"$schema": _DIALECT, "$id": event.type, **schema}


def _objects(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if value.get("type") == "object":
            yield value
        for inner in value.values():
            yield from _objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)


def _shape(schema: object, named: bool = False) -> object:
    """The schema without prose. `named`: the keys are names of fields, of which one may be called title."""
    if isinstance(schema, Mapping):
        return {
            key: _shape(inner, named=not named and key in {"properties", "$defs"})
            for key, inner in schema.items()
            if named or key not in _PROSE
        }
    return [_shape(inner) for inner in schema] if isinstance(schema, list) else schema


def _pretty(schema: Schema) -> str:
    return json.dumps(schema, ensure_ascii=False, indent=2) + "\n"


def _compact(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
