"""Where a mail returns to: an address of its own for each (VERP), which names the message and which only we can make.

Whoever was written to knows theirs, and can so deny having got that one mail; nobody else's.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from hashlib import sha256
from typing import Final
from uuid import UUID

SHORTEST_KEY: Final = 16
_MAC: Final = 10  # bytes: 80 bits, and no answer ever tells whether a guess was right
_LONGEST_LOCAL_PART: Final = 64
_TOKEN: Final = 42  # characters that 26 bytes take, without the padding


class Forged(Exception):
    """An address of the right form that we never made."""


class ReturnPath:
    """`address`: the mailbox that bounces reach, `bounce@office.example.cn`; a mail's own is `bounce+<token>@…`."""

    def __init__(self, address: str, key: bytes) -> None:
        self.address = address
        self._local, _, self.domain = address.rpartition("@")
        if len(self._local) + 1 + _TOKEN > _LONGEST_LOCAL_PART:
            raise ValueError(f"longer than {_LONGEST_LOCAL_PART - 1 - _TOKEN} characters before the @")
        self._key = key
        self._pattern = re.compile(
            rf"{re.escape(self._local)}\+[^\s<>@,;:\"]{{0,64}}@{re.escape(self.domain)}", re.IGNORECASE
        )

    def of(self, message_id: UUID) -> str:
        """The address that a bounce of this message comes to. In small letters: some servers change their case."""
        token = base64.b32encode(message_id.bytes + self._mac(message_id.bytes)).rstrip(b"=").decode().lower()
        return f"{self._local}+{token}@{self.domain}"

    def addresses_in(self, header: str) -> list[str]:
        """What looks like an address of ours in a header's value."""
        return self._pattern.findall(header)

    def message_of(self, address: str) -> UUID | None:
        """Which message's address this is; None: it is another mailbox's, or the bare one. Raises Forged."""
        local, _, domain = address.strip().lower().rpartition("@")
        base, plus, token = local.partition("+")
        if domain != self.domain.lower() or base != self._local.lower() or not plus:
            return None
        try:
            content = base64.b32decode(token.upper() + "=" * (-len(token) % 8))
        except (binascii.Error, ValueError):
            raise Forged from None
        if len(token) != _TOKEN or not hmac.compare_digest(self._mac(content[:16]), content[16:]):
            raise Forged
        return UUID(bytes=content[:16])

    def _mac(self, content: bytes) -> bytes:
        return hmac.new(self._key, content, sha256).digest()[:_MAC]
