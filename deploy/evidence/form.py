"""The form of an evidence file (docs/evidence.md): what stands where, and a checksum for every value in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

FORMAT: Final = "kaowu.evidence"
VERSION: Final = 1
LARGEST: Final = 4 << 20  # bytes; a file with a hundred orders has a tenth of that

_UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
Uuid = Annotated[str, StringConstraints(pattern=_UUID)]
Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# No year so early or late that reckoning from it leaves the calendar.
_MOMENT = r"^(19|20|21)[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"
_LONGEST: Final = 10 * 366 * 86_400  # seconds before a close that anybody is reminded


def _exists(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def is_moment(text: str) -> bool:
    """Whether it is one, in the file's spelling."""
    if not re.match(_MOMENT, text):
        return False
    try:
        _exists(text)
    except ValueError:
        return False
    return True


Moment = Annotated[str, StringConstraints(pattern=_MOMENT), AfterValidator(_exists)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
OrderNo = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_*-]{6,64}$")]
Fen = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Forfeiture(Part):
    proof_id: Uuid
    event_id: Uuid
    closes_at: Moment
    told_closes_at: Moment
    expired_at: Moment
    amount_fen: Fen
    rule: Word
    rule_text: str


class CyclePart(Part):
    id: str
    fingerprint: Hex
    content: dict[str, Any]


class ClocksPart(Part):
    application: Moment
    database: Moment
    broker: Moment
    virtual: bool


class AnswerPart(Part):
    kind: Literal["query", "notice"]
    state: Word
    at: Moment
    digest: Hex
    raw: str
    signature: dict[str, str]


class OrderPart(Part):
    order_no: OrderNo
    status: Word
    channel: Word
    amount_fen: Fen
    currency: Word
    created_at: Moment
    expires_at: Moment
    refusal: Word | None
    paid_at: Moment | None
    answer: AnswerPart | None


class MessagePart(Part):
    message_id: Uuid
    caused_by: Uuid
    occasion: Word
    channel: Word
    template_version: Count
    state: Word
    created_at: Moment
    state_at: Moment
    provider_ref: str | None
    reason_code: Word | None


class ReminderPart(Part):
    told_closes_at: Moment
    offset_seconds: Annotated[int, Field(ge=1, le=_LONGEST)]
    at: Moment
    event_id: Uuid
    messages: list[MessagePart]


class LeafPart(Part):
    text: str
    hash: Hex


class TreePart(Part):
    index: Count
    leaves: Fen
    path: Annotated[list[Hex], Field(max_length=64)]


class PublishedPart(Part):
    """The event with the root. Of a close: its moments, counts and sums; of a later root (`proofs-published`) none of these,
    but how many proofs the roots before it cover.
    """

    topic: str
    type: str
    key: str
    event_id: Uuid
    sequence: Fen
    occurred_at: Moment
    closes_at: Moment | None
    closed_at: Moment | None
    counts: dict[str, Count | None]
    sums_fen: dict[str, Count]
    proof_root: Hex
    proofs: Count
    proofs_before: Count | None = None


class EarlierPart(Part):
    """That the same registration was forfeited before and revived: the leaf's text says by which close."""

    leaf: LeafPart
    tree: TreePart
    published: PublishedPart


class Evidence(Part):
    """One file. What each field means: docs/evidence.md."""

    format: Literal["kaowu.evidence"]
    version: Literal[1]
    made_at: Moment
    registration_id: Uuid
    forfeiture: Forfeiture
    cycle: CyclePart
    clocks: ClocksPart | None
    orders: list[OrderPart]
    reminders: list[ReminderPart]
    notices: list[MessagePart]
    leaf: LeafPart
    tree: TreePart | None
    published: PublishedPart | None
    earlier: list[EarlierPart] = Field(default_factory=list)
    keys: dict[str, dict[str, str]]
    checksums: dict[str, str]
    digest: Hex


def canonical(value: object) -> bytes:
    """One spelling for one value."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def values(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value that has none inside, with where it stands; an empty list or object is one."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from values(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for place, inner in enumerate(value):
            yield from values(inner, f"{path}[{place}]")
    else:
        yield path, value


def checksum(path: str, value: object) -> str:
    """Short: it finds the place of an accident or of a clumsy hand. What stops a skilled one is in `verifying`."""
    return sha256(f"{path}\0".encode() + canonical(value)).hexdigest()[:16]


def checksums(content: Mapping[str, object]) -> dict[str, str]:
    """Of everything but the checksums themselves and their digest."""
    kept = {name: part for name, part in content.items() if name not in {"checksums", "digest"}}
    return {path: checksum(path, value) for path, value in values(kept)}


def sealed(content: Mapping[str, object]) -> dict[str, object]:
    """The content with its checksums and their digest."""
    sums = checksums(content)
    return {**content, "checksums": sums, "digest": sha256(canonical(sums)).hexdigest()}


def moment(at: datetime) -> str:
    """As the file writes it."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def compact(at: str) -> str:
    """As a leaf writes it: without what parts fields there."""
    return at.replace("-", "").replace(":", "")
