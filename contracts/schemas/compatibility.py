"""Whether everything that one JSON Schema allows to be written can be read by another.

Structural, over the keywords that Pydantic emits for our events; a keyword it does not know is refused, never
passed over. When it cannot tell (two different patterns), the answer is no.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

Schema = Mapping[str, Any]

_ANNOTATIONS = frozenset(
    {"$schema", "$id", "$defs", "title", "description", "default", "examples", "deprecated"}
)
_CONSTRAINTS = frozenset(
    {
        "$ref", "type", "enum", "const", "anyOf", "oneOf", "discriminator",
        "format", "pattern", "minLength", "maxLength",
        "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
        "items", "minItems", "maxItems",
        "properties", "required", "additionalProperties",
    }
)  # fmt: skip


class UnknownKeyword(ValueError):
    """A schema says something that this checker does not understand, so it must not judge it."""


class Incompatibility(NamedTuple):
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def incompatibilities(writer: Schema, reader: Schema) -> list[Incompatibility]:
    """Why something valid under `writer` would not be valid under `reader`; empty if everything would."""
    refuse_unknown_keywords(writer)
    refuse_unknown_keywords(reader)
    return list(_Comparison(writer, reader).compare(writer, reader, "$"))


def refuse_unknown_keywords(schema: Schema, path: str = "$") -> None:
    for keyword in schema:
        if keyword not in _ANNOTATIONS and keyword not in _CONSTRAINTS:
            raise UnknownKeyword(f"{path}: the compatibility checker does not know the keyword {keyword!r}")
    if isinstance(schema.get("type"), list):
        raise UnknownKeyword(f"{path}: the compatibility checker does not know a list of types")
    for keyword in ("$defs", "properties"):
        for name, inner in schema.get(keyword, {}).items():
            refuse_unknown_keywords(inner, f"{path}.{name}")
    for keyword in ("anyOf", "oneOf"):
        for index, inner in enumerate(schema.get(keyword, ())):
            refuse_unknown_keywords(inner, f"{path}|{index}")
    for keyword in ("items", "additionalProperties"):
        inner = schema.get(keyword)
        if isinstance(inner, Mapping):
            refuse_unknown_keywords(inner, f"{path}[]")


class _Comparison:
    def __init__(self, writer: Schema, reader: Schema) -> None:
        self._writer_defs: Schema = writer.get("$defs", {})
        self._reader_defs: Schema = reader.get("$defs", {})
        # Pairs of references under way: a recursive model is compatible unless a finite path says otherwise.
        self._assumed: set[tuple[str, str]] = set()

    def compare(self, writer: Schema, reader: Schema, path: str) -> Iterator[Incompatibility]:
        pair = (writer.get("$ref", ""), reader.get("$ref", ""))
        if all(pair):
            if pair in self._assumed:
                return
            self._assumed.add(pair)
        writer = _resolved(writer, self._writer_defs)
        reader = _resolved(reader, self._reader_defs)
        written = _variants(writer)
        if written is not None:
            for variant in written:
                yield from self.compare(variant, reader, path)
        elif (read := _variants(reader)) is not None:
            yield from self._among(writer, read, path)
        else:
            yield from self._plain(writer, reader, path)

    def _among(self, writer: Schema, variants: list[Schema], path: str) -> Iterator[Incompatibility]:
        """One variant of the reader must take all that this writer writes."""
        complaints = []
        for variant in variants:
            # Judged on its own: what a failing variant assumed of references must not help the next one.
            before = set(self._assumed)
            found = list(self.compare(writer, variant, path))
            if not found:
                return
            self._assumed = before
            complaints.append(found)
        same_type = [
            found
            for found, variant in zip(complaints, variants, strict=True)
            if _resolved(variant, self._reader_defs).get("type") == writer.get("type")
        ]
        if len(same_type) == 1:
            yield from same_type[0]
        else:
            yield Incompatibility(path, f"no variant of the reader takes {_named(writer)} of the writer")

    def _plain(self, writer: Schema, reader: Schema, path: str) -> Iterator[Incompatibility]:
        written, read = _values(writer), _values(reader)
        if written is not None:
            yield from _finite(written, read, reader, path)
            return
        if read is not None:
            yield Incompatibility(
                path, f"the reader takes only {_listed(read)}, the writer is not limited to them"
            )
            return
        if "type" not in reader:
            return
        if writer.get("type") != reader["type"] and (writer.get("type"), reader["type"]) != (
            "integer",
            "number",
        ):
            yield Incompatibility(
                path, f"the writer writes {_named(writer)}, the reader reads {_named(reader)}"
            )
            return
        yield from _text(writer, reader, path)
        yield from _bounds(writer, reader, path)
        yield from self._list(writer, reader, path)
        yield from self._object(writer, reader, path)

    def _list(self, writer: Schema, reader: Schema, path: str) -> Iterator[Incompatibility]:
        if writer.get("type") == "array" and "items" in reader:
            yield from self.compare(writer.get("items", {}), reader["items"], f"{path}[]")

    def _object(self, writer: Schema, reader: Schema, path: str) -> Iterator[Incompatibility]:
        if writer.get("type") != "object":
            return
        written: Schema = writer.get("properties", {})
        read: Schema = reader.get("properties", {})
        for name in reader.get("required", ()):
            if name not in writer.get("required", ()):
                yield Incompatibility(f"{path}.{name}", "the reader requires it, the writer may leave it out")
        for name, inner in written.items():
            if name in read:
                yield from self.compare(inner, read[name], f"{path}.{name}")
            else:
                yield from self._unlisted(inner, reader, f"{path}.{name}")
        more = writer.get("additionalProperties", True)
        if more is False:
            return
        inner = more if isinstance(more, Mapping) else {}
        for name in read:
            if name not in written:
                yield from self.compare(inner, read[name], f"{path}.{name}")
        yield from self._unlisted(inner, reader, f"{path}.*")

    def _unlisted(self, inner: Schema, reader: Schema, path: str) -> Iterator[Incompatibility]:
        """A property of the writer that the reader does not list."""
        more = reader.get("additionalProperties", True)
        if more is False:
            yield Incompatibility(path, "the reader is closed and does not know it")
        elif isinstance(more, Mapping):
            yield from self.compare(inner, more, path)


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    while "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
    return schema


def _variants(schema: Schema) -> list[Schema] | None:
    variants = schema.get("anyOf", schema.get("oneOf"))
    return list(variants) if variants is not None else None


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if "enum" in schema else None


def _named(schema: Schema) -> str:
    kind = str(schema.get("type", "anything"))
    return f"{kind} ({schema['format']})" if "format" in schema else kind


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(repr(value) for value in values)


def _finite(
    written: list[Any], read: list[Any] | None, reader: Schema, path: str
) -> Iterator[Incompatibility]:
    """The writer only writes these values: each is looked at."""
    if read is not None:
        unread = [value for value in written if not any(_same(value, other) for other in read)]
        if unread:
            yield Incompatibility(
                path, f"the writer may write {_listed(unread)}, which the reader does not know"
            )
        return
    for value in written:
        if not _takes(reader, value):
            yield Incompatibility(path, f"the writer may write {value!r}, which the reader does not take")


def _same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


_JSON_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def _takes(reader: Schema, value: object) -> bool:
    kind = reader.get("type")
    if kind is None:
        return True
    if not isinstance(value, _JSON_TYPES.get(kind, ())) or (isinstance(value, bool) and kind != "boolean"):
        return False
    if isinstance(value, str):
        # A format cannot be checked here, so a reader that has one does not take a listed word.
        return (
            "format" not in reader
            and reader.get("minLength", 0) <= len(value) <= reader.get("maxLength", len(value))
            and re.search(reader.get("pattern", ""), value) is not None
        )
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (
            reader.get("minimum", value) <= value <= reader.get("maximum", value)
            and not value <= reader.get("exclusiveMinimum", value - 1)
            and not value >= reader.get("exclusiveMaximum", value + 1)
        )
    return True


def _text(writer: Schema, reader: Schema, path: str) -> Iterator[Incompatibility]:
    if "format" in reader and writer.get("format") != reader["format"]:
        yield Incompatibility(path, f"the writer writes {_named(writer)}, the reader reads {_named(reader)}")
    if "pattern" in reader and writer.get("pattern") != reader["pattern"]:
        shown = f"pattern {writer['pattern']}" if "pattern" in writer else "no pattern"
        yield Incompatibility(path, f"the writer has {shown}, the reader has pattern {reader['pattern']}")


# keyword, and whether it limits upwards
_LIMITS = (
    ("maxLength", True), ("minLength", False), ("maxItems", True), ("minItems", False),
    ("maximum", True), ("minimum", False), ("exclusiveMaximum", True), ("exclusiveMinimum", False),
)  # fmt: skip


def _bounds(writer: Schema, reader: Schema, path: str) -> Iterator[Incompatibility]:
    for keyword, upwards in _LIMITS:
        if keyword not in reader:
            continue
        limit = reader[keyword]
        reached = _reached(writer, keyword)
        if reached is None or (reached > limit if upwards else reached < limit):
            shown = "none" if reached is None else reached
            yield Incompatibility(path, f"{keyword} is {limit} for the reader and {shown} for the writer")


def _reached(writer: Schema, keyword: str) -> int | float | None:
    """How far the writer goes, as a bound of the same kind."""
    # An inclusive limit of the reader also holds if the writer stays strictly inside it.
    stricter = {"maximum": "exclusiveMaximum", "minimum": "exclusiveMinimum"}.get(keyword, keyword)
    reached: int | float | None = writer.get(keyword, writer.get(stricter))
    return 0 if reached is None and keyword in {"minLength", "minItems"} else reached
