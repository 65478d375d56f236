"""WeChat and Alipay side by side. What Alipay was asked for and nobody opened it does not know: its code stays payable."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from contracts.payment import Paid
from deploy.simulators.order_book import Refusal
from deploy.simulators.outage import Outage
from services.payment.adapters.alipay import Alipay
from services.payment.adapters.wechat import WeChatPay
from services.payment.domain.order import ORDER_LIFE
from services.payment.ports import Answer, PlacedOrder
from tests.service.payment.backups import Backups
from tests.service.payment.system import CLOSES, System, moment, rejected

DAY = "2024-01-30 10:00"
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
async def both(system: System) -> System:
    await system.with_alipay()
    return system


async def test_a_fee_may_be_paid_at_either(both: System) -> None:
    both.at(DAY)
    for channel in ("wechat", "alipay"):
        candidate = await both.owing()
        await both.paid_and_heard(await both.ordered(candidate, channel))
        assert await both.words(candidate) == ["due", "paid"]
        assert [event.channel for event in await both.said(candidate) if isinstance(event, Paid)] == [channel]
    assert both.heard == [204, 200]


async def test_a_notice_of_alipay_that_got_lost_is_found_by_asking(both: System) -> None:
    both.at(DAY)
    candidate = await both.owing()
    both.pay(await both.ordered(candidate, "alipay"))
    both.clock.jump(moment(DAY) + ORDER_LIFE)
    await both.settle()
    assert await both.words(candidate) == ["due", "paid"]


async def test_a_forged_notice_of_alipay_is_answered_failure_and_changes_nothing(both: System) -> None:
    both.at(DAY)
    candidate = await both.owing()
    await both.ordered(candidate, "alipay")
    answer = await both.http.post("/gateway/alipay/notify", content=b"trade_status=TRADE_SUCCESS&sign=eA==")
    assert (answer.status_code // 100, answer.text) == (4, "failure")
    assert await both.words(candidate) == ["due"]


async def test_a_code_let_go_for_another_channel_still_counts_if_it_is_paid_in_time(both: System) -> None:
    """Its notice gets lost: it is asked about at its end."""
    both.at(DAY)
    candidate = await both.owing()
    first = await both.ordered(candidate, "alipay")
    second = await both.ordered(candidate, "wechat")
    assert [(await both.order_row(one))["status"] for one in (first, second)] == ["lapsing", "open"]
    both.pay(first)
    both.clock.jump(moment(DAY) + ORDER_LIFE - MICROSECOND)
    await both.settle()
    assert await both.words(candidate) == ["due"]
    both.clock.jump(moment(DAY) + ORDER_LIFE)
    await both.settle()
    assert await both.words(candidate) == ["due", "paid"]
    assert (await both.order_row(second))["status"] == "closed"


async def test_a_code_that_is_opened_between_our_close_and_our_query_is_closed_and_not_only_called_so(
    both: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    both.at(DAY)
    candidate = await both.owing()
    first = await both.ordered(candidate, "alipay")
    query, book = Alipay.query, both.world.alipay.book

    async def opened_just_before(alipay: Alipay, order_no: str) -> Answer:
        book.open(order_no, both.clock.now())
        return await query(alipay, order_no)

    monkeypatch.setattr(Alipay, "query", opened_just_before)
    await both.ordered(candidate, "wechat")
    assert (await both.order_row(first))["status"] == "closed"
    with pytest.raises(Refusal):
        both.pay(first)


async def test_a_number_is_never_at_two_gateways(both: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two requests at once: the second finds the first unknown at its gateway, because it has not come there yet."""
    both.at(DAY)
    candidate = await both.owing()
    place, answered = WeChatPay.place_order, list[int]()

    async def overtaken(
        wechat: WeChatPay, order_no: str, amount_fen: int, description: str, expires_at: datetime
    ) -> PlacedOrder:
        if not answered:
            answered.append((await both.order(candidate, "alipay")).status_code)
        return await place(wechat, order_no, amount_fen, description, expires_at)

    monkeypatch.setattr(WeChatPay, "place_order", overtaken)
    first = await both.order(candidate, "wechat")
    assert (answered, first.status_code, first.json()["code"]) == ([201], 409, "not-allowed")
    orders = {row["channel"]: row for row in await both.rows("select * from orders")}
    assert {channel: row["status"] for channel, row in orders.items()} == {
        "wechat": "closed",
        "alipay": "open",
    }
    with pytest.raises(Refusal):
        both.world.wechat.pay(orders["wechat"]["order_no"], [])
    await both.paid_and_heard(orders["alipay"]["order_no"])
    assert await both.words(candidate) == ["due", "paid"]


