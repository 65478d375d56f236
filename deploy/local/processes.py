"""Child processes that never outlive the system that started them.

Every child leads a process group of its own (a Ctrl-C in the terminal reaches only us, so that we can stop
things in order) and asks the kernel for a signal when we die, so that even SIGKILL leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1

# Loaded here and not in the child: after fork() the child may do nothing that takes a lock.
try:
    _LIBC: ctypes.CDLL | None = ctypes.CDLL(None, use_errno=True) if hasattr(os, "fork") else None
    _PRCTL: Callable[..., int] | None = getattr(_LIBC, "prctl", None)
except OSError:
    _PRCTL = None


class StartFailed(Exception):
    """Something that was started did not come up. The message ends with what it last wrote."""


class NotOurs(Exception):
    """Asked to stop or restart something that somebody else runs."""


_handed_out: set[int] = set()
# Below the range from which the kernel takes ports for outgoing connections: a port that is free now stays free
# until its process binds it.
_PORTS = range(20_000, 32_000)
# What is free now is bound seconds later. Processes that look at the same time look at different ports first.
_APART = 24


def free_port(preferred: int | None = None) -> int:
    """A TCP port nobody listens on at this moment: the preferred one if it can be had, else any."""
    own = _PORTS[os.getpid() % _APART :: _APART]
    candidates = itertools.chain(
        [preferred] if preferred else [], random.sample(own, 200), random.sample(_PORTS, 200)
    )
    for candidate in candidates:
        if candidate in _handed_out and candidate != preferred:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
        _handed_out.add(candidate)
        return candidate
    raise StartFailed("no free TCP port on 127.0.0.1 between 20000 and 32000")


class Child:
    """One process we started: its log, its group, its orderly end."""

    def __init__(self, name: str, log: Path, *, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        self.name = name
        self.log = log
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def start(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        account: tuple[int, int] | None = None,
    ) -> None:
        """Call it from the main thread: the kernel's death signal belongs to the thread that forked.

        `account`: user and group ids to run under, when we are root and the program refuses to be.
        """
        if self.alive:
            raise StartFailed(f"{self.name} is already running with pid {self.pid}")
        death_signal = int(self._stop_signal)
        user, group = account or (None, None)

        def die_with_parent() -> None:
            if _PRCTL is not None:
                _PRCTL(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)

        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            try:
                self._process = subprocess.Popen(
                    [str(part) for part in command],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=dict(env) if env is not None else None,
                    cwd=cwd,
                    user=user,
                    group=group,
                    extra_groups=[] if user is not None else None,
                    start_new_session=True,
                    preexec_fn=die_with_parent,  # noqa: PLW1509  one prctl on a handle loaded before the fork
                )
            except OSError as error:
                raise StartFailed(f"{self.name} cannot be started: {error}") from error

    def signal(self, number: signal.Signals) -> None:
        """To the whole group, so that grandchildren are frozen and killed with their parent."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def finish(self, *, timeout: float, what: str) -> None:
        """Wait for a tool to do its work; anything but success is a failure that shows its log."""
        await self._gone(timeout)
        if self.exit_code != 0:
            failure = self.failure(what)
            await self.kill()
            raise failure

    async def stop(self, patience: float = 10.0) -> None:
        """Ask, wait a bounded time, insist. Returns when the process is gone."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                # The leader alone is asked: it ends its own workers in its own order (PostgreSQL's backends).
                os.kill(process.pid, signal.SIGCONT)
                os.kill(process.pid, self._stop_signal)
            await self._gone(patience)
        self._kill_group(process.pid)
        await self._gone(5.0)

    async def kill(self) -> None:
        """SIGKILL, as a crash does it; also sweeps what is left of the group."""
        if self._process is not None:
            self._kill_group(self._process.pid)
            await self._gone(5.0)

    @staticmethod
    def _kill_group(group: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)

    async def _gone(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        while self.alive and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    def tail(self, lines: int = 20) -> str:
        """What it last wrote, for a message that a person reads."""
        try:
            text = self.log.read_bytes()[-16_384:].decode("utf-8", "replace")
        except FileNotFoundError:
            return "(no log was written)"
        return "\n".join(text.splitlines()[-lines:]) or "(its log is empty)"

    def failure(self, what: str) -> StartFailed:
        state = f"ended with exit code {self.exit_code}" if not self.alive else "is still running"
        return StartFailed(f"{self.name} {what}: the process {state}. Log {self.log}:\n{self.tail()}")


async def wait_for_port(child: Child, port: int, *, timeout: float) -> None:
    """Until something accepts connections there, the child dies, or the time is over."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if not child.alive:
                raise child.failure("did not start") from None
            if time.monotonic() > deadline:
                raise child.failure(f"does not listen on port {port} after {timeout:.0f} s") from None
            await asyncio.sleep(0.05)
        else:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return
