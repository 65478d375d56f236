"""What the services draw by lot, drawn from the seed: otherwise a registration's partition would differ from play to play.

Ids of events and messages stay real (uuid7): nothing is decided by them. Neither is anything by keys and nonces of encryption.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from unittest.mock import patch
from uuid import UUID

from services.registration import handlers as registering


class Ids:
    """In the place of `uuid4` and `secrets` where registrations and their numbers are made."""

    def __init__(self) -> None:
        self._random = random.Random(0)

    def begin(self, seed: int) -> None:
        """The same lots again for the same seed."""
        self._random = random.Random(f"ids of {seed}")

    def uuid4(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)

    def randbelow(self, limit: int) -> int:
        return self._random.randrange(limit)


@contextlib.contextmanager
def drawn_from(ids: Ids) -> Iterator[None]:
    """Services draw from these."""
    with (
        patch.object(registering, "uuid4", ids.uuid4),
        patch.object(registering, "secrets", ids),
    ):
        yield
