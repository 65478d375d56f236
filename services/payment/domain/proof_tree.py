"""The tree whose root a close publishes, so that nobody can add or take away a forfeiture afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

NO_CLOCKS: Final = "none"


@dataclass(frozen=True, slots=True)
class Clocks:
    """What three clocks said at one moment, as the guard compared them. `virtual`: a rehearsal's rules went by another one."""

    application: datetime
    database: datetime
    broker: datetime
    virtual: bool


def clocks_text(clocks: Clocks | None) -> str:
    """As a proof binds it."""
    if clocks is None:
        return NO_CLOCKS
    said = (f"{at:%Y%m%dT%H%M%S.%fZ}" for at in (clocks.application, clocks.database, clocks.broker))
    return ":".join((*said, "virtual" if clocks.virtual else "real"))


class ProofTree:
    """The Merkle tree over the proofs of one close, built leaf by leaf without keeping them (RFC 6962's shape).

    `follow`: the place of a leaf whose way to the root is wanted: `path` has its siblings from below when the root is made.
    """

    def __init__(self, follow: int | None = None) -> None:
        self.leaves = 0
        self.path: list[bytes] = []
        self._follow = follow
        self._peaks: list[tuple[int, bytes]] = []  # perfect subtrees from left to right: (leaves, hash)

    def add(self, leaf: bytes) -> None:
        """The next leaf, in the order of registration ids; it is a hash already (see `repository.closing`)."""
        self.leaves += 1
        size, right = 1, leaf
        while self._peaks and self._peaks[-1][0] == size:
            _, left = self._peaks.pop()
            self._pass(self.leaves - 2 * size, size, left, right)
            size, right = size * 2, _node(left, right)
        self._peaks.append((size, right))

    def root(self) -> bytes:
        """What the close publishes. Of no leaves: the hash of nothing."""
        if not self._peaks:
            return sha256(b"").digest()
        *others, (width, root) = self._peaks
        for size, left in reversed(others):
            self._pass(self.leaves - width - size, size, left, root)
            root, width = _node(left, root), width + size
        return root

    def _pass(self, start: int, middle: int, left: bytes, right: bytes) -> None:
        """Two subtrees become one, that begins at `start` and whose right half begins `middle` further."""
        if self._follow is not None and start <= self._follow < self.leaves:
            self.path.append(right if self._follow < start + middle else left)


def _node(left: bytes, right: bytes) -> bytes:
    # The first byte keeps an inner node from ever being taken for a leaf, which begins with 0.
    return sha256(b"\x01" + left + right).digest()
