"""The directory of one local system: who uses it now, what was left in it, where everything was last."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from contracts.cycle import Cycle

_STATE = "system.json"
_PIDS = "pids.json"
_LOCK = "lock"


def default_directory() -> Path:
    """Where a system lives unless it is told otherwise: kept apart from the checkout, and between starts."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "kaowu"


_LAST = "kaowu-last"  # beside the default directory: the one that a command last started a system in


def remember(directory: Path) -> None:
    """That this is where somebody works now, wherever it is: who names none later means it."""
    note = default_directory().with_name(_LAST)
    with contextlib.suppress(OSError):  # a home that cannot be written costs only this
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(str(directory.resolve()), encoding="utf-8")


def remembered() -> list[Path]:
    """What was remembered, if it is still there."""
    try:
        directory = Path(default_directory().with_name(_LAST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [directory] if directory.is_dir() else []


def last_used(*directories: Path) -> Path:
    """The one whose system was started or ended last; the first if there was none."""
    return max(directories, key=lambda path: DataDirectory(path).state().get("written_at", ""))


class InUse(Exception):
    """Another living system has this directory."""


class Mismatch(Exception):
    """The directory was made for something else."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A process that outlived the system that started it."""

    name: str
    pid: int


class DataDirectory:
    """Held by one living system at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._lock: IO[str] | None = None
        self._pids: dict[str, list[float]] = {}

    def fits(self, cycle: Cycle, clock: str) -> bool:
        """Whether what was left here was made with another wording of the same cycle. Raises Mismatch."""
        state = self.state()
        if not state:
            return False
        if state["clock"] != clock:
            # Whoever reads this has typed `up`: what is on a virtual clock is a rehearsal's.
            made = (
                "a rehearsal's, on a virtual clock," if state["clock"] == "virtual" else "on the real clock"
            )
            raise Mismatch(
                f"{self.path} is {made} and cannot go on with {'a virtual' if clock == 'virtual' else 'the real'} clock: "
                "choose another directory with --data"
            )
        if state["cycle"] != cycle.id:
            raise Mismatch(
                f"{self.path} holds the cycle {state['cycle']}, not {cycle.id}: choose another directory with --data"
            )
        return bool(state["fingerprint"] != cycle.fingerprint)

    def hold(self) -> list[Leftover]:
        """Take it, end what an earlier system left running, and say what that was. Raises InUse."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o711)
        lock = (self.path / _LOCK).open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise InUse(
                f"another local system (process {holder}) is running on {self.path}: end it first (Ctrl-C there), "
                "or choose another directory with --data"
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock
        # PostgreSQL runs as another account when we are root, and must be able to pass.
        self.path.chmod(self.path.stat().st_mode | 0o011)
        left = list(self._end_leftovers())
        self._pids = {}
        self._write_pids()
        return left

    def empty(self) -> None:
        """Forget what an earlier system left. Only in a directory that is recognised as one of ours."""
        assert self.held, "only the holder may empty it"
        others = [path for path in self.path.iterdir() if path.name not in {_LOCK, _PIDS}]
        if others and not (self.path / _STATE).exists() and not (self.path / "keys").exists():
            raise Mismatch(f"{self.path} holds files that are no local system's: choose another directory")
        for path in others:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    @property
    def held(self) -> bool:
        return self._lock is not None

    def let_go(self) -> None:
        (self.path / _PIDS).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def started(self, name: str, pid: int) -> None:
        """Note a child, so that a later start can tell a leftover from a stranger with the same number."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._pids[name] = [pid, psutil.Process(pid).create_time()]
            self._write_pids()

    def _write_pids(self) -> None:
        _write(self.path / _PIDS, self._pids)

    def _end_leftovers(self) -> list[Leftover]:
        left = []
        for name, (pid, created) in _read(self.path / _PIDS).items():
            try:
                process = psutil.Process(int(pid))
                if abs(process.create_time() - created) > 0.01 or process.status() == psutil.STATUS_ZOMBIE:
                    continue
            except psutil.NoSuchProcess:
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(10)
            left.append(Leftover(name, process.pid))
        return left

    def state(self) -> dict[str, Any]:
        """What the last system here wrote down; empty if there was none."""
        return _read(self.path / _STATE)

    def write_state(self, state: Mapping[str, Any]) -> None:
        _write(self.path / _STATE, state)


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content


def _write(path: Path, content: Mapping[str, Any]) -> None:
    scratch = path.with_name(path.name + ".new")
    scratch.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch.replace(path)
