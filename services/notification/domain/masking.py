"""How much of an address is shown to whoever does not act on the person."""

from __future__ import annotations


def masked(address: str | None) -> str | None:
    """139****1234, z***@example.cn: enough to tell two of them apart."""
    if not address:
        return None
    mailbox, at, domain = address.rpartition("@")
    return f"{mailbox[:1]}***@{domain}" if at else f"{address[:3]}****{address[-4:]}"
