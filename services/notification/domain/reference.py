"""The names of messages, under which carriers know them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final
from uuid import UUID

from contracts import ids
from contracts.reasons import Carrier

_MOMENT: Final = 6  # bytes: of a version 7 UUID the milliseconds
_VERSION: Final = 0x80  # 8: made by a rule of our own
_VARIANT: Final = 0x80


def references_of(told: Iterable[tuple[UUID, str]]) -> Mapping[Carrier, list[UUID]]:
    """Of each (event that is told, occasion): they follow from these, so what is made anew from the same event, say after a
    restore, is the same message.

    Their first bytes are those of the event's id, so that messages sort by when what they tell was said.
    """
    made: dict[Carrier, list[bytes]] = {channel: [] for channel in Carrier}
    said = [
        (caused_by.bytes[:_MOMENT], f"{ids.to_text(caused_by)} {occasion} ") for caused_by, occasion in told
    ]
    for channel, of_channel in made.items():
        of_channel.extend([_reference(moment, text + channel) for moment, text in said])
    return {channel: ids.from_bytes(of_channel) for channel, of_channel in made.items()}


def _reference(moment: bytes, told: str) -> bytes:
    mixed = sha256(told.encode()).digest()
    return b"%b%c%c%c%b" % (
        moment, mixed[0] & 0x0F | _VERSION, mixed[1], mixed[2] & 0x3F | _VARIANT, mixed[3 : 16 - _MOMENT]
    )  # fmt: skip
