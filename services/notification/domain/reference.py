"""The name of a message, under which carriers know it."""

from __future__ import annotations

from hashlib import sha256
from typing import Final
from uuid import UUID

_MOMENT: Final = 6  # bytes: of a version 7 UUID the milliseconds
_VERSION: Final = 0x80  # 8: made by a rule of our own
_VARIANT: Final = 0x80


def reference_of(caused_by: UUID, occasion: str, channel: str) -> UUID:
    """Follows from what is told and how: made anew from the same event, say after a restore, it is the same message.

    Its first bytes are those of the event's id, so that messages sort by when what they tell was said.
    """
    mixed = bytearray(sha256(f"{caused_by} {occasion} {channel}".encode()).digest()[: 16 - _MOMENT])
    mixed[0] = mixed[0] & 0x0F | _VERSION
    mixed[2] = mixed[2] & 0x3F | _VARIANT
    return UUID(bytes=caused_by.bytes[:_MOMENT] + bytes(mixed))
