"""“Check my payment now”: the gateway is asked at once, and the candidate reads what it said and what to do."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from deploy.simulators.order_book import TradeState
from deploy.simulators.outage import Outage
from tests.service.payment.system import CLOSES, System, moment, rejected

LAST = "2024-02-08 23:57:59"


async def checked(system: System, registration_id: UUID, later: float = 10) -> dict[str, Any]:
    """The answer, asked as soon as it may be asked again."""
    system.clock.jump(system.process.plumbing.clock.now() + timedelta(seconds=later))
    answer = await system.call(
        "POST", f"/registrations/{registration_id}/payment/check", f"candidate:{registration_id}"
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_whoever_has_paid_unheard_is_paid_as_soon_as_they_ask(system: System) -> None:
    candidate = await system.owing()
    system.pay(await system.ordered(candidate))
    found = await checked(system, candidate)
    assert (found["state"], found["outcome"], found["asked"]) == ("paid", "paid", 1)
    assert found["message"].startswith("已查到您的付款，缴费成功")
    assert await system.words(candidate) == ["due", "paid"]
    assert await system.ledger(candidate) == [("received", 20_000, None), ("fee", 20_000, None)]
    # The callback that was late comes all the same.
    before = await system.everything()
    await system.call_back((await system.rows("select order_no from orders"))[0]["order_no"])
    assert await system.everything() == before
    assert (await checked(system, candidate))["outcome"] == "paid"


async def test_an_order_that_can_still_be_paid_is_asked_about_and_not_closed(system: System) -> None:
    candidate = await system.owing()
    order_no = await system.ordered(candidate)
    found = await checked(system, candidate)
    assert (found["state"], found["outcome"]) == ("awaiting", "unpaid")
    assert "请在2024年2月8日（星期四）24:00（北京时间）前完成网上缴费" in found["message"]
    assert (await system.order_row(order_no))["status"] == "open"
    await system.paid_and_heard(order_no)
    assert await system.status(candidate) == "paid"


async def test_an_order_past_its_end_gets_its_last_word(system: System) -> None:
    candidate = await system.owing()
    order_no = await system.ordered(candidate)
    found = await checked(system, candidate, later=2 * 3600)
    assert (found["state"], found["outcome"]) == ("awaiting", "unpaid")
    assert (await system.order_row(order_no))["status"] == "closed"


async def test_who_never_ordered_is_told_so_and_nobody_is_asked(system: System) -> None:
    candidate = await system.owing()
    before = await system.everything()
    found = await checked(system, candidate)
    assert (found["outcome"], found["asked"], found["state"]) == ("no-order", 0, "awaiting")
    assert found["message"].startswith("没有查到您的缴费订单。请在2024年2月8日（星期四）24:00")
    assert await system.everything() == before
    system.at(CLOSES)
    await system.close()
    found = await checked(system, candidate)
    assert (found["outcome"], found["state"]) == ("no-order", "expired")
    assert system.cycle.contact_phone in found["message"]


async def test_a_gateway_that_is_away_is_said_to_be_and_nothing_changes(system: System) -> None:
    candidate = await system.owing()
    system.pay(await system.ordered(candidate))
    system.gateway_down(60)
    before = await system.everything()
    found = await checked(system, candidate)
    assert (found["state"], found["outcome"]) == ("awaiting", "no-answer")
    assert "支付渠道暂时没有答复，您的缴费状态没有改变" in found["message"]
    assert await system.everything() == before
    assert (await checked(system, candidate, later=61))["state"] == "paid"


async def test_somebody_held_is_decided_the_moment_they_ask_and_the_gateway_answers(system: System) -> None:
    paid, unpaid = await system.approved(2)
    system.at(LAST)
    first, _ = await system.ordered(paid), await system.ordered(unpaid)
    system.pay(first)
    system.at(CLOSES)
    system.gateway_down(600)
    await system.close()
    assert [await system.status(one) for one in (paid, unpaid)] == ["held", "held"]
    assert (await checked(system, paid))["outcome"] == "no-answer"
    system.clock.jump(moment(CLOSES) + timedelta(seconds=700))
    system.close_job.awake.clear()
    assert (await checked(system, paid))["state"] == "paid"
    found = await checked(system, unpaid)
    assert (found["state"], found["outcome"]) == ("held", "unpaid")
    assert "缴费已经截止" in found["message"]
    assert system.close_job.awake.is_set(), "nobody told the close that somebody held is decided"
    await system.close()
    assert [await system.status(one) for one in (paid, unpaid)] == ["paid", "expired"]


@pytest.mark.parametrize("in_time", [True, False])
async def test_whoever_paid_and_was_forfeited_all_the_same_asks_and_is_reinstated_or_refunded(
    system: System, in_time: bool
) -> None:
    """The gateway denied the order at the close, and has it now."""
    candidate = await system.owing()
    system.at(LAST)
    order_no = await system.ordered(candidate)
    system.at(CLOSES)
    await system.close()
    assert await system.status(candidate) == "expired"
    order = system.world.wechat.book.find(order_no)
    assert order is not None
    order.state = TradeState.SUCCESS
    order.paid_at = moment(CLOSES) + timedelta(seconds=-1 if in_time else 0)
    order.transaction_id = "4200000000000000000000000001"
    found = await checked(system, candidate)
    if in_time:
        assert (found["state"], found["outcome"]) == ("paid", "paid")
        assert await system.words(candidate) == ["due", "expired", "reinstated", "paid"]
    else:
        assert (found["state"], found["outcome"]) == ("expired", "goes-back")
        assert "将原路全额退回" in found["message"]
        assert await system.words(candidate) == ["due", "expired"]
        assert await system.ledger(candidate) == [
            ("received", 20_000, None),
            ("refund-due", 20_000, "paid-late"),
        ]


async def test_whoever_was_rejected_and_has_paid_reads_that_the_money_goes_back(system: System) -> None:
    candidate = await system.owing()
    system.pay(await system.ordered(candidate))
    await system.deliver(rejected(candidate))
    found = await checked(system, candidate)
    assert (found["state"], found["outcome"]) == ("cancelled", "goes-back")
    assert ("refund-due", 20_000, "rejected") in await system.ledger(candidate)
    other = await system.owing()
    await system.deliver(rejected(other))
    assert "您目前没有应缴费用" in (await checked(system, other))["message"]


async def test_asking_is_possible_every_ten_seconds_for_each_and_not_more_often(system: System) -> None:
    candidate, other = await system.approved(2)
    order_no = await system.ordered(candidate)
    path, role = f"/registrations/{candidate}/payment/check", f"candidate:{candidate}"
    asked = await asyncio.gather(*(system.call("POST", path, role) for _ in range(20)))
    assert sorted(answer.status_code for answer in asked) == [200] + [429] * 19
    refused = next(answer for answer in asked if answer.status_code == 429)
    assert refused.json()["code"] == "too-soon"
    assert refused.json()["detail"] == "操作太频繁，请在10秒后再试。"
    assert refused.headers["retry-after"] == "10"
    assert (await checked(system, other, later=0))["outcome"] == "no-order"
    system.pay(order_no)
    again = await system.call("POST", path, role)
    assert again.status_code == 429
    assert await system.status(candidate) == "awaiting"
    system.clock.jump(system.process.plumbing.clock.now() + timedelta(seconds=9, microseconds=999_999))
    assert (await system.call("POST", path, role)).status_code == 429
    assert (await checked(system, candidate, later=0.000001))["state"] == "paid"


async def test_an_answer_that_is_lost_on_its_way_is_no_answer(system: System) -> None:
    candidate = await system.owing()
    await system.ordered(candidate)
    system.gateway_down(60, Outage.LOSE)
    assert (await checked(system, candidate))["outcome"] == "no-answer"


async def test_only_the_candidate_may_ask_and_only_about_what_is_owed(system: System) -> None:
    candidate, other = await system.approved(2)
    path = f"/registrations/{candidate}/payment/check"
    assert (await system.call("POST", path, None)).status_code == 401
    for role in (f"candidate:{other}", "office", "desk:shizhong"):
        assert (await system.call("POST", path, role)).status_code == 403
    nobody = UUID(int=7)
    answer = await system.call("POST", f"/registrations/{nobody}/payment/check", f"candidate:{nobody}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
