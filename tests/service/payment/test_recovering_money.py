"""After a restore: money that the gateway knows of and the backup does not is booked again, once, and goes back where it must."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from deploy.simulators.order_book import TradeState
from services.payment.handlers import closing
from services.payment.repository import recoveries
from tests.service.payment.backups import Backups
from tests.service.payment.system import CLOSES, System, rejected
from tests.service.payment.test_recovering import LAST_HOUR, SOON, forfeited, recovery


async def test_a_payment_of_the_wrong_amount_is_found_and_owed_back(system: System, backups: Backups) -> None:
    candidate = await system.owing()
    backup = await backups.take()
    order_no = await system.ordered(candidate)
    order = system.world.wechat.book.find(order_no)
    assert order is not None
    order.amount_fen = 100
    system.pay(order_no)
    await backups.restore(backup)
    await system.settle()
    assert await recovery(system) == (1, 1, 0, True)
    assert await system.ledger(candidate) == [
        ("received", 100, None),
        ("refund-due", 100, "wrong-amount"),
    ]
    assert await system.status(candidate) == "awaiting"


async def test_a_payment_that_had_been_said_is_booked_again_as_of_when_it_first_was(
    system: System, backups: Backups
) -> None:
    payer = await system.owing()
    backup = await backups.take()
    order_no = await system.ordered(payer)
    system.at("2024-01-29 01:00")
    await system.paid_and_heard(order_no)
    (before, _) = await system.rows("select * from ledger order by entry_id")
    system.at("2024-01-29 09:00")
    await backups.restore(backup, caught_up=True)
    assert await system.status(payer) == "paid", "it had been said"
    assert await system.ledger(payer) == []
    await system.settle()
    assert await recovery(system) == (1, 0, 1, True)
    (after, _) = await system.rows("select * from ledger order by entry_id")
    same = ("kind", "order_no", "transaction_id", "amount_fen", "paid_at", "recorded_at")
    assert [after[name] for name in same] == [before[name] for name in same]
    assert (await system.order_row(order_no))["answer_id"] == after["answer_id"]
    assert await system.words(payer) == ["due", "paid"], "nobody is told a second time"


async def test_orders_before_the_one_that_was_said_paid_are_asked_about_as_well(
    system: System, backups: Backups
) -> None:
    payer = await system.owing()
    backup = await backups.take()
    first, second = await system.ordered(payer), await system.ordered(payer)
    await system.paid_and_heard(second)
    await backups.restore(backup, caught_up=True)
    await system.settle()
    assert first in backups.asked
    assert (await system.order_row(first))["status"] == "closed"
    assert await recovery(system) == (1, 1, 1, True)


async def test_a_rejection_after_a_payment_that_the_backup_forgot_owes_it_back_again(
    system: System, backups: Backups
) -> None:
    payer = await system.owing()
    backup = await backups.take()
    await system.paid_and_heard(await system.ordered(payer))
    await backups.restore(backup, caught_up=True)
    await system.deliver(rejected(payer))
    assert await system.ledger(payer) == [], "nothing is in the book that could be owed back"
    await system.settle()
    assert sorted(await system.ledger(payer), key=str) == [
        ("fee", 20_000, None),
        ("fee-taken-back", 20_000, None),
        ("received", 20_000, None),
        ("refund-due", 20_000, "rejected"),
    ]


@pytest.mark.parametrize("what", ["denied", "another amount"])
async def test_when_the_gateway_denies_what_was_said_nothing_goes_on_until_somebody_looks(
    system: System, backups: Backups, what: str
) -> None:
    payer, other = await system.approved(2)
    system.at(LAST_HOUR)
    backup = await backups.take()
    order_no = await system.ordered(payer)
    await system.paid_and_heard(order_no)
    await backups.restore(backup, caught_up=True)
    order = system.world.wechat.book.find(order_no)
    assert order is not None
    mend: Callable[[], None]
    if what == "denied":
        order.state, mend = TradeState.NOTPAY, lambda: setattr(order, "state", TradeState.SUCCESS)
    else:
        order.amount_fen, mend = 100, lambda: setattr(order, "amount_fen", 20_000)
    at = system.at(CLOSES)
    assert await system.settle() == at + SOON
    await system.close()
    assert await forfeited(system) == []
    assert (await recovery(system))[3] is False
    mend()
    await system.settle()
    await system.close()
    assert await forfeited(system) == [other]
    assert await system.ledger(payer) == [("received", 20_000, None), ("fee", 20_000, None)]


async def test_whoever_was_forfeited_before_the_loss_and_had_paid_in_time_is_reinstated(
    system: System, backups: Backups
) -> None:
    payer = await system.owing()
    system.at(LAST_HOUR)
    backup = await backups.take()
    order_no = await system.ordered(payer)
    system.pay(order_no)
    system.gateway_down(3600 * 3)
    system.at(CLOSES)
    await system.close()
    assert await system.status(payer) == "held"
    await backups.restore(backup)
    # As a version of this service that did not ask would have done: forfeited while the order was forgotten.
    async with system.database.unit_of_work() as uow:
        await uow.changed("update recoveries set finished_at = now()")
    await closing.sweep(system.database, system.cycle, system.clock.now())
    async with system.database.unit_of_work() as uow:
        await recoveries.begin(uow, uow.at)
    system.at("2024-02-09 03:00")
    await system.settle()
    assert await system.words(payer) == ["due", "expired", "reinstated", "paid"]


async def test_nothing_is_given_back_before_it_is_known_what_came_in(
    system: System, backups: Backups
) -> None:
    candidate = await system.owing()
    await system.paid_and_heard(await system.ordered(candidate))
    await system.deliver(rejected(candidate))
    await backups.restore(await backups.take())
    system.gateway_down(60)
    await system.settle()
    assert await system.refund() == system.clock.now() + SOON
    assert await system.rows("select * from refunds") == []
    system.clock.jump(system.clock.now() + timedelta(seconds=61))
    await system.settle()
    await system.refund()
    assert await system.words(candidate) == ["due", "paid", "refunded"]


async def test_what_went_back_since_the_backup_is_booked_again_and_told_once(
    system: System, backups: Backups
) -> None:
    candidate = await system.owing()
    backup = await backups.take()
    await system.paid_and_heard(await system.ordered(candidate))
    await system.deliver(rejected(candidate))
    await system.refund()
    assert await system.words(candidate) == ["due", "paid", "refunded"]
    before = sorted(await system.ledger(candidate), key=str)
    await backups.restore(backup, caught_up=True)
    await system.deliver(rejected(candidate))
    await system.settle()
    assert await recovery(system) == (1, 0, 1, True)
    await system.refund()
    assert sorted(await system.ledger(candidate), key=str) == before
    assert await system.words(candidate) == ["due", "paid", "refunded"]
    assert system.world.wechat.refunds.totals(system.clock.now())["refunds"] == 1
