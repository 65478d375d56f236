"""Three brokers under a crowd: one dies, the active controller dies, one is cut from its clients, one from its peers.

Rows 12 to 14 of the fault matrix as they are in production, where losing a broker is not losing Kafka.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from tests.cluster.asking import Led
from tests.cluster.brokers import Brokers, Where
from tests.faults.harness import Battle, fight

pytestmark = pytest.mark.cluster

RELAYED = "kaowu_events_relayed"
HANDLED = "kaowu_events_handled"


async def busiest(brokers: Brokers, among: list[int]) -> int:
    """Of these, the broker that leads most partitions of our topics and of the groups' offsets."""
    led = {number: len(await brokers.led_by(number, number)) for number in among}
    number = max(among, key=lambda one: led[one])
    assert led[number], f"none of {among} leads anything: losing it would prove nothing"
    return number


async def others_lead(
    brokers: Brokers, battle: Battle, lost: int, asked: int, before: Mapping[Where, Led]
) -> None:
    """Until everything this broker led before is led by others, each by a new election, with two copies in sync."""

    async def all_of_them() -> bool:
        now = await brokers.partitions(asked)
        return all(
            now[where].leader != lost
            and now[where].epoch > led.epoch
            and now[where].in_sync == led.replicas - {lost}
            for where, led in before.items()
        )

    await battle.eventually(all_of_them, f"others leading what broker {lost} led")
    battle.reached["partitions got another leader"] += len(before)


def elected(brokers: Brokers, asked: int, lost: int, epoch: int) -> Callable[[], Awaitable[bool]]:
    """Whether this broker knows another active controller than the lost one, of a later epoch."""

    async def look() -> bool:
        now = await brokers.controller(asked)
        return now.leader != lost and now.epoch > epoch

    return look


async def flows(battle: Battle, name: str) -> None:
    """Until something more is published, and something more is taken in."""
    published, handled = await battle.metric(RELAYED), await battle.metric(HANDLED)
    await battle.grows(RELAYED, published, f"events were published {name}")
    await battle.grows(HANDLED, handled, f"events were taken in {name}")


async def test_a_broker_and_then_the_active_controller_die_and_nothing_is_lost(
    brokers: Brokers, tmp_path: Path
) -> None:
    async def breaks(battle: Battle) -> None:
        battle.streams.faulted = True
        await battle.until(0.05)
        assert await brokers.whole()
        assert {len(led.replicas) for led in (await brokers.partitions(1)).values()} == {3}
        controller = await brokers.controller(1)
        lost = await busiest(brokers, brokers.others(controller.leader))
        led = await brokers.led_by(lost, controller.leader)
        await brokers.nodes[lost].kill()
        await others_lead(brokers, battle, lost, controller.leader, led)
        battle.reached["a broker died"] += 1
        await flows(battle, "with two brokers left")
        await battle.until(0.35)
        await brokers.start_again(lost)
        battle.reached["it came back and caught up"] += 1

        await battle.until(0.5)
        controller = await brokers.controller(1)
        asked = brokers.others(controller.leader)[0]
        await brokers.nodes[controller.leader].kill()
        await battle.eventually(
            elected(brokers, asked, controller.leader, controller.epoch), "another active controller"
        )
        battle.reached["another controller was elected"] += 1
        await flows(battle, "under the new controller")
        await battle.until(0.9)
        await brokers.start_again(controller.leader)

    fought = await fight(tmp_path, breaks, people=20, given=brokers.given)
    fought.holds({13: "another controller was elected", 12: "a broker died"})
    fought.as_the_rules_say()
    assert fought.reached["partitions got another leader"]


async def test_a_broker_that_its_clients_or_its_peers_cannot_reach_delays_but_loses_and_doubles_nothing(
    brokers: Brokers, tmp_path: Path
) -> None:
    async def breaks(battle: Battle) -> None:
        battle.streams.faulted = True
        await battle.until(0.05)
        controller = await brokers.controller(1)
        cut = await busiest(brokers, brokers.others(controller.leader))
        led = await brokers.led_by(cut, controller.leader)
        # Row 14. It goes on leading: nobody takes over, because its peers find it well.
        async with brokers.cut_from_clients(cut) as (up, down):

            async def kept_back() -> bool:
                return bool(up.done)

            await battle.eventually(kept_back, "clients asking into the void")
            await asyncio.sleep(6)  # its peers would have given it up after four
            assert await brokers.led_by(cut, controller.leader) == led
            battle.reached["clients were cut from a broker that went on leading"] += 1
            battle.reached["pieces kept back"] += up.done + down.done
        await flows(battle, "after the cut")

        await battle.until(0.5)
        controller = await brokers.controller(1)
        cut = controller.leader
        asked = brokers.others(cut)[0]
        await busiest(brokers, [cut])
        led = await brokers.led_by(cut, asked)
        async with brokers.cut_from_peers(cut):
            await others_lead(brokers, battle, cut, asked, led)
            await battle.eventually(
                elected(brokers, asked, cut, controller.epoch), "another active controller"
            )
            # It cannot know that it was replaced: whoever asks it is told so.
            if await brokers.led_by(cut, cut):
                battle.reached["two brokers said they led"] += 1
            await flows(battle, "beside a broker that was cut off")
            await battle.until(0.7)
        battle.reached["peers were cut from the active controller"] += 1
        await flows(battle, "when it was back")

    fought = await fight(tmp_path, breaks, people=20, given=brokers.given)
    fought.holds(
        {
            14: "clients were cut from a broker that went on leading",
            13: "peers were cut from the active controller",
            12: "two brokers said they led",
        }
    )
    fought.as_the_rules_say()
    assert fought.reached["pieces kept back"]
