"""Child processes: started, ended in order, never left behind; a taken port is no failure."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deploy.local import processes
from deploy.local.environment import Address
from deploy.local.processes import Child, StartFailed, free_port, wait_for_port
from tests.support.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]
# Ignores the polite signal and has a child of its own: the worst guest.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(below.pid, flush=True)
time.sleep(600)
"""


def _gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def _said(child: Child) -> str:
    async def look() -> str:
        return child.log.read_text() if child.log.exists() else ""

    return await eventually(look)


async def test_who_ignores_the_polite_signal_is_ended_with_all_below_it(tmp_path: Path) -> None:
    child = Child("stubborn", tmp_path / "log")
    child.start([sys.executable, "-c", STUBBORN])
    below = int(await _said(child))
    await child.stop(patience=0.3)
    assert not child.alive
    assert await eventually(lambda: _async(_gone(below)))


async def test_a_frozen_process_can_still_be_stopped(tmp_path: Path) -> None:
    child = Child("frozen", tmp_path / "log")
    child.start([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"])
    await _said(child)
    child.signal(signal.SIGSTOP)
    await child.stop(patience=5)
    assert not child.alive


async def test_what_we_started_dies_with_us_even_when_we_are_killed(tmp_path: Path) -> None:
    ours = f"""
import time
from pathlib import Path
from deploy.local import processes
from deploy.local.processes import Child
child = Child("orphan", Path({str(tmp_path / "orphan.log")!r}))
child.start(["sleep", "600"])
print(child.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", ours], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
    finally:
        parent.kill()
        parent.wait()
    assert await eventually(lambda: _async(_gone(pid)))


async def test_a_process_that_does_not_start_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = Child("broken", tmp_path / "log")
    child.start([sys.executable, "-c", "import sys; print('the reason'); sys.exit(3)"])
    with pytest.raises(StartFailed, match=r"(?s)broken did not start.*exit code 3.*the reason"):
        await wait_for_port(child, free_port(), timeout=10)


async def test_a_program_that_is_not_there_is_a_readable_failure(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="missing cannot be started"):
        Child("missing", tmp_path / "log").start([tmp_path / "nothing"])


def test_a_taken_port_gives_way_to_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        address = Address.choose({"public_port": port, "internal_port": port})
    assert port not in (address.public_port, address.internal_port)
    assert address.public_port != address.internal_port


def test_the_ports_of_an_earlier_start_are_taken_again_if_they_are_free() -> None:
    first = Address.choose({})
    again = Address.choose({"public_port": first.public_port, "internal_port": first.internal_port})
    assert again == first


async def test_a_child_leads_a_group_of_its_own(tmp_path: Path) -> None:
    """A Ctrl-C in the terminal must reach us only: we end things in order."""
    child = Child("apart", tmp_path / "log")
    child.start(["sleep", "600"])
    try:
        assert child.pid is not None
        assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
    finally:
        await child.stop()


async def _async(value: bool) -> bool:
    await asyncio.sleep(0)
    return value


def test_two_processes_that_look_for_ports_at_the_same_time_do_not_find_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is free when somebody looks is bound only later: both would take it, and one of them fail."""
    found = []
    for process in (1000, 1001):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        monkeypatch.setattr(processes, "_handed_out", set())
        found.append({free_port() for _ in range(300)})
    assert not found[0] & found[1]
