"""The compatibility checker: thirteen edits of one order event, each judged in both directions, and what it refuses."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, create_model

from contracts.schemas.compatibility import Incompatibility, UnknownKeyword, incompatibilities

Fields = dict[str, Any]


class Status(StrEnum):
    OPEN = "open"
    PAID = "paid"


class StatusWithClosed(StrEnum):
    OPEN = "open"
    PAID = "paid"
    CLOSED = "closed"


class StatusWithoutPaid(StrEnum):
    OPEN = "open"


class Address(BaseModel):
    city: Annotated[str, Field(max_length=40)]
    street: str | None = None


class ShortAddress(BaseModel):
    city: Annotated[str, Field(max_length=20)]
    street: str | None = None


class Line(BaseModel):
    sku: str
    quantity: Annotated[int, Field(ge=1, le=99)]


class LineBySkuNumber(BaseModel):
    sku: int
    quantity: Annotated[int, Field(ge=1, le=99)]


class Card(BaseModel):
    kind: Literal["card"]
    last_four: str


class Transfer(BaseModel):
    kind: Literal["transfer"]
    iban: str


class Cash(BaseModel):
    kind: Literal["cash"]


def by_kind(*variants: type[BaseModel]) -> Any:
    union: Any = variants[0]
    for variant in variants[1:]:
        union = union | variant
    return Annotated[union, Field(discriminator="kind")]


ORDER: Fields = {
    "order_id": (UUID, ...),
    "placed_at": (datetime, ...),
    "number": (Annotated[str, Field(pattern=r"^[A-Z]{2}[0-9]{6}$")], ...),
    "status": (Status, ...),
    "address": (Address, ...),
    "lines": (list[Line], ...),
    "note": (str | None, ...),
    "amount": (int, ...),
    "paid_by": (by_kind(Card, Transfer), ...),
}


def order(fields: Fields) -> type[BaseModel]:
    return create_model("Order", **fields)


def edited(**changes: Any) -> type[BaseModel]:
    fields = {**ORDER, **changes}
    return order({name: field for name, field in fields.items() if field is not None})


def written(model: type[BaseModel]) -> dict[str, Any]:
    schema: dict[str, Any] = closed(model.model_json_schema(mode="serialization"))
    return schema


def closed(schema: Any) -> Any:
    if isinstance(schema, dict):
        more = {"additionalProperties": False} if schema.get("type") == "object" else {}
        return {**{key: closed(inner) for key, inner in schema.items()}, **more}
    return [closed(inner) for inner in schema] if isinstance(schema, list) else schema


def read(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(mode="validation")


OLD = order(ORDER)

# edit, the new model, what the new reader cannot read of the old writer, what the old reader cannot of the new writer
EDITS: list[tuple[str, type[BaseModel], str | None, str | None]] = [
    ("unchanged", edited(), None, None),
    ("optional field added", edited(coupon=(str | None, None)), None, None),
    ("required field added", edited(coupon=(str, ...)), "$.coupon: the reader requires it", None),
    ("field removed", edited(amount=None), None, "$.amount: the reader requires it"),
    (
        "type changed",
        edited(amount=(str, ...)),
        "$.amount: the writer writes integer, the reader reads string",
        "$.amount: the writer writes string, the reader reads integer",
    ),
    (
        "enum value added",
        edited(status=(StatusWithClosed, ...)),
        None,
        "$.status: the writer may write 'closed', which the reader does not know",
    ),
    (
        "enum value removed",
        edited(status=(StatusWithoutPaid, ...)),
        "$.status: the writer may write 'paid', which the reader does not know",
        None,
    ),
    (
        "format date-time to date",
        edited(placed_at=(date, ...)),
        "$.placed_at: the writer writes string (date-time), the reader reads string (date)",
        "$.placed_at: the writer writes string (date), the reader reads string (date-time)",
    ),
    (
        "maxLength of a nested field narrowed",
        edited(address=(ShortAddress, ...)),
        "$.address.city: maxLength is 20 for the reader and 40 for the writer",
        None,
    ),
    (
        "pattern changed",
        edited(number=(Annotated[str, Field(pattern=r"^[A-Z]{3}[0-9]{6}$")], ...)),
        "$.number: the writer has pattern ^[A-Z]{2}[0-9]{6}$, the reader has pattern ^[A-Z]{3}[0-9]{6}$",
        "$.number: the writer has pattern ^[A-Z]{3}[0-9]{6}$, the reader has pattern ^[A-Z]{2}[0-9]{6}$",
    ),
    (
        "nullable to not nullable",
        edited(note=(str, ...)),
        "$.note: the writer writes null, the reader reads string",
        None,
    ),
    (
        "union variant added",
        edited(paid_by=(by_kind(Card, Transfer, Cash), ...)),
        None,
        "$.paid_by: no variant of the reader takes object of the writer",
    ),
    (
        "list item changed",
        edited(lines=(list[LineBySkuNumber], ...)),
        "$.lines[].sku: the writer writes string, the reader reads integer",
        "$.lines[].sku: the writer writes integer, the reader reads string",
    ),
]


def verdict(found: list[Incompatibility]) -> str | None:
    return "; ".join(map(str, found)) or None


def agrees(found: list[Incompatibility], expected: str | None) -> bool:
    if expected is None:
        return found == []
    return len(found) == 1 and str(found[0]).startswith(expected)


def test_the_table_has_26_verdicts() -> None:
    assert len(EDITS) == 13
    broken = sum((backward is not None) + (forward is not None) for _, _, backward, forward in EDITS)
    assert broken == 15


@pytest.mark.parametrize(("edit", "new", "backward", "forward"), EDITS, ids=[edit for edit, *_ in EDITS])
def test_the_new_reader_reads_the_old_writer(
    edit: str, new: type[BaseModel], backward: str | None, forward: str | None
) -> None:
    found = incompatibilities(written(OLD), read(new))
    assert agrees(found, backward), verdict(found)


@pytest.mark.parametrize(("edit", "new", "backward", "forward"), EDITS, ids=[edit for edit, *_ in EDITS])
def test_the_old_reader_reads_the_new_writer(
    edit: str, new: type[BaseModel], backward: str | None, forward: str | None
) -> None:
    found = incompatibilities(written(new), read(OLD))
    assert agrees(found, forward), verdict(found)


def string(**more: Any) -> dict[str, Any]:
    return {"type": "string", **more}


def number(**more: Any) -> dict[str, Any]:
    return {"type": "integer", **more}


def record(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


@pytest.mark.parametrize(
    ("writer", "reader", "reason"),
    [
        # bounds
        (number(minimum=1), number(minimum=0), None),
        (number(minimum=0), number(minimum=1), "minimum is 1 for the reader and 0 for the writer"),
        (number(), number(maximum=9), "maximum is 9 for the reader and none for the writer"),
        (number(maximum=9), number(maximum=9), None),
        (number(exclusiveMinimum=0), number(minimum=0), None),
        (number(minimum=0), number(exclusiveMinimum=0), "exclusiveMinimum is 0 for the reader and none"),
        (number(), {"type": "number"}, None),
        ({"type": "number"}, number(), "the writer writes number, the reader reads integer"),
        ({"type": "boolean"}, number(), "the writer writes boolean, the reader reads integer"),
        (string(minLength=1), string(minLength=1), None),
        (string(), string(minLength=1), "minLength is 1 for the reader and 0 for the writer"),
        (string(), string(minLength=0), None),
        (string(), string(maxLength=5), "maxLength is 5 for the reader and none for the writer"),
        (string(format="uuid"), string(), None),
        (string(), string(format="uuid"), "the writer writes string, the reader reads string (uuid)"),
        (string(pattern="^a$"), string(), None),
        (string(), string(pattern="^a$"), "the writer has no pattern"),
        # finite sets of values
        (string(enum=["a", "b"]), string(), None),
        (string(const="a"), string(enum=["a", "b"]), None),
        (string(enum=["a", "b"]), string(const="a"), "may write 'b', which the reader does not know"),
        (string(), string(enum=["a"]), "the reader takes only 'a', the writer is not limited"),
        (string(enum=["a", "bb"]), string(maxLength=1), "may write 'bb', which the reader does not take"),
        (string(enum=["a", "b"]), string(pattern="^a$"), "may write 'b', which the reader does not take"),
        (string(enum=["a"]), number(), "may write 'a', which the reader does not take"),
        (string(enum=["a"]), string(format="date"), "may write 'a', which the reader does not take"),
        ({"enum": [1, 5]}, number(maximum=4), "may write 5, which the reader does not take"),
        ({"enum": [1]}, number(exclusiveMinimum=1), "may write 1, which the reader does not take"),
        ({"const": True}, {"const": 1}, "may write True, which the reader does not know"),
        ({"const": True}, number(), "may write True, which the reader does not take"),
        ({"const": None}, {"type": "null"}, None),
        # lists
        ({"type": "array", "items": number()}, {"type": "array", "items": number()}, None),
        ({"type": "array"}, {"type": "array", "items": number()}, "the writer writes anything"),
        ({"type": "array"}, {"type": "array", "minItems": 1}, "minItems is 1 for the reader and 0"),
        ({"type": "array", "maxItems": 4}, {"type": "array", "maxItems": 3}, "maxItems is 3"),
        # objects
        (record(("a",), a=number()), record(), None),
        (record(("a",), a=number()), record(("a",), a=number()), None),
        (record(a=number()), record(("a",), a=number()), "$.a: the reader requires it"),
        (
            {**record(a=number()), "additionalProperties": False},
            {**record(), "additionalProperties": False},
            "$.a: the reader is closed and does not know it",
        ),
        (record(), record(a=number()), "$.a: the writer writes anything, the reader reads integer"),
        ({**record(), "additionalProperties": False}, record(a=number()), None),
        (
            {"type": "object", "additionalProperties": string()},
            {"type": "object", "additionalProperties": number()},
            "$.*: the writer writes string, the reader reads integer",
        ),
        (record(), {**record(), "additionalProperties": False}, "$.*: the reader is closed"),
        # variants
        (string(), {"anyOf": [number(), string()]}, None),
        ({"anyOf": [number(), string()]}, string(), "the writer writes integer, the reader reads string"),
        (string(), {"anyOf": [number(), {"type": "null"}]}, "no variant of the reader takes string"),
        (string(), {"anyOf": [string(maxLength=1), number()]}, "maxLength is 1 for the reader and none"),
        ({}, string(), "the writer writes anything, the reader reads string"),
        (string(), {}, None),
        ({"type": "null"}, string(), "the writer writes null, the reader reads string"),
    ],
)
def test_single_keywords(writer: dict[str, Any], reader: dict[str, Any], reason: str | None) -> None:
    found = incompatibilities(writer, reader)
    assert (found == []) if reason is None else (len(found) == 1 and reason in str(found[0])), found


def test_every_break_is_told_not_only_the_first() -> None:
    new = edited(amount=(str, ...), note=(str, ...), coupon=(str, ...))
    assert [one.path for one in incompatibilities(written(OLD), read(new))] == [
        "$.coupon",
        "$.note",
        "$.amount",
    ]


def test_a_recursive_model_is_followed_to_its_end() -> None:
    def tree(leaf: dict[str, Any]) -> dict[str, Any]:
        node = record(("leaf",), leaf=leaf, children={"type": "array", "items": {"$ref": "#/$defs/Node"}})
        return {"$ref": "#/$defs/Node", "$defs": {"Node": {**node, "additionalProperties": False}}}

    assert incompatibilities(tree(number()), tree(number())) == []
    assert [str(one) for one in incompatibilities(tree(number()), tree(string()))] == [
        "$.leaf: the writer writes integer, the reader reads string"
    ]


def test_a_failed_variant_does_not_make_the_next_one_pass() -> None:
    """What one variant assumed of a reference must be forgotten before the next is tried."""
    leaf = {**record(("a",), a=number()), "additionalProperties": False}
    bad = record(("a",), a=string())
    writer = {
        **record(("x",), x={"$ref": "#/$defs/Leaf"}),
        "additionalProperties": False,
        "$defs": {"Leaf": leaf},
    }
    variant = record(("x",), x={"$ref": "#/$defs/Bad"})
    reader = {"anyOf": [variant, variant], "$defs": {"Bad": bad}}
    assert incompatibilities(writer, reader) != []


@pytest.mark.parametrize(
    "schema",
    [
        {"not": {}},
        {"allOf": []},
        {"type": "object", "patternProperties": {}},
        {"type": "array", "prefixItems": []},
        {"type": ["string", "null"]},
        {"type": "object", "properties": {"a": {"multipleOf": 2}}},
        {"anyOf": [{"if": {}}]},
        {"type": "array", "items": {"uniqueItems": True}},
        {"type": "object", "additionalProperties": {"contains": {}}},
        {"$defs": {"A": {"dependentRequired": {}}}},
    ],
)
def test_a_keyword_it_does_not_know_is_refused(schema: dict[str, Any]) -> None:
    for writer, reader in ((schema, {}), ({}, schema)):
        with pytest.raises(UnknownKeyword, match="the compatibility checker does not know"):
            incompatibilities(writer, reader)
