"""The directory of a local system: one living holder, leftovers recognised, nothing of a stranger's touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local.data_directory import DataDirectory, InUse, Mismatch, last_used, remember, remembered

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_a_second_living_system_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    hold = f"""
import time
from pathlib import Path
from deploy.local.data_directory import DataDirectory
directory = DataDirectory(Path({str(tmp_path)!r}))
directory.hold()
print("held", flush=True)
time.sleep(600)
"""
    holder = subprocess.Popen([sys.executable, "-c", hold], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InUse, match=rf"process {holder.pid}\) is running on .*--data"):
            DataDirectory(tmp_path).hold()
    finally:
        holder.kill()
        holder.wait()
    DataDirectory(tmp_path).hold()  # the lock died with its holder


def test_a_process_left_over_by_a_dead_system_is_ended_and_named(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    (tmp_path / "pids.json").write_text(
        json.dumps({"payment": [sleeper.pid, psutil.Process(sleeper.pid).create_time()]})
    )
    left = DataDirectory(tmp_path).hold()
    assert [(one.name, one.pid) for one in left] == [("payment", sleeper.pid)]
    assert not psutil.pid_exists(sleeper.pid)


def test_a_stranger_who_got_the_number_of_a_dead_process_is_left_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    (tmp_path / "pids.json").write_text(json.dumps({"payment": [sleeper.pid, 12345.0]}))
    assert DataDirectory(tmp_path).hold() == []
    assert sleeper.poll() is None


def test_a_pid_file_of_processes_long_gone_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "pids.json").write_text(json.dumps({"payment": [2**22 - 1, 1.0]}))
    assert DataDirectory(tmp_path).hold() == []


def test_a_half_written_state_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "system.json").write_text('{"running": tr')
    assert DataDirectory(tmp_path).state() == {}


def test_starting_afresh_forgets_an_earlier_system(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.hold()
    directory.write_state({"cycle": "c"})
    (tmp_path / "postgres").mkdir()
    directory.empty()
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "pids.json"}


def test_starting_afresh_never_empties_a_directory_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    directory = DataDirectory(tmp_path)
    directory.hold()
    with pytest.raises(Mismatch, match="no local system's"):
        directory.empty()
    assert (tmp_path / "thesis.txt").exists()


def test_the_system_that_ran_last_is_the_one_that_is_checked(tmp_path: Path) -> None:
    first, second, never = (tmp_path / name for name in ("first", "second", "never"))
    for path, moment in ((first, "2026-01-02T00:00:00+00:00"), (second, "2026-01-01T00:00:00+00:00")):
        path.mkdir()
        DataDirectory(path).write_state({"written_at": moment})
    assert last_used(never, second, first) == first


def test_a_system_that_a_command_started_anywhere_is_remembered_while_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    assert remembered() == []
    here = tmp_path / "here"
    here.mkdir()
    remember(here)
    assert remembered() == [here]
    here.rmdir()
    assert remembered() == []
    (tmp_path / "home" / "kaowu-last").write_bytes(b"\xff")
    assert remembered() == []


def test_the_holder_is_written_down_for_people(tmp_path: Path) -> None:
    DataDirectory(tmp_path).hold()
    assert (tmp_path / "lock").read_text() == str(os.getpid())
