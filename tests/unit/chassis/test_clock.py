"""One clock, moved for everybody at once."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.chassis.clock import ClockControl, RehearsalClock, SystemClock

NOON = datetime(2023, 12, 14, 4, 0, 0, 123456, UTC)


def test_a_rehearsal_clock_stands_still_at_the_microsecond(tmp_path: Path) -> None:
    control = ClockControl(tmp_path / "clock", NOON)
    clock = RehearsalClock(tmp_path / "clock")
    assert clock.now() == NOON == control.now()
    control.jump(NOON + timedelta(microseconds=1))
    assert clock.now() - NOON == timedelta(microseconds=1)
    assert clock.virtual
    assert abs(clock.real_now() - datetime.now(UTC)) < timedelta(seconds=1)


def test_time_never_goes_back(tmp_path: Path) -> None:
    control = ClockControl(tmp_path / "clock", NOON)
    with pytest.raises(ValueError, match="cannot go back"):
        control.jump(NOON - timedelta(microseconds=1))


def test_a_rate_lets_virtual_time_flow(tmp_path: Path) -> None:
    control = ClockControl(tmp_path / "clock", NOON)
    control.set_rate(3600)
    time.sleep(0.05)
    assert timedelta(minutes=2) < RehearsalClock(tmp_path / "clock").now() - NOON < timedelta(hours=1)


def test_a_clock_file_outlives_its_writer(tmp_path: Path) -> None:
    ClockControl(tmp_path / "clock", NOON)
    assert ClockControl(tmp_path / "clock").now() == NOON


def test_a_file_that_is_no_clock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clock").write_bytes(bytes(64))
    with pytest.raises(ValueError, match="no clock file"):
        RehearsalClock(tmp_path / "clock")


async def test_a_sleeper_wakes_when_time_is_moved(tmp_path: Path) -> None:
    control = ClockControl(tmp_path / "clock", NOON)
    sleeper = asyncio.create_task(RehearsalClock(tmp_path / "clock").sleep(60))
    await asyncio.sleep(0.05)
    assert not sleeper.done()
    control.jump(NOON + timedelta(days=1))
    await asyncio.wait_for(sleeper, 1)


async def test_all_sleepers_of_a_process_share_one_look_at_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service has a dozen jobs that wait: each would look fifty times a second for a jump that never comes."""
    control = ClockControl(tmp_path / "clock", NOON)
    clock = RehearsalClock(tmp_path / "clock")
    looks, read = 0, RehearsalClock._read

    def counted(self: RehearsalClock) -> tuple[int, int, int, float, int]:
        nonlocal looks
        looks += 1
        return read(self)

    monkeypatch.setattr(RehearsalClock, "_read", counted)
    await asyncio.gather(*(clock.sleep(0.1) for _ in range(100)))
    assert looks < 10
    late = [asyncio.create_task(clock.sleep(60)) for _ in range(3)]
    await asyncio.sleep(0.05)
    late.append(asyncio.create_task(clock.sleep(60)))
    await asyncio.sleep(0)
    control.jump(NOON + timedelta(days=1))
    await asyncio.wait_for(asyncio.gather(*late), 1)


async def test_the_system_clock_is_aware_and_real() -> None:
    clock = SystemClock()
    assert clock.now().tzinfo is UTC
    assert not clock.virtual
    await clock.sleep(0)