async def test_paying_the_code_let_go_and_the_new_one_gives_one_of_them_back(both: System) -> None:
    both.at(DAY)
    candidate = await both.owing()
    first = await both.ordered(candidate, "alipay")
    await both.paid_and_heard(await both.ordered(candidate, "wechat"))
    await both.paid_and_heard(first)
    await both.refund()
    assert await both.words(candidate) == ["due", "paid", "refunded"]
    assert both.world.alipay.refunds.totals(both.clock.now())["refunds"] == 1


async def test_whoever_paid_the_code_let_go_is_not_given_another_one(both: System) -> None:
    """Its notice is late, and an order of the other channel is open."""
    both.at(DAY)
    candidate = await both.owing()
    first = await both.ordered(candidate, "alipay")
    await both.ordered(candidate, "wechat")
    both.pay(first)
    answer = await both.order(candidate, "wechat")
    assert (answer.status_code, answer.json()["code"]) == (409, "already-paid")
    assert await both.words(candidate) == ["due", "paid"]


async def test_nobody_is_forfeited_over_a_code_that_could_be_opened_until_the_close(both: System) -> None:
    both.at("2024-02-08 23:00")
    payer, other = await both.approved(2)
    for candidate in (payer, other):
        first = await both.ordered(candidate, "alipay")
        await both.ordered(candidate, "wechat")
        if candidate == payer:
            both.pay(first)
    both.at(CLOSES)
    await both.close()
    assert await both.words(payer) == ["due", "paid"]
    assert await both.words(other) == ["due", "expired"]


async def test_a_silent_alipay_holds_who_has_its_code_at_the_close(both: System) -> None:
    both.at("2024-02-08 23:00")
    candidate = await both.owing()
    both.pay(await both.ordered(candidate, "alipay"))
    both.world.alipay.weather.bring(2 * 3600, Outage.REFUSE)
    both.at(CLOSES)
    await both.close()
    assert await both.status(candidate) == "held"
    both.clock.jump(moment(CLOSES) + timedelta(hours=3))
    await both.settle()
    assert await both.words(candidate) == ["due", "paid"]


async def test_an_account_that_is_gone_holds_who_ordered_there_and_keeps_nobody_else_waiting(
    both: System,
) -> None:
    both.at("2024-02-08 23:00")
    ordered, paid, never = await both.approved(3)
    both.pay(await both.ordered(ordered, "alipay"))
    both.pay(await both.ordered(paid, "wechat"))
    await both.end()
    both.settings = both.settings.model_copy(update={"alipay_account_file": None})
    both.start()
    both.at(CLOSES)
    await both.close()
    assert [await both.status(one) for one in (ordered, paid, never)] == ["held", "paid", "expired"]
    (held,) = (await both.office("close"))["held"]
    assert held["channel"] == "alipay"
    both.clock.jump(moment(CLOSES) + timedelta(hours=3))
    await both.settle()
    assert await both.status(ordered) == "held"
    await both.with_alipay()
    both.clock.jump(moment(CLOSES) + timedelta(days=1))
    await both.settle()
    assert await both.words(ordered) == ["due", "paid"]


async def test_a_code_that_ended_unopened_leaves_its_number_to_the_next(both: System) -> None:
    both.at(DAY)
    candidate = await both.owing()
    first = await both.ordered(candidate, "alipay")
    both.clock.jump(moment(DAY) + ORDER_LIFE)
    await both.settle()
    assert (await both.order_row(first))["status"] == "closed"
    assert await both.ordered(candidate, "wechat") == first
    assert (await both.order_row(first))["channel"] == "wechat"


async def test_two_orders_at_once_after_two_numbers_that_nobody_heard_of_leave_one_open(both: System) -> None:
    """Both wait for the same row, and what they have seen of the orders is what was there before they waited."""
    both.at(DAY)
    candidate = await both.owing()
    unheard = [await both.ordered(candidate, "alipay") for _ in range(2)]
    both.clock.jump(moment(DAY) + ORDER_LIFE)
    await both.settle()
    assert [(await both.order_row(one))["status"] for one in unheard] == ["closed", "closed"]
    async with both.other_session() as holding:
        await holding.sql("select 1 from obligations where registration_id = $1 for update", candidate)
        orders = [asyncio.create_task(both.order(candidate, "wechat")) for _ in range(2)]
        await both.until_waiting(len(orders))
    answers = [await order for order in orders]
    assert {answer.json().get("code", "made") for answer in answers} <= {"made", "not-allowed"}, [
        answer.text for answer in answers
    ]
    rows = await both.rows("select order_no, status from orders")
    assert [row["status"] for row in rows].count("open") == 1
    payable = [o.out_trade_no for o in both.world.wechat.book.orders() if o.state == "NOTPAY"]
    assert payable == [row["order_no"] for row in rows if row["status"] == "open"]


