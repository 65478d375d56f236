"""A connection that asks the server for nothing that it was born with.

The driver looks up every type that it has no codec for (all arrays but text's), on every connection anew, and the answer
takes the server longer than connecting: of a pool of sixteen, half a second. What PostgreSQL ships with is the same on every
connection of a process; types that a migration makes are looked up as ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, Final

import asyncpg

# FirstNormalObjectId: PostgreSQL gives lower numbers only to what it ships with.
_FIRST_OF_OURS: Final = 16384
_known: dict[frozenset[int], Any] = {}


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg is published without types
    """As the driver's, but for the types that are known."""

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> tuple[Any, Any]:
        asked = frozenset(typeoids)
        types = _known.get(asked)
        if types is None:
            types, statement = await super()._introspect_types(asked, timeout)
            if all(oid < _FIRST_OF_OURS for oid in asked):
                _known[asked] = types
            return types, statement
        # The driver looks at the name of the statement that was run: none was, so none has to be prepared again.
        return types, SimpleNamespace(name="known")
