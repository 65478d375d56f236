"""Extensions at their edges: the microsecond before, the moment itself, after the sweep, and whom they must not touch."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from contracts import payment
from services.payment.handlers import closing as close_handlers
from tests.service.payment.system import CLOSES, System, moment, rejected, withdrawn
from tests.service.payment.two_people import INSTANT, LATER, Office, closed, words
from tests.support.counted import counts


@pytest.fixture
def office(system: System) -> Office:
    return Office(system)


def payable_until(system: System, order_no: str, at: datetime) -> None:
    """A gateway that does not keep to the end it was given."""
    order = system.world.wechat.book.find(order_no)
    assert order is not None
    order.expires_at = at


# --- around the old close


async def test_asked_a_microsecond_before_the_close_nobody_falls_until_it_is_decided(
    system: System, office: Office
) -> None:
    candidate = await system.owing()
    system.clock.jump(moment(CLOSES) - INSTANT)
    decision = await office.asked()
    system.at(CLOSES)
    assert await system.close() == moment(LATER)
    system.at("2024-02-09 09:00")
    await system.close()
    # Nor by a process that has not heard of it: the sweep itself asks.
    assert await close_handlers.sweep(system.database, system.cycle, system.clock.now()) == 0
    assert await system.words(candidate) == ["due"]
    report = await system.office("close")
    assert [one["state"] for one in report["deciding"]] == ["asked"]
    await office.approve(decision)
    await system.close()  # approved and not yet done: still nobody
    assert await close_handlers.sweep(system.database, system.cycle, system.clock.now()) == 0
    assert await system.words(candidate) == ["due"]
    await system.carry_out_job.run()
    await system.close()
    assert await system.words(candidate) == ["due", "window-moved"]
    system.at(LATER)
    await system.close()
    assert await system.words(candidate) == ["due", "window-moved", "expired"]
    assert await closed(system) == [moment(LATER)]


async def test_rejected_after_the_close_everybody_falls_at_once(system: System, office: Office) -> None:
    candidate = await system.owing()
    system.at("2024-02-08 23:59")
    decision = await office.asked()
    system.at("2024-02-09 03:00")
    await system.close()
    system.close_job.awake.clear()
    assert (await office.say(decision, "reject")).json()["state"] == "rejected"
    assert system.close_job.awake.is_set(), "the close was told that nothing holds it up any more"
    await system.close()
    assert await system.words(candidate) == ["due", "expired"]
    assert (await office.say(decision, "approve")).json()["code"] == "not-allowed"


async def test_asked_at_the_close_itself_after_the_sweep_it_takes_the_forfeitures_back(
    system: System, office: Office
) -> None:
    candidate = await system.owing()
    system.at(CLOSES)
    await system.close()
    decision = await office.asked()
    assert decision["preview"]["reinstated"] == 1
    await office.approve(decision)
    await system.carry_out_job.run()
    reinstated = (await system.said(candidate))[-1]
    assert reinstated == payment.Reinstated(
        cycle_id=system.cycle.id,
        registration_id=candidate,
        cause="window-extended",
        closes_at=moment(LATER),
    )
    now = await system.obligation(candidate)
    assert (now["status"], now["closes_at"], now["told_closes_at"]) == (
        "awaiting",
        moment(LATER),
        moment(LATER),
    )
    assert (now["expired_at"], now["proof_id"]) == (None, None)
    assert len(await system.rows("select from proofs")) == 1, "what was proved stays proved"


async def test_whoever_was_taken_back_may_pay_until_the_new_close_and_falls_at_it_with_a_proof_of_its_own(
    system: System, office: Office
) -> None:
    pays, falls = await system.approved(2)
    system.at("2024-02-09 08:00")
    await system.close()
    await office.extend()
    system.clock.jump(moment(LATER) - timedelta(minutes=2) - INSTANT)
    order = await system.ordered(pays)
    system.clock.jump(moment(LATER) - INSTANT)
    await system.paid_and_heard(order)
    system.at(LATER)
    await system.close()
    assert await words(system, [pays, falls]) == [
        ["due", "expired", "reinstated", "paid"],
        ["due", "expired", "reinstated", "expired"],
    ]
    rows = await system.rows("select closes_at from proofs where registration_id = $1 order by number", falls)
    assert [row["closes_at"] for row in rows] == [moment(CLOSES), moment(LATER)]
    first, second = await system.said(system.cycle.id)
    assert isinstance(first, payment.WindowClosed)
    assert isinstance(second, payment.WindowClosed)
    assert (first.closes_at, first.counts.expired, first.proofs) == (moment(CLOSES), 2, 2)
    assert (second.closes_at, second.counts.paid, second.counts.expired, second.proofs) == (
        moment(LATER),
        1,
        1,
        1,
    )
    assert second.sums_fen.received == 20_000


async def test_a_payment_at_exactly_the_new_close_is_late_and_goes_back(
    system: System, office: Office
) -> None:
    late, last = await system.approved(2)
    await office.extend()
    system.clock.jump(moment(LATER) - timedelta(minutes=3))
    orders = [await system.ordered(late), await system.ordered(last)]
    system.clock.jump(moment(LATER) - INSTANT)
    system.pay(orders[1])
    system.clock.jump(moment(LATER))
    payable_until(system, orders[0], moment(LATER) + timedelta(hours=1))
    system.pay(orders[0])
    await system.close()
    assert [await system.status(one) for one in (late, last)] == ["expired", "paid"]
    assert ("refund-due", 20_000, "paid-late") in await system.ledger(late)


async def test_approved_a_microsecond_before_its_own_new_close_and_at_it(
    system: System, office: Office
) -> None:
    candidate = await system.owing()
    system.at("2024-02-08 23:00")
    decision = await office.asked()
    system.at(LATER)
    answer = await office.say(decision, "approve")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert (await office.read(decision))["state"] == "overtaken"
    await system.close()
    assert await system.words(candidate) == ["due", "expired"], "what nobody decided holds nobody up for ever"
    system.clock.jump(moment(LATER) + timedelta(hours=1))
    other = await office.asked("2024-02-12 00:00")
    system.clock.jump(moment("2024-02-12 00:00") - INSTANT)
    await office.approve(other)
    await system.carry_out_job.run()
    assert await system.words(candidate) == ["due", "expired", "reinstated"]


# --- whom it must not touch


async def test_paid_rejected_and_withdrawn_people_are_neither_moved_nor_told(
    system: System, office: Office
) -> None:
    paid, gone, left, owes = await system.approved(4)
    await system.paid_and_heard(await system.ordered(paid))
    await system.deliver(rejected(gone), withdrawn(left))
    system.at("2024-02-09 01:00")
    await system.close()
    await office.extend()
    assert await words(system, [paid, gone, left, owes]) == [
        ["due", "paid"],
        ["due"],
        ["due"],
        ["due", "expired", "reinstated"],
    ]


async def test_whoever_was_held_owes_again_until_the_new_close(system: System, office: Office) -> None:
    candidate = await system.owing()
    system.at("2024-02-08 23:57:59")
    await system.ordered(candidate)
    system.at(CLOSES)
    system.gateway_down(3600)
    await system.close()
    assert await system.status(candidate) == "held"
    decision = await office.extend()
    assert decision["preview"]["orders_under_way"] == 1
    assert await system.status(candidate) == "awaiting"
    assert await system.words(candidate) == ["due", "window-moved"]
    system.at("2024-02-09 02:00")
    await system.settle()
    await system.paid_and_heard(await system.ordered(candidate))
    assert await system.words(candidate) == ["due", "window-moved", "paid"]


async def test_whose_late_money_went_back_is_taken_back_and_pays_anew(system: System, office: Office) -> None:
    candidate = await system.owing()
    system.at("2024-02-08 23:57")
    order = await system.ordered(candidate)
    system.at("2024-02-09 00:00:01")
    payable_until(system, order, moment(LATER))
    system.pay(order)
    await system.close()
    assert await system.status(candidate) == "expired"
    await system.refund()
    decision = await office.extend()
    assert (decision["preview"]["reinstated"], decision["preview"]["refunded"]) == (1, 1)
    assert await system.words(candidate) == ["due", "expired", "refunded", "reinstated"]
    await system.paid_and_heard(await system.ordered(candidate))
    assert (await system.words(candidate))[-1] == "paid"
    money = await system.office("money")
    assert (money["received"], money["paid"], money["refunded"], money["due"], money["held"]) == (
        40_000,
        20_000,
        20_000,
        0,
        0,
    )


# --- an earlier close


async def test_an_earlier_close_by_which_too_many_would_fall_is_refused_with_the_figures(
    system: System, office: Office
) -> None:
    """Row 59 of the fault matrix."""
    await system.approved(2)
    with counts(1, "kaowu_refusals_total", route="/office/decisions", code="not-allowed"):
        answer = await office.ask("2024-02-06 00:00")
    assert (answer.status_code, answer.json()["code"]) == (409, "not-allowed")
    assert answer.json()["hints"] == {"would_fall": 2, "approved": 2}


async def test_an_earlier_close_that_costs_few_their_time_is_done_and_told(
    system: System, office: Office
) -> None:
    paid = await system.approved(100)
    await system.write("update obligations set status = 'paid', paid_at = opens_at, version = 2")
    owes = await system.owing()
    decision = await office.asked("2024-02-06 00:00")
    assert (decision["earlier"], decision["reason_code"], decision["preview"]["would_fall"]) == (
        True,
        "outage",
        1,
    )
    # One more before the other has looked: now it is more than one in a hundred.
    more = await system.owing()
    answer = await office.say(decision, "approve")
    assert (answer.status_code, answer.json()["hints"]) == (409, {"would_fall": 2, "approved": 102})
    await system.deliver(rejected(more))
    await office.approve(decision)
    await system.carry_out_job.run()
    assert await system.words(owes) == ["due", "window-moved"]
    system.clock.jump(moment("2024-02-06 00:00") - INSTANT)
    assert await system.close() == moment("2024-02-06 00:00")
    system.at("2024-02-06 00:00")
    await system.close()
    assert await system.words(owes) == ["due", "window-moved", "expired"]
    (said,) = await system.said(system.cycle.id)
    assert isinstance(said, payment.WindowClosed)
    assert (said.counts.paid, said.counts.expired) == (len(paid), 1)


@pytest.mark.parametrize("late", [timedelta(0), -INSTANT])
async def test_an_earlier_close_that_came_before_anybody_was_told_takes_nobodys_time(
    system: System, office: Office, late: timedelta
) -> None:
    """The service was down from the approval on: a close that nobody knew is no reason to lose a place."""
    paid, owes = await system.approved(100), await system.owing()
    await system.write(
        "update obligations set status = 'paid', paid_at = opens_at, version = 2 where registration_id = any($1::uuid[])",
        paid,
    )
    decision = await office.asked("2024-02-06 00:00")
    await office.approve(decision)
    system.clock.jump(moment("2024-02-06 00:00") + late)
    await system.carry_out_job.run()
    system.at("2024-02-06 00:00")
    await system.close()
    if late:
        assert await system.words(owes) == ["due", "window-moved", "expired"]
        return
    assert await system.words(owes) == ["due"]
    done = await office.read(decision)
    assert (done["state"], done["done"]) == ("done", {"moved": 0, "reinstated": 0})
    # The close that they know is the one they are reminded of, and pay before.
    system.at("2024-02-08 00:00")
    await system.remind()
    system.at("2024-02-08 23:00")
    await system.paid_and_heard(await system.ordered(owes))
    assert await system.words(owes) == ["due", "closing-soon", "paid"]
