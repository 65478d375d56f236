"""Databases on a PostgreSQL server: one per service, with a login role of its own, closed to every other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import asyncpg

from deploy.local.processes import NotOurs, StartFailed

SUPERUSER = "postgres"


@dataclass(frozen=True, slots=True)
class DatabaseLogin:
    """How one role reaches one database."""

    host: str
    port: int
    database: str
    role: str
    password: str

    @property
    def dsn(self) -> str:
        """As asyncpg reads it."""
        account = f"{quote(self.role, safe='')}:{quote(self.password, safe='')}"
        return f"postgresql://{account}@{self.host}:{self.port}/{self.database}"

    @property
    def url(self) -> str:
        """As SQLAlchemy reads it."""
        return self.dsn.replace("postgresql://", "postgresql+asyncpg://", 1)

    @classmethod
    def of(cls, url: str) -> DatabaseLogin:
        """From a URL of either form. Raises ValueError."""
        parts = urlsplit(url)
        if not parts.scheme.startswith("postgres") or not parts.hostname or not parts.username:
            raise ValueError("a database URL reads postgresql://role:password@host:port/database")
        return cls(
            parts.hostname,
            parts.port or 5432,
            parts.path.lstrip("/") or "postgres",
            unquote(parts.username),
            unquote(parts.password or ""),
        )


class ServerDatabases:
    """What we do on a server that lets us make roles and databases. Passwords are kept in `directory`."""

    rung = "given"

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.port = 0
        self.passwords: dict[str, str] = {}
        self._passwords_file = self.directory / "passwords.json"

    @property
    def administrator(self) -> DatabaseLogin:
        return self.login("postgres", SUPERUSER)

    def login(self, database: str, role: str) -> DatabaseLogin:
        return DatabaseLogin("127.0.0.1", self.port, database, role, self.passwords[role])

    async def prepare(self, services: Sequence[str]) -> dict[str, str]:
        """A database and a role per service; their URLs. What is there already stays as it is."""
        urls = {}
        for service in services:
            await self.make_role(service)
            urls[service] = (await self.make_database(service, owner=service)).url
        return urls

    async def make_role(self, role: str) -> None:
        """A login that can do nothing yet; its password is made once and kept."""
        self.passwords.setdefault(role, secrets.token_urlsafe(24))
        self.write_passwords()
        async with self.connection() as connection:
            exists = await connection.fetchval("select 1 from pg_roles where rolname = $1", role)
            verb = "alter" if exists else "create"
            await connection.execute(
                f"{verb} role {role} login nosuperuser nocreatedb nocreaterole password '{self.passwords[role]}'"
            )

    async def make_database(self, database: str, *, owner: str, template: str | None = None) -> DatabaseLogin:
        """A database only its owner may enter; an existing one is left as it is."""
        async with self.connection() as connection:
            if not await connection.fetchval("select 1 from pg_database where datname = $1", database):
                source = f" template {template} strategy wal_log" if template else ""
                await connection.execute(f"create database {database} owner {owner}{source}")
            await connection.execute(f"revoke all on database {database} from public")
        return self.login(database, owner)

    async def drop_database(self, database: str) -> None:
        async with self.connection() as connection:
            await connection.execute(f"drop database if exists {database} with (force)")

    async def has_database(self, database: str) -> bool:
        async with self.connection() as connection:
            return bool(await connection.fetchval("select 1 from pg_database where datname = $1", database))

    @contextlib.asynccontextmanager
    async def connection(self, database: str = "") -> AsyncIterator[Any]:
        """A connection of the administrator, by default to his own database."""
        login = self.administrator
        if database:
            login = DatabaseLogin(login.host, login.port, database, login.role, login.password)
        connection = await asyncpg.connect(login.dsn, timeout=10)
        try:
            yield connection
        finally:
            await connection.close()

    def write_passwords(self) -> None:
        self._passwords_file.touch(mode=0o600)
        self._passwords_file.write_text(json.dumps(self.passwords))

    def read_passwords(self) -> None:
        if self._passwords_file.exists():
            self.passwords = json.loads(self._passwords_file.read_text())


class GivenServer(ServerDatabases):
    """A server that somebody else runs, where DATABASE_URL lets us make roles and databases."""

    def __init__(self, directory: Path, url: str) -> None:
        super().__init__(directory)
        self._administrator = DatabaseLogin.of(url)
        self.port = self._administrator.port

    @property
    def administrator(self) -> DatabaseLogin:
        return self._administrator

    @property
    def description(self) -> str:
        return f"PostgreSQL at {self._administrator.host}:{self.port} (DATABASE_URL)"

    def login(self, database: str, role: str) -> DatabaseLogin:
        return DatabaseLogin(self._administrator.host, self.port, database, role, self.passwords[role])

    async def prepare(self, services: Sequence[str]) -> dict[str, str]:
        """Names of their own per data directory, because others may use the server too."""
        return {
            service: (await self._prepare_one(f"kaowu_{self._mark()}_{service}")).url for service in services
        }

    async def _prepare_one(self, name: str) -> DatabaseLogin:
        await self.make_role(name)
        async with self.connection() as connection:
            # Where the administrator is not a superuser, only a member of a role may give it a database.
            await connection.execute(f"grant {name} to current_user")
        return await self.make_database(name, owner=name)

    def _mark(self) -> str:
        mark = self.directory / "mark"
        if not mark.exists():
            mark.write_text(secrets.token_hex(4))
        return mark.read_text()

    async def start(self, *, timeout: float = 30.0) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.read_passwords()
        deadline = time.monotonic() + timeout
        while True:
            try:
                async with self.connection():
                    return
            except (OSError, TimeoutError, asyncpg.PostgresError) as error:
                if time.monotonic() > deadline:
                    raise StartFailed(
                        f"{self.description} cannot be reached ({type(error).__name__}); check the URL, or unset "
                        "DATABASE_URL to let the local system start a server of its own"
                    ) from None
                await asyncio.sleep(0.5)

    async def stop(self) -> None:
        """It is not ours to stop."""

    async def restart(self) -> None:
        raise NotOurs(f"{self.description} is given: it can only be restarted by whoever runs it")


class GivenDatabases:
    """One URL per service, each made by somebody else."""

    rung = "given"
    description = "PostgreSQL as <SERVICE>_DATABASE_URL says"

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = {service: DatabaseLogin.of(url).url for service, url in urls.items()}

    async def start(self, *, timeout: float = 30.0) -> None:
        for service, url in self._urls.items():
            try:
                connection = await asyncpg.connect(DatabaseLogin.of(url).dsn, timeout=timeout)
            except (OSError, TimeoutError, asyncpg.PostgresError) as error:
                raise StartFailed(
                    f"the database in {service.upper()}_DATABASE_URL cannot be reached ({type(error).__name__})"
                ) from None
            await connection.close()

    async def prepare(self, services: Sequence[str]) -> dict[str, str]:
        return {service: self._urls[service] for service in services}

    async def stop(self) -> None:
        """They are not ours to stop."""

    async def restart(self) -> None:
        raise NotOurs(f"{self.description}: it can only be restarted by whoever runs it")
