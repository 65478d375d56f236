"""The names of messages, under which carriers know them."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Final
from uuid import UUID

from contracts.reasons import Carrier

_MOMENT: Final = 6  # bytes: of a version 7 UUID the milliseconds
_VERSION: Final = 0x80  # 8: made by a rule of our own
_VARIANT: Final = 0x80


def references_of(caused_by: UUID, occasion: str) -> Mapping[Carrier, UUID]:
    """Follow from what is told and how: made anew from the same event, say after a restore, it is the same message.

    Their first bytes are those of the event's id, so that messages sort by when what they tell was said.
    """
    told, moment = f"{caused_by} {occasion} ", caused_by.bytes[:_MOMENT]
    return {channel: _reference(moment, told + channel) for channel in Carrier}


def _reference(moment: bytes, told: str) -> UUID:
    mixed = bytearray(sha256(told.encode()).digest()[: 16 - _MOMENT])
    mixed[0] = mixed[0] & 0x0F | _VERSION
    mixed[2] = mixed[2] & 0x3F | _VARIANT
    return UUID(bytes=moment + bytes(mixed))
