"""How many messages a text is for a carrier that counts characters."""

from __future__ import annotations

from typing import Final

ONE: Final = 70
EACH: Final = 67  # a longer text is cut into parts of this length


def parts(text: str) -> int:
    """Number of parts. UTF-16 units are what is counted: a rare character outside the basic plane is two."""
    units = len(text.encode("utf-16-le")) // 2
    return 1 if units <= ONE else -(-units // EACH)
