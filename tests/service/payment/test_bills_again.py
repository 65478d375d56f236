"""Bills that gateways correct, that come late, and that book a refund on another day than it was done."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import cast

import pytest

from contracts import payment
from deploy.simulators.outage import Outage
from services.payment.domain.reconciling import LOOKED_AT_AGAIN, fetched_from
from services.payment.handlers.reconciling import Bills
from services.payment.ports import Bill, Billing
from services.payment.repository import bills
from tests.service.payment.system import CYCLE, System, moment
from tests.service.payment.test_breaks import closing
from tests.service.payment.with_bills import (
    DAY,
    NEXT,
    PAID_AT,
    breaks,
    day_of,
    gateway,
    kinds,
    paid,
    paid_back,
    paid_on,
    said,
)

FIRST = date.fromisoformat(DAY)


def looks() -> list[datetime]:
    return [fetched_from(FIRST + timedelta(days=days)) for days in LOOKED_AT_AGAIN]


async def test_a_bill_that_is_here_is_fetched_again_for_some_days_and_then_no_more(
    office: System, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = cast("Billing", office.turns.gateways.channels[channel])
    asked: list[date] = []
    fetch = adapter.fetch_bill

    async def counted(_: Billing, day: date) -> Bill:
        asked.append(day)
        return await fetch(day)

    monkeypatch.setattr(type(adapter), "fetch_bill", counted)
    office.at(PAID_AT)
    await paid(office, channel)
    office.at(NEXT)
    await office.reconcile()
    for at in looks():
        assert datetime.fromisoformat((await day_of(office, channel))["looked_at_again"]) == at
        asked.clear()
        office.clock.jump(at - timedelta(microseconds=1))
        await office.reconcile()
        assert FIRST not in asked
        office.clock.jump(at)
        await office.reconcile()
        assert asked.count(FIRST) == 1
    assert "looked_at_again" not in await day_of(office, channel)
    asked.clear()
    office.clock.jump(looks()[-1] + timedelta(days=1))
    await office.reconcile()
    assert FIRST not in asked
    assert len([one for one in await said(office) if (one.channel, one.date) == (channel, FIRST)]) == 1
    assert len(await office.rows("select 1 from bills where channel = $1 and day = $2", channel, FIRST)) == 1


async def test_a_correction_is_found_by_itself_and_compared_anew(office: System, channel: str) -> None:
    office.at(PAID_AT)
    await paid(office, channel)
    gateway(office, channel).bill_faults = ["amount"]
    office.at(NEXT)
    await office.reconcile()
    assert await kinds(office) == ["other-amount"]
    gateway(office, channel).bill_faults = []
    office.clock.jump(looks()[0])
    await office.reconcile()
    day = await day_of(office, channel)
    assert (day["bill_changed"], day["matched"], day["breaks"]) == (True, 1, 0)
    # What was found stays on the list until a person closes it.
    assert await kinds(office) == ["other-amount"]


async def test_a_gateway_that_is_away_at_a_second_look_is_asked_again_and_the_day_stays_compared(
    office: System, channel: str
) -> None:
    office.at(PAID_AT)
    await paid(office, channel)
    office.at(NEXT)
    await office.reconcile()
    office.clock.jump(looks()[0])
    gateway(office, channel).weather.bring(600, Outage.REFUSE)
    await office.reconcile()
    day = await day_of(office, channel)
    assert (day["state"], day["waits"]["attempts"]) == ("reconciled", 1)
    office.clock.jump(looks()[0] + timedelta(minutes=30))
    await office.reconcile()
    day = await day_of(office, channel)
    assert "waits" not in day
    assert datetime.fromisoformat(day["looked_at_again"]) == looks()[1]


async def test_the_same_bill_is_not_written_down_a_second_time(
    office: System, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.at(PAID_AT)
    await paid(office, channel)
    office.at(NEXT)
    await office.reconcile()

    async def never(*_: object) -> None:
        raise AssertionError("lines of a bill that stands")

    monkeypatch.setattr(bills, "add_lines", never)
    office.clock.jump(looks()[0])
    await office.reconcile()
    assert datetime.fromisoformat((await day_of(office, channel))["looked_at_again"]) == looks()[1]


async def test_a_break_that_was_closed_before_a_restore_is_closed_again(office: System) -> None:
    """The event stands in the log that the topics gave back; breaks and closings are the restored database's own."""
    office.at(PAID_AT)
    await paid(office, "wechat")
    office.world.wechat.bill_faults = ["amount", "extra"]
    office.at(NEXT)
    await office.reconcile()
    one, other = await breaks(office)
    office.at("2024-01-31 15:00")
    assert await closing(office, one["break_id"]) == 200
    everything = len(await office.said(CYCLE))
    async with office.database.unit_of_work() as uow:
        for table in ("break_closings", "explanations", "breaks", "reconciliations", "bill_lines", "bills"):
            await uow.sql(f"alter table {table} disable trigger keep_{table}")
            await uow.sql(f"delete from {table}")
            await uow.sql(f"alter table {table} enable trigger keep_{table}")
        await uow.sql("delete from bill_waits")
    office.at("2024-01-31 18:00")
    for _ in range(2):
        await office.reconcile()
        assert [left["break_id"] for left in await breaks(office)] == [other["break_id"]]
    (closed,) = (await office.office("reconciliation?closed=true"))["breaks"]
    assert (closed["break_id"], closed["closed"]["by"], closed["closed"]["reason_code"]) == (
        one["break_id"], "restored-from-topic", "gateway-corrected",
    )  # fmt: skip
    assert datetime.fromisoformat(closed["closed"]["at"]) == moment("2024-01-31 15:00")
    assert len(await office.said(CYCLE)) == everything
    assert len(await office.rows("select 1 from audit where action = 'break-closed-again'")) == 1


