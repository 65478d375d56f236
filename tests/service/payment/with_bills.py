"""What tests of the comparison with the gateways' bills do: pay, go back, and look at what the office sees."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from contracts import payment
from deploy.simulators.gateway import Gateway
from tests.service.payment.system import CYCLE, System, rejected

PAID_AT = "2024-01-30 12:00"
NEXT = "2024-01-31 10:30"
DAY = "2024-01-30"


def gateway(system: System, channel: str) -> Gateway:
    return system.world.wechat if channel == "wechat" else system.world.alipay


async def paid(system: System, channel: str, *, heard: bool = True) -> tuple[UUID, str]:
    candidate = await system.owing()
    order_no = await system.ordered(candidate, channel)
    system.pay(order_no)
    if heard:
        await system.call_back(order_no)
    return candidate, order_no


async def paid_back(system: System, channel: str) -> UUID:
    candidate, _ = await paid(system, channel)
    await system.deliver(rejected(candidate))
    await system.refund()
    return candidate


async def breaks(system: System) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await system.office("reconciliation"))["breaks"]
    return found


async def kinds(system: System) -> list[str]:
    return sorted(one["kind"] for one in await breaks(system))


async def day_of(system: System, channel: str, day: str = DAY) -> dict[str, Any]:
    days = (await system.office("reconciliation"))["days"]
    (found,) = [one for one in days if (one["channel"], one["day"]) == (channel, day)]
    return dict(found)


async def said(system: System) -> list[payment.Reconciled]:
    return [event for event in await system.said(CYCLE) if isinstance(event, payment.Reconciled)]


async def paid_on(system: System, channel: str, at: str) -> None:
    """So that the gateway has a bill of this day."""
    system.at(at)
    await paid(system, channel)
