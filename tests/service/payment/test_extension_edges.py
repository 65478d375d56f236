"""Extensions at their edges: the microsecond before, the moment itself, after the sweep, and whom they must not touch."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from uuid_utils.compat import uuid7

from contracts import payment
from services.payment.handlers import closing as close_handlers
from tests.service.payment.system import CLOSES, System, moment, rejected, withdrawn
from tests.service.payment.two_people import INSTANT, LATER, Office, closes, owing_at, without_desk, words
from tests.support.counted import counts


@pytest.fixture
def office(system: System) -> Office:
    return Office(system)


def payable_until(system: System, order_no: str, at: datetime) -> None:
    """A gateway that does not keep to the end it was given."""
    order = system.world.wechat.book.find(order_no)
    assert order is not None
    order.expires_at = at


async def closed(system: System) -> list[datetime]:
    """The closes whose totals are published."""
    found = await system.said(system.cycle.id)
    return [event.closes_at for event in found if isinstance(event, payment.WindowClosed)]


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


# --- one desk


async def test_an_extension_of_one_desk_moves_its_people_and_nobody_else(
    system: System, office: Office
) -> None:
    ebian, jingyan, other = await owing_at(system, "ebian", "jingyan", "mabian")
    system.at("2024-02-08 23:59")
    decision = await office.asked(site="ebian")
    assert (decision["preview"]["moved"], decision["preview"]["without_site"]) == (1, 0)
    system.at("2024-02-09 06:00")
    assert await system.close() == moment(LATER)
    assert await words(system, [ebian, jingyan, other]) == [["due"], ["due", "expired"], ["due", "expired"]]
    assert await system.said(system.cycle.id) == [], "what the close comes to is not known yet"
    await office.approve(decision)
    await system.carry_out_job.run()
    await system.close()
    (first,) = await system.said(system.cycle.id)
    assert isinstance(first, payment.WindowClosed)
    assert (first.closes_at, first.counts.expired, first.proofs) == (moment(CLOSES), 2, 2)
    assert await system.words(ebian) == ["due", "window-moved"]
    assert [await closes(system, one) for one in (ebian, jingyan)] == [moment(LATER), moment(CLOSES)]
    # Approved late at that desk: until its close; elsewhere the close looks once more.
    (later,) = await owing_at(system, "ebian")
    assert await closes(system, later) == moment(LATER)
    system.at(LATER)
    await system.close()
    assert await words(system, [ebian, later]) == [["due", "window-moved", "expired"], ["due", "expired"]]
    second = (await system.said(system.cycle.id))[-1]
    assert isinstance(second, payment.WindowClosed)
    assert (second.closes_at, second.counts.expired, second.proofs) == (moment(LATER), 2, 2)


async def test_one_desk_is_not_extended_while_it_is_not_known_who_belongs_to_it(
    system: System, office: Office
) -> None:
    (ebian,) = await owing_at(system, "ebian")
    owes, pays, falls = await without_desk(system, 3)
    await system.paid_and_heard(await system.ordered(pays))
    answer = await office.ask(LATER, site="ebian")
    assert (answer.status_code, answer.json()["code"], answer.json()["hints"]) == (
        409,
        "not-allowed",
        {"without_site": 2},
    )
    assert answer.json()["detail"].startswith("有 2 位考生在系统记录报名点之前已通过审核")
    assert (
        "请改为全部报名点一起办理，或请运维先补记报名点（docs/runbooks/extension.md）"
        in answer.json()["detail"]
    )
    english = (await office.ask(LATER, site="ebian", language="en")).json()["detail"]
    assert english.startswith("2 were approved before desks were noted here")
    assert await system.rows("select from decisions") == []
    # Of all desks they are reached, so that nothing need be known.
    decision = await office.extend()
    assert (decision["done"]["moved"], decision["preview"]["without_site"]) == (3, 0)
    assert [await closes(system, one) for one in (ebian, owes, falls)] == [moment(LATER)] * 3


async def test_one_desk_is_extended_once_ops_have_filled_in_whose_desk_it_is(
    system: System, office: Office
) -> None:
    (unknown,) = await without_desk(system, 1)
    await system.write("update obligations set site_id = 'ebian' where registration_id = $1", unknown)
    decision = await office.extend(site="ebian")
    assert decision["done"]["moved"] == 1
    assert await closes(system, unknown) == moment(LATER)


async def test_somebody_without_a_desk_who_appears_while_it_is_being_decided_stops_the_approval(
    system: System, office: Office
) -> None:
    await owing_at(system, "ebian")
    decision = await office.asked(site="ebian")
    await without_desk(system, 1)
    answer = await office.say(decision, "approve")
    assert (answer.status_code, answer.json()["hints"]) == (409, {"without_site": 1})
    assert (await office.read(decision))["state"] == "asked"


async def test_a_close_that_a_restore_has_left_half_carried_out_is_asked_for_again_and_reaches_the_rest(
    system: System, office: Office
) -> None:
    """The desk's new close is on the topic, the decision is lost, and one of two people was not moved yet."""
    moved, left = await owing_at(system, "ebian", "ebian")
    await office.extend(site="ebian")
    before = moment(CLOSES)
    await system.write(
        "update obligations set closes_at = $2, told_closes_at = $2 where registration_id = $1", left, before
    )
    decision = await office.extend(site="ebian")
    assert decision["done"] == {"moved": 1, "reinstated": 0}
    assert [await closes(system, one) for one in (moved, left)] == [moment(LATER)] * 2
    answer = await office.ask(LATER, site="ebian")
    assert (answer.status_code, answer.json()["code"]) == (409, "not-allowed")