@pytest.mark.parametrize("billed", [True, False])
async def test_paid_at_the_end_of_a_day_waits_for_the_bill_of_the_next_and_is_a_break_if_it_is_not_there(
    office: System, channel: str, billed: bool
) -> None:
    office.at(PAID_AT)
    await paid(office, channel)
    office.at("2024-01-30 23:58")
    await paid(office, channel)
    gateway(office, channel).bill_faults = ["late"]
    office.at(NEXT)
    await office.reconcile()
    day = await day_of(office, channel)
    assert [one["reason"] for one in day["explanations"]] == ["not-yet-billed"]
    assert await breaks(office) == []
    await paid_on(office, channel, "2024-01-31 12:00")
    if not billed:
        # What stands first in the next day's bill is the late one: it is left out.
        gateway(office, channel).bill_faults = ["late", "first-missing"]
    office.at("2024-02-01 10:30")
    await office.reconcile()
    assert await kinds(office) == ([] if billed else ["not-in-bill"])


async def test_a_refund_that_takes_days_is_billed_on_the_day_it_was_asked_for_and_its_last_day_is_over(
    office: System, channel: str
) -> None:
    """On the day on which it is done nothing else happens: the gateway has no bill of it."""
    office.at(PAID_AT)
    gateway(office, channel).refunds.takes = timedelta(days=2)
    await paid_back(office, channel)
    office.at(NEXT)
    await office.reconcile()
    assert await breaks(office) == []
    office.at("2024-02-01 12:30")
    await office.refund()
    assert (await office.office("money"))["refunded"] == 20_000
    for at in ("2024-02-02 10:30", "2024-02-03 10:30", "2024-02-04 10:30"):
        office.at(at)
        await office.reconcile()
        assert await breaks(office) == []
    assert (await day_of(office, channel, "2024-02-01"))["state"] == "no-bill"


async def test_a_refund_is_no_break_while_the_bill_of_the_day_it_was_asked_for_is_not_here(
    office: System, channel: str
) -> None:
    office.at(PAID_AT)
    gateway(office, channel).refunds.takes = timedelta(days=2)
    await paid_back(office, channel)
    gateway(office, channel).bill_faults = ["another-day"]
    office.at(NEXT)
    await office.reconcile()
    assert (await day_of(office, channel))["state"] == "waiting"
    gateway(office, channel).bill_faults = []
    await paid_on(office, channel, "2024-02-01 12:30")
    await office.refund()
    gateway(office, channel).weather.bring(3600 * 12, Outage.REFUSE)
    office.at("2024-02-01 22:00")
    await office.reconcile()
    office.at("2024-02-02 10:30")
    adapter = cast("Billing", office.turns.gateways.channels[channel])
    await Bills({channel: adapter}, office.turns.gateways)._take(await adapter.fetch_bill(date(2024, 2, 1)))
    day = await day_of(office, channel, "2024-02-01")
    assert [one["reason"] for one in day["explanations"]] == ["not-yet-billed"]
    assert await breaks(office) == []
    await office.reconcile()
    assert (await day_of(office, channel))["state"] == "reconciled"
    assert await breaks(office) == []


async def test_what_was_said_of_breaks_names_each_once(office: System, channel: str) -> None:
    office.at(PAID_AT)
    for _ in range(2):
        await paid(office, channel)
    gateway(office, channel).bill_faults = ["order"]
    office.at(NEXT)
    for at in (moment(NEXT), *looks()):
        office.clock.jump(at)
        await office.reconcile()
    events = [event for event in await office.said(CYCLE) if isinstance(event, payment.BreakFound)]
    assert [event.kind for event in events] == ["other-order"]
