"""Databases written to files and read back, by PostgreSQL's own tools."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deploy.backup.archive import CannotBackUp, CannotRestore
from deploy.local.databases import DatabaseLogin
from deploy.local.postgres import VERSION, wheel_directory, wheel_is_installed

_SHOWN: Final = 400  # characters of what a tool complains


async def dump(login: DatabaseLogin, snapshot: str, file: Path) -> None:
    """This database as that snapshot sees it. Raises CannotBackUp."""
    options = ["--format=custom", "--no-owner", "--no-acl", f"--snapshot={snapshot}", f"--file={file}"]
    complaint = await _run("pg_dump", options, login)
    if complaint is not None:
        raise CannotBackUp(f"pg_dump could not write {login.database}: {complaint}")


async def put_back(login: DatabaseLogin, file: Path) -> None:
    """A dump into an empty database, all of it or nothing. Raises CannotRestore."""
    options = ["--no-owner", "--no-acl", "--single-transaction", "--exit-on-error", str(file)]
    complaint = await _run("pg_restore", options, login)
    if complaint is not None:
        raise CannotRestore(f"pg_restore could not read {file.name}: {complaint}")


async def _run(tool: str, options: Sequence[str], login: DatabaseLogin) -> str | None:
    """None, or what it complains about. The password goes by the environment, where no process list shows it."""
    process = await asyncio.create_subprocess_exec(
        _binary(tool),
        f"--host={login.host}",
        f"--port={login.port}",
        f"--username={login.role}",
        "--no-password",
        f"--dbname={login.database}",
        *options,
        env={**os.environ, "PGPASSWORD": login.password, "LC_ALL": "C"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, complaints = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode == 0:
        return None
    # Of a row that does not fit, PostgreSQL shows the row: only what is wrong is passed on.
    lines = [
        line
        for line in complaints.decode("utf-8", "replace").splitlines()
        if "DETAIL" not in line and "CONTEXT" not in line
    ]
    return " / ".join(lines)[:_SHOWN] or f"exit code {process.returncode}"


def _binary(tool: str) -> str:
    """The wheel's own, else the machine's: a tool older than its server refuses."""
    if wheel_is_installed():
        return str(wheel_directory() / f"pginstall{VERSION}" / "bin" / tool)
    found = shutil.which(tool)
    if found is None:
        raise CannotBackUp(
            f"{tool} is not installed: install PostgreSQL's client programs, version {VERSION}"
        )
    return found
