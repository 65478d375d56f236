"""After a restore: the gateway is asked about everything that may have been ordered and paid since the backup."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from deploy.simulators.order_book import TradeState
from deploy.simulators.outage import Outage
from services.payment.adapters.wechat import WeChatPay
from services.payment.handlers import closing, ordering, recovering
from services.payment.ports import Answer, ChannelUnavailable
from services.payment.repository import recoveries
from tests.service.payment.backups import Backups
from tests.service.payment.system import CLOSES, OPENS, System, moment

LAST_HOUR = "2024-02-08 23:00"
SOON = timedelta(seconds=30)


async def recovery(system: System) -> tuple[int, int, int, bool]:
    """(registrations asked about, orders found, payments booked again, finished) of the latest."""
    latest = (await system.office("close"))["recoveries"][0]
    return latest["asked"], latest["found"], latest["booked"], latest["finished_at"] is not None


async def forfeited(system: System) -> list[UUID]:
    rows = await system.rows("select registration_id from obligations where status = 'expired'")
    return [row["registration_id"] for row in rows]


async def test_what_was_ordered_and_paid_after_the_backup_is_found_at_the_gateway(
    system: System, backups: Backups
) -> None:
    payer, other = await system.approved(2)
    backup = await backups.take()
    order_no = await system.ordered(payer)
    system.pay(order_no)
    await backups.restore(backup)
    assert not await system.rows("select * from orders"), "the backup is older than the order"
    await system.settle()
    assert order_no in backups.asked
    assert await recovery(system) == (2, 1, 0, True)
    assert await system.words(payer) == ["due", "paid"]
    assert await system.ledger(payer) == [("received", 20_000, None), ("fee", 20_000, None)]
    assert await system.status(other) == "awaiting"


async def test_an_order_that_the_backup_knows_is_asked_about_too(system: System, backups: Backups) -> None:
    payer = await system.owing()
    order_no = await system.ordered(payer)
    backup = await backups.take()
    await system.paid_and_heard(order_no)
    await backups.restore(backup)
    assert await system.status(payer) == "awaiting"
    await system.settle()
    assert await recovery(system) == (1, 0, 0, True), "it was known, so it is not counted as found"
    assert await system.words(payer) == ["due", "paid"]


async def test_every_order_since_the_backup_is_asked_about_also_behind_one_that_was_open_in_it(
    system: System, backups: Backups
) -> None:
    candidate = await system.owing()
    first = await system.ordered(candidate)
    backup = await backups.take()
    second, third = await system.ordered(candidate), await system.ordered(candidate)
    system.pay(third)
    await backups.restore(backup)
    await system.settle()
    assert {first, second, third} <= set(backups.asked)
    states = {row["order_no"]: row["status"] for row in await system.rows("select * from orders")}
    assert states == {first: "closed", second: "closed", third: "paid"}
    assert await recovery(system) == (1, 2, 0, True)
    # 'closed' needs the gateway's signed answer: the database would have refused it otherwise.
    assert await system.ledger(candidate) == [("received", 20_000, None), ("fee", 20_000, None)]


async def test_a_number_that_the_backup_knows_as_refused_may_have_been_used_since(
    system: System, backups: Backups
) -> None:
    candidate = await system.owing()
    system.gateway_down(60)
    assert (await system.order(candidate)).status_code == 502
    system.clock.jump(moment(OPENS) + timedelta(hours=2, minutes=1))
    await system.settle()
    (denied,) = await system.rows("select order_no, status from orders")
    assert denied["status"] == "closed", "the gateway never heard of it"
    backup = await backups.take()
    again = await system.ordered(candidate)
    assert again == denied["order_no"]
    system.pay(again)
    await backups.restore(backup)
    await system.settle()
    assert await system.words(candidate) == ["due", "paid"]


async def test_whoever_holds_the_code_of_a_forgotten_order_can_still_pay_it(
    system: System, backups: Backups
) -> None:
    candidate = await system.owing()
    backup = await backups.take()
    order_no = await system.ordered(candidate)
    await backups.restore(backup)
    await system.settle()
    assert (await system.order_row(order_no))["status"] == "unknown"
    assert await recovery(system) == (1, 1, 0, True)
    await system.paid_and_heard(order_no)
    assert await system.status(candidate) == "paid"


async def test_a_forgotten_order_that_nobody_pays_is_closed_at_its_end_and_costs_the_place_only_then(
    system: System, backups: Backups
) -> None:
    candidate = await system.owing()
    system.at(LAST_HOUR)
    backup = await backups.take()
    order_no = await system.ordered(candidate)
    await backups.restore(backup)
    await system.settle()
    at = system.at(CLOSES)
    await system.close()
    book = system.world.wechat.book.find(order_no)
    assert book is not None
    assert book.state is TradeState.CLOSED, "closed at the gateway, then asked, then forfeited"
    assert book.closed_at == at
    assert await system.words(candidate) == ["due", "expired"]


async def test_nobody_is_forfeited_before_the_gateway_has_answered(system: System, backups: Backups) -> None:
    payer, other = await system.approved(2)
    system.at(LAST_HOUR)
    backup = await backups.take()
    system.pay(await system.ordered(payer))
    await backups.restore(backup)
    at = system.at(CLOSES)
    system.gateway_down(3600)
    assert await system.settle() == at + SOON
    assert await system.close() == at + SOON
    assert await forfeited(system) == []
    assert (await system.office("close"))["state"] == "closing"

    at = system.at("2024-02-09 01:00")
    await system.settle()
    await system.close()
    assert await forfeited(system) == [other]
    assert await system.words(payer) == ["due", "paid"]
    assert await system.words(system.cycle.id) == ["window-closed"]


async def test_the_sweep_itself_forfeits_nobody_while_a_recovery_is_open_and_everybody_from_its_end_on(
    system: System, backups: Backups
) -> None:
    """Both edges: the exact close, and the commit that finishes the recovery."""
    await system.approved(3)
    backup = await backups.take()
    await backups.restore(backup)
    at = system.at(CLOSES)
    assert await closing.sweep(system.database, system.cycle, at) == 0
    async with system.database.unit_of_work() as uow:
        recovery_now = await recoveries.open_one(uow)
        assert recovery_now is not None
        await recoveries.finish(uow, recovery_now.recovery_id)
    assert await closing.sweep(system.database, system.cycle, at - timedelta(microseconds=1)) == 0
    assert await closing.sweep(system.database, system.cycle, at) == 3


async def test_a_gateway_that_falls_silent_half_way_is_asked_on_from_there(
    system: System, backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovering, "_PAGE", 3)
    payers = sorted(await system.approved(8))
    backup = await backups.take()
    for payer in payers:
        system.pay(await system.ordered(payer))
    await backups.restore(backup)
    left = silent_after(monkeypatch, 7)
    at = system.clock.now()
    assert await system.settle() == at + SOON
    # A fourth had its order found, and the second question about it was not answered.
    assert await recovery(system) == (3, 4, 0, False)
    left.append(1000)
    backups.asked.clear()
    await system.settle()
    assert await recovery(system) == (8, 8, 0, True)
    assert {row["status"] for row in await system.rows("select status from obligations")} == {"paid"}
    (first, *_) = await system.rows("select order_no from orders where registration_id = $1", payers[0])
    assert first["order_no"] not in backups.asked, "who was asked about is not asked about again"


def silent_after(monkeypatch: pytest.MonkeyPatch, answers: int) -> list[int]:
    """The gateway answers so many queries, then none; append a number to the list for as many more."""
    left = [answers]
    query = WeChatPay.query

    async def perhaps(gateway: WeChatPay, order_no: str) -> Answer:
        if not left[-1]:
            raise ChannelUnavailable("silent")
        left[-1] -= 1
        return await query(gateway, order_no)

    monkeypatch.setattr(WeChatPay, "query", perhaps)
    return left


async def test_an_answer_that_fits_nothing_leaves_its_candidate_undecided_and_holds_nobody_else_up(
    system: System, backups: Backups
) -> None:
    odd, other = await system.approved(2)
    system.at(LAST_HOUR)
    backup = await backups.take()
    order_no = await system.ordered(odd)
    order = system.world.wechat.book.find(order_no)
    assert order is not None
    order.currency = "USD"
    system.pay(order_no)
    await backups.restore(backup)
    await system.settle()
    assert await recovery(system) == (2, 1, 0, True)
    system.at(CLOSES)
    await system.close()
    assert await forfeited(system) == [other]
    assert await system.status(odd) == "held"


async def test_nobody_orders_before_they_were_asked_about_and_everybody_does_right_after(
    system: System, backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two orders of one number would be one order at the gateway."""
    monkeypatch.setattr(recovering, "_PAGE", 1)
    early, late = sorted(await system.approved(2))
    backup = await backups.take()
    await backups.restore(backup)
    silent_after(monkeypatch, 1)
    await system.settle()
    assert (await recovery(system))[0] == 1
    assert (await system.order(late)).status_code == 502
    assert not await system.rows("select * from orders where registration_id = $1", late)
    assert (await system.order(early)).status_code == 201