async def test_a_third_code_is_not_let_go_while_two_can_be_opened_but_wechat_goes_on(both: System) -> None:
    both.at(DAY)
    candidate = await both.owing()
    for _ in range(2):
        await both.ordered(candidate, "alipay")
        await both.ordered(candidate, "wechat")
    answer = await both.order(candidate, "alipay")
    assert (answer.status_code, answer.json()["code"]) == (409, "not-allowed")
    assert "微信支付" in answer.text
    await both.paid_and_heard(await both.ordered(candidate, "wechat"))
    assert await both.words(candidate) == ["due", "paid"]


async def test_who_is_rejected_is_asked_about_again_when_the_code_ends(both: System) -> None:
    both.at(DAY)
    candidate = await both.owing()
    order = await both.ordered(candidate, "alipay")
    await both.deliver(rejected(candidate))
    await both.settle()
    assert (await both.order_row(order))["status"] == "lapsing"
    both.pay(order)
    both.clock.jump(moment(DAY) + ORDER_LIFE)
    await both.settle()
    await both.refund()
    assert await both.ledger(candidate) == [
        ("received", 20000, None),
        ("refund-due", 20000, "rejected"),
        ("refunded", 20000, None),
    ]


async def ordered_both_ways(both: System, candidate: UUID) -> str:
    """Alipay's code let go unopened, then WeChat's order: the first number is not known to anybody."""
    await both.ordered(candidate, "alipay")
    return await both.ordered(candidate, "wechat")


async def test_after_a_restore_an_order_behind_a_number_that_nobody_knows_is_found(
    both: System, backups: Backups
) -> None:
    both.at(DAY)
    candidate = await both.owing()
    backup = await backups.take()
    await ordered_both_ways(both, candidate)
    last = await ordered_both_ways(both, candidate)
    both.pay(last)
    await backups.restore(backup)
    await both.settle()
    assert await both.words(candidate) == ["due", "paid"]


async def test_after_a_restore_nobody_is_forfeited_while_a_code_of_before_can_be_opened(
    both: System, backups: Backups
) -> None:
    """The lost order is opened and paid after the first questions; they are asked again when it has ended."""
    both.at("2024-02-08 22:59:59")
    payer, other = await both.approved(2)
    backup = await backups.take()
    order = await both.ordered(payer, "alipay")
    await backups.restore(backup)
    await both.settle()
    assert await open_recoveries(both) == 1
    both.at("2024-02-08 23:59:50")
    both.pay(order)
    both.at(CLOSES)
    await both.settle()
    await both.close()
    assert [await both.words(one) for one in (payer, other)] == [["due"], ["due"]]
    both.clock.jump(moment("2024-02-08 22:59:59") + ORDER_LIFE - MICROSECOND)
    await both.settle()
    assert await open_recoveries(both) == 1
    both.clock.jump(moment("2024-02-08 22:59:59") + ORDER_LIFE)
    await both.settle()
    assert await open_recoveries(both) == 0
    await both.close()
    assert [await both.words(one) for one in (payer, other)] == [["due", "paid"], ["due", "expired"]]


async def test_after_a_restore_whoever_was_asked_about_orders_again_while_old_codes_end(
    both: System, backups: Backups
) -> None:
    both.at(DAY)
    candidate = await both.owing()
    await backups.restore(await backups.take())
    await both.settle()
    assert await open_recoveries(both) == 1
    await both.paid_and_heard(await both.ordered(candidate, "alipay"))
    assert await both.words(candidate) == ["due", "paid"]


async def open_recoveries(both: System) -> int:
    return len(await both.rows("select 1 from recoveries where finished_at is null"))


async def test_without_an_account_nobody_is_offered_alipay(system: System) -> None:
    system.at(DAY)
    candidate = await system.owing()
    answer = await system.order(candidate, "alipay")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert "没有开通" in answer.text
    assert (await system.http.post("/gateway/alipay/notify", content=b"x")).status_code == 404
