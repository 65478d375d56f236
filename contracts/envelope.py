"""CloudEvents 1.0 attributes of an event, to and from Kafka headers (binary mode). Knows nothing of payloads.

A malformed header is named, its value is never repeated: the value may be anything, also somebody's name.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

from contracts import ids

SPEC_VERSION = "1.0"
CONTENT_TYPE = "application/json"
_SPEC_VERSION: Final = SPEC_VERSION.encode()
_CONTENT_TYPE: Final = CONTENT_TYPE.encode()

_PRINTABLE = re.compile(rb"[\x21-\x7e]{1,255}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")
_SEQUENCE = re.compile(r"[1-9][0-9]{0,17}")
# What a service says has few sources and schemas, and what it says in one transaction has one moment.
_REMEMBERED: Final = 1024


class MalformedEnvelope(ValueError):
    """The headers are no envelope of ours. `reason` names the header and never its value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Envelope(NamedTuple):
    """A tuple, because one is made for every event that is taken in: a frozen dataclass takes five times as long."""

    event_id: UUID
    type: str
    source: str
    subject: str
    time: datetime
    dataschema: str
    sequence: int
    correlation_id: str
    causation_id: str | None = None
    traceparent: str | None = None

    def headers(self) -> list[tuple[str, bytes]]:
        """Kafka headers. `correlation_id` repeats `ce_correlationid` under the name FastStream reads."""
        correlation = self.correlation_id.encode()
        headers = [
            ("ce_specversion", _SPEC_VERSION),
            ("ce_id", str(self.event_id).encode()),
            ("ce_type", self.type.encode()),
            ("ce_source", self.source.encode()),
            ("ce_subject", self.subject.encode()),
            ("ce_time", rfc_3339(self.time).encode()),
            ("ce_dataschema", self.dataschema.encode()),
            ("ce_sequence", str(self.sequence).encode()),
            ("ce_correlationid", correlation),
            ("content-type", _CONTENT_TYPE),
            ("correlation_id", correlation),
        ]
        if self.causation_id is not None:
            headers.append(("ce_causationid", self.causation_id.encode()))
        if self.traceparent is not None:
            headers.append(("traceparent", self.traceparent.encode()))
        return headers

    @classmethod
    def from_headers(cls, headers: Iterable[tuple[str, bytes | None]]) -> "Envelope":
        pairs = tuple(headers)
        found = dict(pairs)
        if len(found) != len(pairs):
            _refuse_contradictions(pairs)
        if found.get("ce_specversion") != _SPEC_VERSION and _text(found, "ce_specversion") != SPEC_VERSION:
            raise MalformedEnvelope(f"header ce_specversion is not {SPEC_VERSION}")
        if found.get("content-type", _CONTENT_TYPE) != _CONTENT_TYPE:
            content_type = _text(found, "content-type")
            if content_type.partition(";")[0].strip().lower() != CONTENT_TYPE:
                raise MalformedEnvelope(f"header content-type is not {CONTENT_TYPE}")
        return cls(  # in the order of the fields: by name it takes twice as long
            _uuid(found, "ce_id"),
            _word(found, "ce_type"),
            _word(found, "ce_source"),
            _token(found, "ce_subject"),
            _moment(found, "ce_time"),
            _word(found, "ce_dataschema"),
            _sequence(found, "ce_sequence"),
            _token(found, "ce_correlationid"),
            _token(found, "ce_causationid") if "ce_causationid" in found else None,
            _traceparent(found),
        )


def rfc_3339(moment: datetime) -> str:
    """UTC with `Z`. A naive moment is refused: it would be read as the time zone of whoever runs this."""
    if moment.tzinfo is None:
        raise ValueError("a moment on the wire needs a time zone")
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _shown(name: str) -> str:
    """A header's name comes from outside as well: shown only if it looks like one."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", name) else "(unprintable name)"


def _refuse_contradictions(pairs: Iterable[tuple[str, bytes | None]]) -> None:
    found: dict[str, bytes | None] = {}
    for name, value in pairs:
        if found.setdefault(name, value) != value:
            raise MalformedEnvelope(f"header {_shown(name)} is given twice with different values")


def _text(found: Mapping[str, bytes | None], name: str) -> str:
    if name not in found:
        raise MalformedEnvelope(f"header {name} is missing")
    value = found[name]
    if value is None:
        raise MalformedEnvelope(f"header {name} is null")
    try:
        return value.decode()
    except UnicodeDecodeError:
        # `from None`: the decoder's error carries the bytes
        raise MalformedEnvelope(f"header {name} is not UTF-8") from None


def _token(found: Mapping[str, bytes | None], name: str) -> str:
    value = found.get(name)
    if value is not None and _PRINTABLE.fullmatch(value):
        return value.decode("ascii")
    _text(found, name)  # missing, null and not UTF-8 have complaints of their own
    raise MalformedEnvelope(f"header {name} is not 1 to 255 printable ASCII characters")


def _word(found: Mapping[str, bytes | None], name: str) -> str:
    """A token that many events share."""
    return _printable(found.get(name)) or _token(found, name)


@lru_cache(_REMEMBERED)
def _printable(value: bytes | None) -> str | None:
    return value.decode("ascii") if value is not None and _PRINTABLE.fullmatch(value) else None


def _uuid(found: Mapping[str, bytes | None], name: str) -> UUID:
    text = _text(found, name)
    try:
        return ids.from_text(text)
    except ValueError:
        raise MalformedEnvelope(f"header {name} is not a UUID") from None


def _moment(found: Mapping[str, bytes | None], name: str) -> datetime:
    moment = _in_utc(_text(found, name))
    if moment is None:
        raise MalformedEnvelope(f"header {name} is not an RFC 3339 time with an offset")
    return moment


@lru_cache(_REMEMBERED)
def _in_utc(text: str) -> datetime | None:
    if not _RFC_3339.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
        return moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _sequence(found: Mapping[str, bytes | None], name: str) -> int:
    number = _whole(_text(found, name))
    if number is None:
        raise MalformedEnvelope(f"header {name} is not a whole number from 1")
    return number


@lru_cache(_REMEMBERED)
def _whole(text: str) -> int | None:
    return int(text) if _SEQUENCE.fullmatch(text) else None


def _traceparent(found: Mapping[str, bytes | None]) -> str | None:
    """A broken trace context is dropped, as W3C says: it must never stop an event."""
    for name in ("traceparent", "ce_traceparent"):
        value = found.get(name)
        if value is not None:
            text = value.decode("ascii", errors="replace")
            return text if _TRACEPARENT.fullmatch(text) else None
    return None