async def test_nobody_is_reminded_before_it_is_known_who_has_paid(system: System, backups: Backups) -> None:
    payer, other = await system.approved(2)
    backup = await backups.take()
    system.pay(await system.ordered(payer))
    await backups.restore(backup)
    at = system.at("2024-02-08 12:00")
    system.gateway_down(60)
    await system.settle()
    assert await system.remind() == at + SOON
    assert await system.words(other) == ["due"]
    system.clock.jump(at + timedelta(seconds=61))
    await system.settle()
    await system.remind()
    assert await system.words(payer) == ["due", "paid"]
    assert await system.words(other) == ["due", "closing-soon"]


async def test_a_backup_that_was_made_during_a_recovery_begins_it_anew(
    system: System, backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovering, "_PAGE", 1)
    early, late = sorted(await system.approved(2))
    await backups.restore(await backups.take())
    silent_after(monkeypatch, 1)
    await system.settle()
    during = await backups.take()
    monkeypatch.undo()
    system.pay(await system.ordered(early))
    await backups.restore(during)
    await system.settle()
    assert await system.status(early) == "paid"
    assert await system.status(late) == "awaiting"
    assert len((await system.office("close"))["recoveries"]) == 1


async def test_a_notice_of_a_forgotten_order_is_not_acknowledged_so_that_it_comes_again(
    system: System, backups: Backups
) -> None:
    payer = await system.owing()
    backup = await backups.take()
    order_no = await system.ordered(payer)
    await backups.restore(backup)
    await system.paid_and_heard(order_no)
    assert system.heard == [400]
    system.gateway_down(1, Outage.REFUSE)
    await asyncio.sleep(0)
    system.clock.jump(system.clock.now() + timedelta(seconds=2))
    await system.settle()
    await system.call_back(order_no)
    assert system.heard[-1] == 204
    assert await system.words(payer) == ["due", "paid"]


async def test_an_order_that_the_version_before_numbered_by_lot_hides_no_later_one(
    system: System, backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open in the backup and closed since; the one after it, numbered second, is the one that was paid."""
    candidate = await system.owing()
    with monkeypatch.context() as before:
        before.setattr(ordering, "order_number", lambda *_: "20240129BYLOT0000001")
        first = await system.ordered(candidate)
    backup = await backups.take()
    with monkeypatch.context() as before:
        before.setattr(ordering, "free_number", lambda *_: 2)  # it counted
        second = await system.ordered(candidate)
    system.pay(second)
    await backups.restore(backup)
    assert (await system.order_row(first))["status"] == "open"
    await system.settle()
    assert {first, second} <= set(backups.asked)
    assert (await system.order_row(first))["status"] == "closed"
    assert await system.words(candidate) == ["due", "paid"]
