"""Copies of payment's database as it was, and the way back to them."""

from __future__ import annotations

from datetime import timedelta

from deploy.local.databases import DatabaseLogin
from deploy.replay.engine import replay
from deploy.replay.history import Said, read_log
from deploy.replay.order import Step
from deploy.replay.reactions import Recorded
from services.chassis.db import Database
from services.payment.repository import recoveries
from tests.service.payment.system import System
from tests.support.postgres import TestDatabases


class Backups:
    """What a backup and `kaowu restore` do, for this one service."""

    def __init__(self, system: System, databases: TestDatabases) -> None:
        self._system, self._databases = system, databases
        self._made: list[DatabaseLogin] = []
        self.asked: list[str] = []
        """Orders that the gateway was queried about since the last restore."""

    async def take(self) -> DatabaseLogin:
        return await self._copy(self._database_now)

    async def restore(self, backup: DatabaseLogin, *, caught_up: bool = False) -> None:
        """The service on that backup. `caught_up`: with what it had said since folded in, as it lies on the topic."""
        said = await self._said() if caught_up else []
        await self._system.end()
        copy = await self._copy(backup.database)
        if said:
            await self._fold(copy, said)
        self._system.settings = self._system.settings.model_copy(update={"database_url": copy.url})
        self._system.start()
        async with self._system.database.unit_of_work() as uow:
            await recoveries.begin(uow, uow.at - timedelta(hours=1))

    async def drop(self) -> None:
        await self._system.database.dispose()
        for login in self._made:
            await self._databases.drop(login)

    @property
    def _database_now(self) -> str:
        return DatabaseLogin.of(self._system.settings.database_url).database

    async def _copy(self, source: str) -> DatabaseLogin:
        await self._system.database.dispose()
        name = f"payment_restored_{len(self._made)}_{id(self)}"
        self._made.append(await self._databases.server.make_database(name, owner="payment", template=source))
        return self._made[-1]

    async def _said(self) -> list[Said]:
        async with self._databases.server.connection(self._database_now) as connection:
            return await read_log(connection)

    async def _fold(self, copy: DatabaseLogin, said: list[Said]) -> None:
        database = Database(copy.url, clock=Recorded(said[0].occurred_at), pool_size=2)
        steps = [Step(one.occurred_at, 0, True, one) for one in said]
        await replay(database, "payment", self._system.cycle, steps, book=False)
        await database.dispose()
