"""`kaowu up` as a person runs it: Ctrl-C ends it, a crash leaves nothing behind, the same data goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
KAOWU = Path(sys.executable).with_name("kaowu")


class Terminal:
    """A `kaowu up` whose output is read until it says that it is up."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.process = subprocess.Popen(
            [KAOWU, "up", "--data", data],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""

    def read_until(self, words: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if words in line:
                return
        raise AssertionError(f"it ended without saying {words!r}:\n{self.said}")

    def children(self) -> list[int]:
        return [int(pid) for pid, _ in json.loads((self.data / "pids.json").read_text()).values()]


def _living(pids: list[int], within: float = 60.0) -> list[int]:
    deadline = time.monotonic() + within
    while True:
        living = [
            pid
            for pid in pids
            if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        ]
        if not living or time.monotonic() > deadline:
            return living
        time.sleep(0.05)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.process.kill()
        terminal.process.wait()


def test_a_killed_system_leaves_nothing_and_a_second_start_goes_on_and_ends_cleanly(
    tmp_path: Path, terminals: list[Terminal]
) -> None:
    first = Terminal(tmp_path / "data")
    terminals.append(first)
    first.read_until("Ctrl-C ends it")
    assert len(first.children()) == 7
    assert _living(first.children(), within=0) == first.children()
    pids = first.children()
    first.process.kill()
    first.process.wait()
    assert _living(pids) == []

    second = Terminal(tmp_path / "data")
    terminals.append(second)
    second.read_until("Ctrl-C ends it")
    where = re.compile(r"^  registration +(http\S+)", re.MULTILINE)
    assert where.findall(second.said) == where.findall(first.said)
    pids = second.children()
    second.process.send_signal(signal.SIGINT)
    second.read_until("ended; ")
    assert second.process.wait(20) == 0
    assert _living(pids, within=0) == []
    assert not (tmp_path / "data" / "pids.json").exists()


def test_ctrl_c_while_it_starts_leaves_nothing_either(tmp_path: Path, terminals: list[Terminal]) -> None:
    terminal = Terminal(tmp_path / "data")
    terminals.append(terminal)
    terminal.read_until("postgres: local rung")
    pids = terminal.children()
    assert pids
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(40) == 130
    assert _living(pids) == []
