"""Keys of the local system, made once per data directory: who may mint tokens, and what personal data is kept under.

They are marked as local (`local-` key ids), and a service outside the local system refuses to start on them.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import OKPKey

from services.chassis.tokens import ALGORITHM, ISSUER
from services.chassis.vault import LOCAL_PREFIX, write_keys

TOKEN_KEY_ID = f"{LOCAL_PREFIX}tokens-1"
_PRIVATE = "tokens-private.json"
_PUBLIC = "tokens-public.json"
LIFETIME = timedelta(days=400)


class NoKeys(Exception):
    """There is no local system in this directory."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Mints bearer tokens that the services of one local system accept."""

    key: OKPKey

    @classmethod
    def of(cls, keys: Path) -> Tokens:
        """The minting key of a local system that was started once."""
        try:
            return cls(OKPKey.import_key(json.loads((keys / _PRIVATE).read_text())))
        except FileNotFoundError:
            raise NoKeys(
                f"no local system in {keys.parent}: start one with `kaowu up --data {keys.parent}`"
            ) from None

    def mint(
        self, roles: Sequence[str] | str, subject: str, *, at: datetime, lifetime: timedelta = LIFETIME
    ) -> str:
        """A token for this subject with these roles, accepted until `at` + `lifetime`."""
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "roles": [roles] if isinstance(roles, str) else list(roles),
            "exp": int((at + lifetime).timestamp()),
        }
        header = {"alg": ALGORITHM, "kid": TOKEN_KEY_ID}
        return jwt.encode(header, claims, self.key, algorithms=[ALGORITHM])


@dataclass(frozen=True, slots=True)
class LocalKeys:
    """The key files of one local system."""

    directory: Path

    @classmethod
    def of(cls, directory: Path, services: Sequence[str]) -> LocalKeys:
        """Read what is there, make what is missing."""
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        if not (directory / _PRIVATE).exists():
            key = OKPKey.generate_key("Ed25519", {"kid": TOKEN_KEY_ID, "use": "sig"})
            public = {"keys": [key.as_dict(private=False)]}
            (directory / _PUBLIC).write_text(json.dumps(public), encoding="utf-8")
            write_private(directory / _PRIVATE, json.dumps(key.as_dict(private=True)))
        keys = cls(directory)
        for service in services:
            if not keys.vault_file(service).exists():
                write_keys(keys.vault_file(service), prefix=LOCAL_PREFIX)
        return keys

    @property
    def token_keys_file(self) -> Path:
        return self.directory / _PUBLIC

    def vault_file(self, service: str) -> Path:
        """Each service has keys of its own: a leak of one opens nothing of another."""
        return self.directory / f"vault-{service}.json"

    def service_token_file(self, service: str, *, at: datetime) -> Path:
        """A token with which this service speaks to the internal routes of others; new with every start."""
        path = self.directory / f"service-{service}.token"
        write_private(path, self.tokens.mint("service", f"service-{service}", at=at, lifetime=10 * LIFETIME))
        return path

    @property
    def receipts_secret_file(self) -> Path:
        """The unguessable part of the address that delivery receipts come to."""
        path = self.directory / "receipts-secret"
        if not path.exists():
            write_private(path, secrets.token_urlsafe(24))
        return path

    @property
    def receipts_secret(self) -> str:
        return self.receipts_secret_file.read_text(encoding="utf-8")

    @property
    def tokens(self) -> Tokens:
        return Tokens.of(self.directory)


def write_private(path: Path, content: str) -> None:
    """Readable by its owner only, whole or not at all."""
    scratch = path.with_name(path.name + ".new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    scratch.replace(path)
