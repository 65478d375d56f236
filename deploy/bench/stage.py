"""Where it is measured: one real broker and one real PostgreSQL of our own, both as durable as in production."""

from __future__ import annotations

import asyncio
import itertools
import os
import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from aiokafka.admin import AIOKafkaAdminClient

from contracts.topics import TOPICS
from deploy.bench.contender import Contender
from deploy.local.databases import DatabaseLogin
from deploy.local.kafka import LocalKafka
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.topics import make_topics
from services.chassis import migrations

# The local rung is made small for a laptop with a system beside it. Here commits are flushed to the disk, the server may use
# the memory that a server would, and keeps its segments of the log, as one that has run for a while does: to make one anew
# holds up every commit for up to half a second.
POSTGRES_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "2GB",
    "min_wal_size": "4GB",
    "max_wal_size": "4GB",
    "wal_buffers": "16MB",
}
_SEGMENTS = 256  # of 16 MB


@dataclass
class Stage:
    """What is running, and what every measurement needs of it."""

    directory: Path
    kafka: LocalKafka
    postgres: EmbeddedPostgres
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _templates: dict[str, str] = field(default_factory=dict)

    @property
    def bootstrap(self) -> str:
        return self.kafka.bootstrap

    def number(self) -> int:
        """One that nothing else here has."""
        return next(self._numbers)

    async def migrated(self, service: str) -> DatabaseLogin:
        """A database of this service, made by its own migrations."""
        if service not in self._templates:
            await self.postgres.make_role(service)
            name = f"{service}_template"
            login = await self.postgres.make_database(name, owner=service)
            await migrations.upgrade(login.url, service)
            self._templates[service] = name
        return await self.copy(self._templates[service], service)

    async def filled(
        self, name: str, owner: str, fill: Callable[[], Awaitable[DatabaseLogin]]
    ) -> DatabaseLogin:
        """A database that takes long to fill, and that several parts of a run begin with: filled once, then copied."""
        if name not in self._templates:
            self._templates[name] = (await fill()).database
        return await self.copy(self._templates[name], owner)

    async def copy(self, database: str, owner: str) -> DatabaseLogin:
        """One of its own with the same contents."""
        return await self.postgres.make_database(f"{owner}_{self.number()}", owner=owner, template=database)

    async def drop(self, *logins: DatabaseLogin) -> None:
        for login in logins:
            await self.postgres.drop_database(login.database)

    async def fresh_topics(self) -> None:
        """All topics of the contracts, empty."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            old = sorted(set(await admin.list_topics()) & set(TOPICS))
            if old:
                await admin.delete_topics(old)
            while set(old) & set(await admin.list_topics()):
                await asyncio.sleep(0.05)
        finally:
            await admin.close()
        await make_topics(self.bootstrap)

    async def keep_log(self) -> None:
        """All segments of its log are there to be written over, as in a server that has run for a while."""
        async with self.postgres.connection() as connection:
            for _ in range(_SEGMENTS):
                await connection.execute(
                    "select pg_logical_emit_message(false, 'bench', ''); select pg_switch_wal()"
                )
            await connection.execute("checkpoint")

    async def settle(self) -> None:
        """Write out what the last measurement left, so that the next one does not pay for it."""
        async with self.postgres.connection() as connection:
            await connection.execute("checkpoint")
        await asyncio.sleep(0.3)

    def contender(
        self, name: str, program: str | Path, *, python: Path | None = None, **task: object
    ) -> Contender:
        log = self.directory / "logs" / f"{self.number():03d}-{name}.log"
        return Contender(name, program, {"bootstrap": self.bootstrap, **task}, log, python=python)

    def cpu(self, *more: int) -> float:
        """Seconds of processor time so far of broker, PostgreSQL and these processes."""
        pids = [self.kafka.process.pid, self.postgres.process.pid, *more]
        return sum(tree_cpu(pid) for pid in pids if pid is not None)


def tree_cpu(pid: int) -> float:
    """Of a process, of what it started and of what it has buried."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    spent = 0.0
    for each in family:
        try:
            spent += sum(each.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return spent


@asynccontextmanager
async def standing(directory: Path) -> AsyncIterator[Stage]:
    """Kafka and PostgreSQL, started for this block."""
    kafka = LocalKafka(directory / "kafka", log=directory / "logs" / "kafka.log")
    postgres = EmbeddedPostgres(
        directory / "postgres", log=directory / "logs" / "postgres.log", settings=POSTGRES_SETTINGS
    )
    try:
        await asyncio.gather(kafka.start(), postgres.start())
        await make_topics(kafka.bootstrap)
        yield Stage(directory, kafka, postgres)
    finally:
        await asyncio.gather(kafka.stop(), postgres.stop())


def machine() -> str:
    """What a reader must know to read the absolute figures; the ratios need less."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def load() -> float:
    """How busy the machine was in the last minute, by whoever."""
    return os.getloadavg()[0]


def spread(values: Sequence[float]) -> str:
    """The least and the greatest, where the median stands beside it."""
    return f"{min(values):,.4g} … {max(values):,.4g}"
