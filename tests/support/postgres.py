"""Databases for tests: one embedded server a session, one migrated template a service, one copy a test."""

from __future__ import annotations

import asyncio
import itertools

from deploy.local.databases import DatabaseLogin
from deploy.local.postgres import EmbeddedPostgres
from services.chassis import migrations


class TestDatabases:
    """Hands out databases that only one test sees."""

    __test__ = False

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        self._templates: dict[str, asyncio.Task[str]] = {}
        self._migrating = asyncio.Lock()  # alembic keeps its state in module globals
        self._numbers = itertools.count(1)

    async def blank(self, name: str = "blank") -> DatabaseLogin:
        """An empty database with a role of its own, for tests of the plumbing."""
        role = f"{name}_role"
        await self.server.make_role(role)
        return await self.server.make_database(f"{name}_{next(self._numbers)}", owner=role)

    async def migrated(self, service: str) -> DatabaseLogin:
        """A copy of the service's migrated database, made by its own migrations, owned by its own role."""
        if service not in self._templates:
            self._templates[service] = asyncio.create_task(self._make_template(service))
        template = await self._templates[service]
        return await self.server.make_database(
            f"{service}_{next(self._numbers)}", owner=service, template=template
        )

    async def drop(self, login: DatabaseLogin) -> None:
        await self.server.drop_database(login.database)

    async def _make_template(self, service: str) -> str:
        await self.server.make_role(service)
        login = await self.server.make_database(f"{service}_template", owner=service)
        async with self._migrating:
            await migrations.upgrade(login.url, service)
        return login.database
