"""A payment and the sweep at one moment: whoever is first, both end right, and nobody who paid in time falls."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from services.payment.repository import closing
from tests.service.payment.system import CLOSES, System
from tests.support.eventually import eventually

LAST = "2024-02-08 23:57:59"


async def test_whom_a_payment_holds_is_left_to_the_payment(system: System) -> None:
    """The sweep passes a locked row by, waits for it at the end, and reads what the payment made of it."""
    paying, other = await system.approved(2)
    order_no = await system.ordered(paying)
    system.pay(order_no)
    await system.write("update orders set status = 'failed', refusal = 'TEST' where order_no = $1", order_no)
    system.at(CLOSES)
    async with system.other_session() as uow:
        await uow.sql("select 1 from obligations where registration_id = $1 for update", paying)
        heard = asyncio.create_task(system.call_back(order_no))
        await asyncio.sleep(0.05)
        sweep = asyncio.create_task(system.close())

        async def swept() -> bool:
            return await system.status(other) == "expired"

        # Less than the row's lock is waited for.
        await eventually(swept, within=2, because="the sweep waited for one locked row")
        assert not sweep.done(), "the close was declared over with somebody undecided"
    await asyncio.gather(heard, sweep)
    assert await system.status(paying) == "paid"
    assert (await system.words(paying))[-1] == "paid"


async def test_a_payment_that_waits_for_the_sweep_reads_what_it_did(system: System) -> None:
    """The notice arrives after the statement and before its commit: one answer, reinstated at once."""
    candidate = await system.owing()
    order_no = await system.ordered(candidate)
    system.pay(order_no)
    await system.write("update orders set status = 'failed', refusal = 'TEST' where order_no = $1", order_no)
    system.at(CLOSES)
    async with system.other_session() as uow:
        assert await closing.sweep_chunk(uow, system.cycle.fingerprint) == 1
        heard = asyncio.create_task(system.call_back(order_no))
        await asyncio.sleep(0.2)
        assert not heard.done()
    await heard
    assert system.heard == [204]
    assert await system.words(candidate) == ["due", "expired", "reinstated", "paid"]


async def test_of_a_payment_and_the_sweep_one_is_first_and_both_end_right(system: System) -> None:
    """The callback arrives while the sweep runs, again and again."""
    candidates = await system.approved(40)
    orders: dict[UUID, str] = {}
    for one in candidates:
        orders[one] = await system.ordered(one)
        system.pay(orders[one])
    await system.write("update orders set status = 'failed', refusal = 'TEST'")
    system.at(CLOSES)
    for order_no in orders.values():
        system.world.wechat.notify_again(order_no, None)
    await asyncio.gather(system.close(), system.gateway_at_rest())
    assert system.heard == [204] * 40
    for one in candidates:
        assert await system.status(one) == "paid"
        assert await system.words(one) in (["due", "paid"], ["due", "expired", "reinstated", "paid"])
    money = await system.office("money")
    assert (money["received"], money["paid"], money["due"], money["held"]) == (800_000, 800_000, 0, 0)


async def test_a_payment_between_the_answer_and_its_writing_is_never_lost(system: System) -> None:
    """The gateway takes the money after it was asked: closing first makes that impossible, and it is."""
    candidate = await system.owing()
    system.at(LAST)
    order_no = await system.ordered(candidate)
    system.at("2024-02-08 23:59:59")
    gateway = system.world.wechat
    answer_query = gateway._transaction

    def pays_meanwhile(order: object) -> dict[str, object]:
        answer = answer_query(order)  # type: ignore[arg-type]  # whatever the gateway asks with
        with pytest.raises(Exception, match="ORDER_CLOSED"):
            system.pay(order_no)
        return answer

    gateway._transaction = pays_meanwhile  # type: ignore[method-assign]  # somebody pays at the worst moment
    system.at(CLOSES)
    await system.close()
    assert await system.status(candidate) == "expired"
    assert gateway.book.totals()["paid"] == 0
