"""A migrated database beside a service's live one: made for a comparison, dropped after it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from deploy.local.databases import DatabaseLogin
from deploy.replay.standing import Standing
from services.chassis import migrations

PREFIX: Final = "kaowu_replay_"


class NotScratch(AssertionError):
    """Something was about to be made or dropped that is not a scratch database."""


def require_scratch(name: str, place: Standing) -> None:
    """Raises NotScratch unless this is a scratch database's name and no service's own."""
    if not name.startswith(PREFIX) or name in {place.database_of(service) for service in place.databases}:
        raise NotScratch(f"{name} is not a database of a replay's")


@asynccontextmanager
async def scratch(place: Standing, service: str) -> AsyncIterator[str]:
    """The URL of an empty database at this version's tables, owned by the service's role."""
    name = f"{PREFIX}{service}_{secrets.token_hex(4)}"
    require_scratch(name, place)
    role = DatabaseLogin.of(place.databases[service]).role
    try:
        url = (await place.server.make_database(name, owner=role)).url
        async with place.server.connection(name) as connection:
            require_scratch(await connection.fetchval("select current_database()"), place)
            # It is thrown away: nobody waits for its disk.
            await connection.execute(f"alter database {name} set synchronous_commit = off")
        await migrations.upgrade(url, service)
        yield url
    finally:
        require_scratch(name, place)
        await place.server.drop_database(name)
