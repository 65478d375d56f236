"""A clock of its own for one process: Debian's libfaketime, whose offset a test moves while the process runs.

Only the wall clock is wrong; what measures durations goes on as it was, as after a step by NTP. The broker cannot be given
one: under libfaketime the JVM's timed waits stop and Kafka fences itself.
"""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Final

INSTALLER: Final = Path(__file__).parents[1] / "faults" / "faketime-install"
NOTICED_WITHIN: Final = 1.0  # real seconds for which a process goes on with the offset it read last


class FaketimeMissing(AssertionError):
    """No wrong clock can be given to anybody: the fault cannot be reached, so the run fails. Says what is missing."""


@cache
def library() -> Path:
    """Where libfaketime lies, fetched if it is not there."""
    installed = subprocess.run([INSTALLER], capture_output=True, text=True, check=False)
    if installed.returncode:
        raise FaketimeMissing(installed.stderr.strip())
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    found = sorted((caches / "kaowu" / "faketime" / "root").glob("usr/lib/*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise FaketimeMissing(
            f"{INSTALLER.name} has unpacked no libfaketimeMT.so.1: remove its directory, run it again"
        )
    return found[0]


class WrongClock:
    """`offset` from the true time, as everybody sees it who was started with `environment`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.offset = timedelta(0)
        self.step(self.offset)

    def step(self, offset: timedelta) -> None:
        """Move the clock. Noticed within NOTICED_WITHIN seconds."""
        self.offset = offset
        written = self._file.with_suffix(".new")
        written.write_text(f"{offset.total_seconds():+f}\n", encoding="ascii")
        written.chmod(0o644)  # the database server is another account
        written.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """What a process must be started with."""
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": f"{NOTICED_WITHIN:.0f}",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
        }
