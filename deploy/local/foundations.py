"""What services stand on: databases that are migrated, a broker with its topics. Chosen, started and stopped together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.local.environment import ROOT, inherited
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.processes import Child, NotOurs
from deploy.local.rungs import Broker, Databases, choose_databases, start_broker
from deploy.local.topics import make_topics


class Foundations:
    """PostgreSQL and Kafka of one local system."""

    def __init__(
        self,
        data: Path,
        environ: Mapping[str, str],
        *,
        say: Callable[[str], None],
        started: Callable[[str, int], None],
        thrown_away: bool = False,
        code: Mapping[str, Path] | None = None,
    ) -> None:
        self._code = code or {}
        self._thrown_away = thrown_away
        self._data = data
        self._environ = environ
        self._say = say
        self._started = started
        self._databases: Databases | None = None
        self._broker: Broker | None = None
        self.rungs: dict[str, dict[str, str]] = {}

    @property
    def broker(self) -> Broker:
        assert self._broker is not None, "the broker was not started"
        return self._broker

    @property
    def databases(self) -> Databases:
        assert self._databases is not None, "the databases were not started"
        return self._databases

    def processes(self) -> dict[str, Child]:
        """Those of them that are processes of ours."""
        parts = {"postgres": self._databases, "kafka": self._broker}
        found = {name: getattr(part, "process", None) for name, part in parts.items()}
        return {name: child for name, child in found.items() if isinstance(child, Child)}

    async def start(self, services: Sequence[str]) -> dict[str, str]:
        """Both at once; the URL of each service's database."""
        urls, _ = await _both(self._start_databases(services), self._start_broker())
        return urls

    async def stop(self) -> None:
        parts = [part for part in (self._broker, self._databases) if part is not None]
        await asyncio.gather(*(part.stop() for part in parts))

    async def restart_database(self, extra: Mapping[str, str] | None = None) -> None:
        """As an operator restarts it: sessions end, committed work stays.

        `extra`: more environment from now on. Raises NotOurs where somebody else runs it.
        """
        if extra is not None:
            if not isinstance(self.databases, EmbeddedPostgres):
                raise NotOurs(f"PostgreSQL is {self.databases.description}: only ours takes an environment")
            self.databases.environment = extra
        await self.databases.restart()
        self._note_process("postgres", self.databases)

    async def kill_database(self) -> None:
        """SIGKILL to all of it, then a start that recovers. Raises NotOurs where somebody else runs it."""
        kill = getattr(self.databases, "kill", None)
        if kill is None:
            raise NotOurs(f"PostgreSQL is {self.databases.description}: only one of ours can be killed")
        await kill()
        await self.databases.start()
        self._note_process("postgres", self.databases)

    async def stop_broker(self) -> None:
        await self.broker.halt()

    async def start_broker(self) -> None:
        await self.broker.start()
        self._note_process("kafka", self.broker)

    async def _start_databases(self, services: Sequence[str]) -> dict[str, str]:
        chosen = await choose_databases(
            self._data / "postgres", services, self._environ, thrown_away=self._thrown_away
        )
        self._databases = chosen.server
        await chosen.server.start()
        self._note("postgres", chosen.server, chosen.reason)
        urls = await chosen.server.prepare(services)
        await self._migrate(urls)
        return urls

    async def _start_broker(self) -> None:
        chosen = await start_broker(self._data / "kafka", self._environ, self._say)
        self._broker = chosen.broker
        self._note("kafka", chosen.broker, chosen.reason)
        if chosen.broker.rung != "last resort":  # that one makes topics by itself and cannot be asked to
            await make_topics(chosen.broker.bootstrap)

    def _note(self, what: str, part: Databases | Broker, reason: str) -> None:
        self.rungs[what] = {"rung": part.rung, "is": part.description, "because": reason}
        self._note_process(what, part)
        self._say(f"{what}: {part.rung} rung: {part.description}, because {reason}")

    def _note_process(self, what: str, part: Databases | Broker) -> None:
        process = getattr(part, "process", None)
        if isinstance(process, Child) and process.pid is not None:
            self._started(what, process.pid)

    async def _migrate(self, urls: Mapping[str, str]) -> None:
        roots = {service: self._code.get(service, ROOT) for service in urls}
        for root in dict.fromkeys(roots.values()):
            await self._migrate_by(root, {name: url for name, url in urls.items() if roots[name] == root})

    async def _migrate_by(self, root: Path, urls: Mapping[str, str]) -> None:
        request = self._data / "databases.json"
        request.touch(mode=0o600)
        request.write_text(json.dumps(dict(urls)), encoding="utf-8")
        child = Child("migrate", self._data / "logs" / "migrate.log")
        try:
            child.start(
                [sys.executable, "-m", "deploy.local.migrate", request],
                cwd=root,
                env=inherited(self._environ),
            )
            await child.finish(timeout=120, what="could not bring the databases to this version")
        finally:
            await child.kill()
            request.unlink()


async def _both(
    first: Coroutine[Any, Any, dict[str, str]], second: Coroutine[Any, Any, None]
) -> tuple[dict[str, str], None]:
    """Side by side; when one fails the other is cancelled and awaited, so that nothing starts behind our back."""
    tasks = (asyncio.create_task(first), asyncio.create_task(second))
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(BaseException):
                await task
