"""Personal data at rest: AES-256-GCM for what must be read again, HMAC-SHA-256 for what must be found again.

A stored value is `version (1) · key id length (1) · key id · nonce (12) · ciphertext and tag`; the row's id is
associated data, so a value moved to another row does not open. Look-up uses another key: a blind index of
full length, because it also enforces uniqueness. Keys come from a file with mode 0600, never from the environment:

    {"encryption": {"current": "2026-1", "keys": {"2026-1": "<32 bytes, base64>"}},
     "index":      {"current": "2026-i", "keys": {"2026-i": "<32 bytes, base64>"}}}
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

LOCAL_PREFIX: Final = "local-"  # keys that deploy.local makes; a real system refuses to start on them
_VERSION: Final = 1
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class VaultError(Exception):
    """Keys that cannot be used, or a value that does not open. Never carries the value."""


class Vault:
    """Encrypts, decrypts and indexes. One per service, opened once."""

    def __init__(
        self,
        encryption: Mapping[str, bytes],
        current: str,
        index_keys: Mapping[str, bytes],
        index_current: str,
    ) -> None:
        self._current = current
        self._ciphers = {name: AESGCM(key) for name, key in encryption.items()}
        self._index_key = index_keys[index_current]
        self._prefix = bytes([_VERSION, len(current.encode())]) + current.encode()

    @classmethod
    def open(cls, path: Path, environment: str) -> Self:
        """Read the keys. Raises VaultError when the file is missing, open to others, wrong, or the
        local system's outside of it.
        """
        try:
            mode = path.stat().st_mode
            content = json.loads(path.read_text())
        except FileNotFoundError:
            raise VaultError(
                f"no vault keys at {path}: create the file, see services/chassis/vault.py"
            ) from None
        except (OSError, ValueError) as error:
            raise VaultError(f"vault keys at {path} cannot be read: {type(error).__name__}") from None
        if mode & 0o077:
            raise VaultError(f"vault keys at {path} are open to others (mode {mode & 0o777:04o}): chmod 600")
        try:
            encryption, current = _keys(content["encryption"])
            index, index_current = _keys(content["index"])
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise VaultError(f"vault keys at {path} have the wrong shape ({type(error).__name__})") from None
        if environment != "local" and any(name.startswith(LOCAL_PREFIX) for name in (*encryption, *index)):
            raise VaultError(
                f"vault keys at {path} are the local system's defaults: a real system needs its own"
            )
        if set(encryption.values()) & set(index.values()):
            raise VaultError(f"vault keys at {path}: index and encryption must not share a key")
        return cls(encryption, current, index, index_current)

    def encrypt(self, plain: bytes | str, *, row: str) -> bytes:
        """The stored form of `plain` for the row with this id."""
        data = plain.encode() if isinstance(plain, str) else plain
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return self._prefix + nonce + self._ciphers[self._current].encrypt(nonce, data, row.encode())

    def decrypt(self, stored: bytes, *, row: str) -> bytes:
        """What was encrypted for this row. Raises VaultError for another row, an unknown key, an altered value."""
        try:
            if stored[0] != _VERSION:
                raise VaultError(f"stored value of version {stored[0]}: this service knows {_VERSION}")
            start = 2 + stored[1]
            cipher = self._ciphers[stored[2:start].decode()]
            nonce, body = stored[start : start + _NONCE_BYTES], stored[start + _NONCE_BYTES :]
            return cipher.decrypt(nonce, body, row.encode())
        except (InvalidTag, KeyError, IndexError, UnicodeDecodeError, ValueError) as error:
            raise VaultError(f"a stored value does not open ({type(error).__name__})") from None

    def decrypt_text(self, stored: bytes, *, row: str) -> str:
        """The same, as text."""
        return self.decrypt(stored, row=row).decode()

    def index(self, value: str, *, purpose: str) -> bytes:
        """32 bytes that are equal for equal values of one purpose, and say nothing without the key."""
        return hmac.new(self._index_key, f"{purpose}\0{value}".encode(), hashlib.sha256).digest()


def _keys(part: Mapping[str, object]) -> tuple[dict[str, bytes], str]:
    stored = part["keys"]
    if not isinstance(stored, dict):
        raise TypeError("keys")
    keys = {str(name): base64.b64decode(str(value), validate=True) for name, value in stored.items()}
    if any(len(key) != _KEY_BYTES for key in keys.values()) or any(
        not 0 < len(n.encode()) < 256 for n in keys
    ):
        raise ValueError("key length")
    current = str(part["current"])
    if current not in keys:
        raise KeyError(current)
    return keys, current


def write_keys(path: Path, prefix: str = "") -> None:
    """Make a new file of keys, readable by its owner only. `prefix` marks the local system's."""
    content = {
        part: {
            "current": f"{prefix}{part}-1",
            "keys": {f"{prefix}{part}-1": base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()},
        }
        for part in ("encryption", "index")
    }
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
