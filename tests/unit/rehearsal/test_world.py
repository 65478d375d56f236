"""What happens around the people, without a system: when what is down comes back, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from deploy.rehearsal import world
from deploy.rehearsal.people import WorldEvent, WorldVerb
from deploy.rehearsal.world import World

TEN = datetime.fromisoformat("2023-12-08T10:00:00+08:00")


class Machines:
    """Processes that only remember what was done to them."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def kill(self, name: str) -> None:
        self.done.append(f"kill {name}")

    async def restart(self, name: str) -> None:
        self.done.append(f"restart {name}")

    def suspend(self, name: str) -> None:
        self.done.append(f"suspend {name}")

    def resume(self, name: str) -> None:
        self.done.append(f"resume {name}")

    async def stop_broker(self) -> None:
        self.done.append("stop broker")

    async def start_broker(self) -> None:
        self.done.append("start broker")

    async def restart_database(self) -> None:
        self.done.append("restart database")


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Machines:
    monkeypatch.setattr(world, "HOLD", 0)
    return Machines()


def around(machines: Machines) -> World:
    nobody = cast("Any", None)
    return World(nobody, nobody, machines, {})


def event(verb: WorldVerb, after: float, **fields: Any) -> WorldEvent:
    return WorldEvent(TEN + timedelta(seconds=after), verb, cast("Mapping[str, Any]", fields))


async def test_a_process_killed_without_a_broker_is_started_once_there_is_one(machines: Machines) -> None:
    here = around(machines)
    await here.happen(event(WorldVerb.BROKER_DOWN, 0, **{"for": 60}))
    for seconds, fields in ((5, {"for": 10}), (6, {})):
        await here.happen(event(WorldVerb.KILL, seconds, service=f"s{seconds}", **fields))
    assert here.down_until("s5") == here.down_until("s6") == TEN + timedelta(seconds=60)
    assert not await here.pass_to(TEN + timedelta(seconds=59))
    assert await here.pass_to(TEN + timedelta(seconds=60))
    assert machines.done == ["stop broker", "kill s5", "kill s6", "start broker", "restart s5", "restart s6"]
    assert (here.down, here.under_way) == ({}, False)


async def test_a_process_that_is_dead_when_the_broker_goes_waits_for_it_too(machines: Machines) -> None:
    here = around(machines)
    await here.happen(event(WorldVerb.KILL, 0, service="payment", **{"for": 30}))
    await here.happen(event(WorldVerb.BROKER_DOWN, 10, **{"for": 60}))
    assert not await here.pass_to(TEN + timedelta(seconds=30))
    assert here.down_until("payment") == TEN + timedelta(seconds=70)
    assert await here.pass_to(TEN + timedelta(seconds=70))
    assert machines.done == ["kill payment", "stop broker", "start broker", "restart payment"]
    assert here.down == {}


async def test_a_process_that_outlasts_the_broker_stays_dead_as_long_as_it_was_told(
    machines: Machines,
) -> None:
    here = around(machines)
    await here.happen(event(WorldVerb.BROKER_DOWN, 0, **{"for": 10}))
    await here.happen(event(WorldVerb.KILL, 5, service="payment", **{"for": 60}))
    await here.pass_to(TEN + timedelta(seconds=10))
    assert here.down_until("payment") == TEN + timedelta(seconds=65)
    await here.pass_to(TEN + timedelta(seconds=65))
    assert machines.done[-1] == "restart payment"
