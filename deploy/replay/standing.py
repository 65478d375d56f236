"""Where a local system is: as it runs, or what it stands on, started for a look and stopped again."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.cycle import Cycle
from deploy.local.data_directory import DataDirectory, InUse, Mismatch
from deploy.local.databases import DatabaseLogin, ServerDatabases
from deploy.local.environment import SERVICES
from deploy.local.foundations import Foundations


class CannotLook(Exception):
    """Why this system cannot be looked at, and what to do."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The databases and the broker of one local system."""

    data: Path
    cycle: Cycle
    server: ServerDatabases
    databases: Mapping[str, str]
    bootstrap: str
    running: bool
    state: Mapping[str, Any]

    def database_of(self, service: str) -> str:
        """The name of a service's database on the server."""
        return DatabaseLogin.of(self.databases[service]).database


@asynccontextmanager
async def standing(
    data: Path, *, say: Callable[[str], None] = lambda _: None, stopped: bool = False
) -> AsyncIterator[Standing]:
    """The system in this directory. `stopped`: only if nobody runs it. Raises CannotLook, InUse, Mismatch."""
    directory = DataDirectory(data)
    state = directory.state()
    if not state:
        raise Mismatch(f"no local system in {data}: start one with `kaowu up` or `kaowu rehearse`")
    cycle = Cycle.read(Path(state["cycle_file"]))
    try:
        left = directory.hold()
    except InUse:
        if stopped:
            raise
        yield _running(directory.path, cycle, state)
        return
    for one in left:
        say(f"ended {one.name} (process {one.pid}), left over by a system that died")
    foundations = Foundations(directory.path, os.environ, say=say, started=directory.started)
    try:
        (directory.path / "logs").mkdir(exist_ok=True)
        databases = await foundations.start(SERVICES)
        server = foundations.databases
        if not isinstance(server, ServerDatabases):
            raise CannotLook("each service's database is somebody else's: see docs/runbooks/restore.md")
        yield Standing(
            directory.path, cycle, server, databases, foundations.broker.bootstrap, running=False, state=state
        )
    finally:
        await foundations.stop()
        directory.let_go()


def _running(data: Path, cycle: Cycle, state: Mapping[str, Any]) -> Standing:
    pid_file = data / "postgres" / "cluster" / "postmaster.pid"
    if not pid_file.exists():
        raise CannotLook("this system stands on a PostgreSQL of somebody else: stop it, and look again")
    server = ServerDatabases(data / "postgres")
    server.port = int(pid_file.read_text(encoding="utf-8").splitlines()[3])
    server.read_passwords()
    databases = {service: server.login(service, service).url for service in SERVICES}
    return Standing(data, cycle, server, databases, str(state["kafka"]), running=True, state=state)
