"""One forfeiture lifted by two people: who may be taken back, until when they pay, and what is told."""

from __future__ import annotations

import pytest
from uuid_utils.compat import uuid7

from contracts import payment
from tests.service.payment.system import CLOSES, System, moment
from tests.service.payment.two_people import Office, closed


@pytest.fixture
def office(system: System) -> Office:
    return Office(system)


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