async def test_an_extension_for_all_leaves_a_desk_that_closes_later_as_it_is(
    system: System, office: Office
) -> None:
    ebian, jingyan = await owing_at(system, "ebian", "jingyan")
    await office.extend("2024-02-12 00:00", "ebian")
    await office.extend(LATER)
    assert [await closes(system, one) for one in (ebian, jingyan)] == [
        moment("2024-02-12 00:00"),
        moment(LATER),
    ]
    assert await system.words(ebian) == ["due", "window-moved"]


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


# --- one forfeiture


async def revive(office: Office, candidate: object, **more: object) -> dict[str, object]:
    body = {"kind": "revive", "registration_id": str(candidate), "reason": "住院，有证明", **more}
    answer = await office.call("office-li", "POST", "/office/decisions", body)
    return {"status": answer.status_code, **answer.json()}


async def test_one_forfeiture_is_lifted_by_two_people_and_payable_to_the_end_of_the_third_day(
    system: System, office: Office
) -> None:
    candidate, other = await system.approved(2)
    system.at("2024-02-09 10:00")
    await system.close()
    decision = await revive(office, candidate)
    assert decision["status"] == 201
    own = await office.say(decision, "approve", "office-li")
    assert own.status_code == 403
    await office.approve(decision)
    await system.carry_out_job.run()
    reinstated = (await system.said(candidate))[-1]
    assert reinstated == payment.Reinstated(
        cycle_id=system.cycle.id,
        registration_id=candidate,
        cause="two-person-decision",
        closes_at=moment("2024-02-13 00:00"),
    )
    assert await system.words(other) == ["due", "expired"]
    assert await system.close() == moment("2024-02-13 00:00")
    # Reminded of a close of their own.
    assert await system.remind() == moment("2024-02-10 00:00")
    system.at("2024-02-10 00:00")
    await system.remind()
    told = (await system.said(candidate))[-1]
    assert isinstance(told, payment.ClosingSoon)
    assert told.closes_at == moment("2024-02-13 00:00")
    system.at("2024-02-13 00:00")
    await system.close()
    assert (await system.words(candidate))[-1] == "expired"
    assert await closed(system) == [moment(CLOSES), moment("2024-02-13 00:00")]


async def test_only_a_forfeiture_is_lifted(system: System, office: Office) -> None:
    owes = await system.owing()
    for one in (owes, uuid7()):
        refused = await revive(office, one)
        assert (refused["status"], refused["code"]) == (409, "not-allowed")


async def test_whoever_turned_out_to_have_paid_in_time_is_not_lifted_a_second_time(
    system: System, office: Office
) -> None:
    candidate = await system.owing()
    system.at("2024-02-08 23:50")
    order = await system.ordered(candidate)
    system.pay(order)
    await system.write(
        "update orders set status = 'failed', refusal = 'LOST'"
    )  # nothing asks about it at the close
    system.at("2024-02-09 10:00")
    await system.close()
    decision = await revive(office, candidate)
    await system.call_back(order)
    assert await system.words(candidate) == ["due", "expired", "reinstated", "paid"]
    answer = await office.say(decision, "approve")
    assert (answer.status_code, answer.json()["code"]) == (409, "not-allowed")
    assert (await office.say(decision, "reject")).status_code == 200
