"""How many messages a text is for a carrier that counts characters."""

from __future__ import annotations

from typing import Final

ONE: Final = 70
EACH: Final = 67  # a longer text is cut into parts of this length
ONE_ABROAD: Final = 160
EACH_ABROAD: Final = 153
_GSM: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_TWICE: Final = frozenset("|^€{}[]~\\\f")  # two places each


def parts(text: str) -> int:
    """Number of parts. UTF-16 units are what is counted: a rare character outside the basic plane is two.

    Within the mainland a letter counts as much as a character, so English is no cheaper, and the signature is Chinese.
    """
    units = len(text.encode("utf-16-le")) // 2
    return 1 if units <= ONE else -(-units // EACH)


def parts_abroad(text: str) -> int:
    """What it would be for a phone abroad, without a Chinese signature: 160 of the GSM's letters, then 153 each."""
    if not set(text) <= _GSM | _GSM_TWICE:
        return parts(text)
    places = len(text) + sum(character in _GSM_TWICE for character in text)
    return 1 if places <= ONE_ABROAD else -(-places // EACH_ABROAD)
