"""Who is asking: signed bearer tokens, verified against public keys. No service can mint one.

Claims: `sub` (an opaque account), `roles` (list), `iss` = kaowu, `exp`. Ed25519 only, so no other algorithm can be
talked in. A role is a word, or a word and what it is limited to: `office`, `desk:shizhong`, `candidate:<registration id>`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

ISSUER: Final = "kaowu"
ALGORITHM: Final = "Ed25519"
_REMEMBERED: Final = 20_000


class Unauthenticated(Exception):
    """No token, or one that says nothing here. The text is for operators and never holds the token."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who was recognised. `kind` is all of them that may leave the service."""

    subject: str
    roles: frozenset[str]

    @property
    def kind(self) -> str:
        """candidate, desk, reviewer, office, ops or service."""
        return next((role.partition(":")[0] for role in sorted(self.roles)), "nobody")


class TokenVerifier:
    """Verifies tokens with the public keys of a JWKS file. Verified ones are remembered until they expire."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys
        self._known: dict[str, tuple[Actor, float]] = {}

    @classmethod
    def open(cls, path: Path) -> TokenVerifier:
        """Read the keys. Raises ValueError that says what is wrong with the file."""
        try:
            return cls(KeySet.import_key_set(json.loads(path.read_text())))
        except (OSError, ValueError, KeyError, TypeError, JoseError) as error:
            raise ValueError(f"token keys at {path} cannot be read: {type(error).__name__}") from None

    def verify(self, token: str, at: datetime) -> Actor:
        """The actor of a token that is valid at this moment. Raises Unauthenticated."""
        known = self._known.get(token)
        if known is None:
            known = self._decode(token)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[token] = known
        actor, expires = known
        if at.timestamp() >= expires:
            self._known.pop(token, None)
            raise Unauthenticated("token expired")
        return actor

    def _decode(self, token: str) -> tuple[Actor, float]:
        try:
            claims: dict[str, Any] = jwt.decode(token, self._keys, algorithms=[ALGORITHM]).claims
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise Unauthenticated(f"token does not verify: {type(error).__name__}") from None
        roles, expires, subject = claims.get("roles"), claims.get("exp"), claims.get("sub")
        if claims.get("iss") != ISSUER or not isinstance(roles, list) or not isinstance(subject, str):
            raise Unauthenticated("token lacks iss, sub or roles")
        if not isinstance(expires, int | float):
            raise Unauthenticated("token never expires")
        return Actor(subject, frozenset(str(role) for role in roles)), float(expires)
