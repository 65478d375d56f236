"""The tree whose root a close publishes, so that nobody can add or take away a forfeiture afterwards."""

from __future__ import annotations

from hashlib import sha256


class ProofTree:
    """The Merkle tree over the proofs of one close, built leaf by leaf without keeping them (RFC 6962's shape)."""

    def __init__(self) -> None:
        self.leaves = 0
        self._peaks: list[tuple[int, bytes]] = []  # perfect subtrees from left to right: (leaves, hash)

    def add(self, leaf: bytes) -> None:
        """The next leaf, in the order of registration ids; it is a hash already (see `repository.closing`)."""
        self.leaves += 1
        size, right = 1, leaf
        while self._peaks and self._peaks[-1][0] == size:
            _, left = self._peaks.pop()
            size, right = size * 2, _node(left, right)
        self._peaks.append((size, right))

    def root(self) -> bytes:
        """What the close publishes. Of no leaves: the hash of nothing."""
        if not self._peaks:
            return sha256(b"").digest()
        *others, (_, root) = self._peaks
        for _, left in reversed(others):
            root = _node(left, root)
        return root


def _node(left: bytes, right: bytes) -> bytes:
    # The first byte keeps an inner node from ever being taken for a leaf, which begins with 0.
    return sha256(b"\x01" + left + right).digest()
