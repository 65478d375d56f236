"""A candidate orders and pays: what is due, what may be ordered when, and what the gateway makes of it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from contracts import payment
from deploy.simulators.outage import Outage
from services.payment.ports import PlacedOrder
from tests.service.payment.system import CLOSES, OPENS, System, approved, hours, moment, rejected


async def test_an_approval_makes_the_fee_due_until_the_close(system: System) -> None:
    four, two = uuid7(), uuid7()
    await system.deliver(
        approved(four), approved(two, level="intermediate", subjects=(1, 3), specialty_code="303")
    )
    assert await system.said(four) == [
        payment.Due(
            cycle_id=system.cycle.id,
            registration_id=four,
            amount_fen=20_000,
            currency="CNY",
            opens_at=moment(OPENS),
            closes_at=moment(CLOSES),
        )
    ]
    (due,) = await system.said(two)
    assert isinstance(due, payment.Due)
    assert due.amount_fen == 14_000
    answer = await system.call("GET", f"/registrations/{four}/payment", f"candidate:{four}")
    assert answer.status_code == 200
    facts = answer.json()
    assert (facts["state"], facts["amount_fen"], facts["sequence"], facts["orders"]) == (
        "awaiting",
        20_000,
        1,
        [],
    )


async def test_a_second_approval_of_what_is_owed_changes_nothing(system: System) -> None:
    candidate = await system.owing()
    await system.deliver(approved(candidate))
    assert await system.words(candidate) == ["due"]
    await system.paid_and_heard(await system.ordered(candidate))
    await system.deliver(approved(candidate))
    assert await system.words(candidate) == ["due", "paid"]


async def test_an_approval_whose_fee_is_unknown_is_parked_and_makes_nothing_due(system: System) -> None:
    candidate, other = uuid7(), uuid7()
    await system.deliver(approved(candidate, specialty_code="999"), approved(other))
    assert await system.parked() == ["failed: KeyError"]
    assert await system.words(candidate) == []
    assert await system.words(other) == ["due"]


async def test_an_order_shows_a_code_and_is_paid_by_the_gateways_notice(system: System) -> None:
    candidate = await system.owing()
    answer = await system.order(candidate)
    assert answer.status_code == 201
    order = answer.json()
    assert order["code_url"].startswith("weixin://")
    assert order["amount_fen"] == 20_000
    assert order["expires_at"] == "2024-01-28T18:00:00Z"

    system.pay(order["order_no"], [3, 3, 60])
    for seconds in (3, 60):
        system.clock.jump(moment(OPENS) + timedelta(seconds=seconds))
        await asyncio.sleep(0.03)
        await system.gateway_at_rest()
    assert system.heard == [204, 204, 204]
    assert await system.words(candidate) == ["due", "paid"]
    paid = (await system.said(candidate))[-1]
    assert isinstance(paid, payment.Paid)
    assert (paid.paid_at, paid.order_no, paid.amount_fen) == (moment(OPENS), order["order_no"], 20_000)
    assert await system.ledger(candidate) == [("received", 20_000, None), ("fee", 20_000, None)]

    again = await system.order(candidate)
    assert (again.status_code, again.json()["code"]) == (409, "already-paid")


@pytest.mark.parametrize(
    ("at", "code"),
    [
        ("2024-01-28 23:59:59.999999", "window-not-open"),
        ("2024-01-29 00:00", None),
        ("2024-02-08 23:57:59.999999", None),
        ("2024-02-08 23:58", "too-late-to-order"),
        ("2024-02-08 23:59:59.999999", "too-late-to-order"),
        ("2024-02-09 00:00", "window-closed"),
    ],
)
async def test_orders_are_taken_inside_the_window_only(system: System, at: str, code: str | None) -> None:
    if at < "2024-01-29":
        system.clock = type(system.clock)(system.settings.clock_file, moment(at))  # type: ignore[arg-type]  # set here
    candidate, stranger = await system.owing(), uuid7()
    system.at(at)
    answer = await system.order(candidate)
    if code is None:
        assert answer.status_code == 201
        order = (await system.rows("select * from orders"))[0]
        assert order["expires_at"] == min(moment(at) + hours(2), moment(CLOSES))
        assert (await system.order(stranger)).json()["code"] == "not-approved"
    else:
        assert (answer.status_code, answer.json()["code"]) == (409, code)
        # The window is told before the state, whoever asks.
        assert (await system.order(stranger)).json()["code"] == code
        assert not await system.rows("select * from orders")


async def test_only_the_candidate_may_order_and_see(system: System) -> None:
    candidate, other = await system.approved(2)
    for role in (f"candidate:{other}", "office", "desk:shizhong", "ops"):
        answer = await system.call("POST", f"/registrations/{candidate}/orders", role, {"channel": "wechat"})
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert (await system.call("GET", f"/registrations/{candidate}/payment", None)).status_code == 401
    assert (
        await system.call("GET", f"/registrations/{candidate}/payment", f"candidate:{other}")
    ).status_code == 403
    assert (await system.call("GET", f"/registrations/{candidate}/payment", "office")).status_code == 200
    for path in ("payments", "money", "close"):
        answer = await system.call("GET", f"/office/{path}", f"candidate:{candidate}")
        assert answer.status_code == 403


async def test_a_channel_that_is_not_offered_is_refused_with_its_field(system: System) -> None:
    answer = await system.order(await system.owing(), "alipay")
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid"
    assert answer.json()["fields"][0]["field"] == "channel"


async def test_a_second_order_closes_the_first_at_the_gateway(system: System) -> None:
    candidate = await system.owing()
    first = await system.ordered(candidate)
    second = await system.ordered(candidate)
    assert (await system.order_row(first))["status"] == "closed"
    assert (await system.order_row(second))["status"] == "open"
    closed = system.world.wechat.book.find(first)
    assert closed is not None
    assert closed.state == "CLOSED"
    assert len(await system.rows("select * from answers where order_no = $1", first)) == 1


async def test_a_first_order_that_turns_out_paid_refuses_the_second(system: System) -> None:
    candidate = await system.owing()
    first = await system.ordered(candidate)
    system.pay(first)
    answer = await system.order(candidate)
    assert (answer.status_code, answer.json()["code"]) == (409, "already-paid")
    assert await system.words(candidate) == ["due", "paid"]
    assert len(await system.rows("select * from orders")) == 1


async def test_many_orders_at_once_leave_one_open(system: System) -> None:
    candidate = await system.owing()
    answers = await asyncio.gather(*(system.order(candidate) for _ in range(6)))
    codes = [answer.json().get("code", "made") for answer in answers]
    assert set(codes) <= {"made", "not-allowed"}
    orders = await system.rows("select order_no, status from orders")
    still_open = [row["order_no"] for row in orders if row["status"] in {"creating", "open", "unknown"}]
    assert len(still_open) <= 1
    payable = [o.out_trade_no for o in system.world.wechat.book.orders() if o.state == "NOTPAY"]
    assert payable == still_open, "an order nobody counts as open could still be paid"


async def test_an_order_overtaken_on_its_way_to_the_gateway_leaves_the_other_one_payable(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway denied the first, so the second took its number: to the gateway the two are one order."""
    candidate = await system.owing()
    channel = system.turns.gateways.channels["wechat"]
    place, on_its_way, go = channel.place_order, asyncio.Event(), asyncio.Event()

    async def slow(*asked: Any) -> PlacedOrder:
        if not on_its_way.is_set():
            on_its_way.set()
            await go.wait()
        return await place(*asked)

    monkeypatch.setattr(channel, "place_order", slow)
    first = asyncio.create_task(system.order(candidate))
    await on_its_way.wait()
    second = await system.ordered(candidate)
    go.set()
    answer = await first
    assert (answer.status_code, answer.json()["code"]) == (409, "not-allowed")
    book = {order.out_trade_no: order.state for order in system.world.wechat.book.orders()}
    assert book == {second: "NOTPAY"}
    assert [row["status"] for row in await system.rows("select status from orders")] == ["open"]
    await system.paid_and_heard(second)
    assert await system.words(candidate) == ["due", "paid"]


async def test_an_order_decided_on_its_way_to_the_gateway_is_closed_there(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = await system.owing()
    channel = system.turns.gateways.channels["wechat"]
    place, on_its_way, go = channel.place_order, asyncio.Event(), asyncio.Event()

    async def slow(*asked: Any) -> PlacedOrder:
        on_its_way.set()
        await go.wait()
        return await place(*asked)

    monkeypatch.setattr(channel, "place_order", slow)
    ordering = asyncio.create_task(system.order(candidate))
    await on_its_way.wait()
    await system.deliver(rejected(candidate))
    await system.settle()
    go.set()
    assert (await ordering).json()["code"] == "not-allowed"
    assert [order.state for order in system.world.wechat.book.orders()] == ["CLOSED"]


async def test_a_gateway_without_an_answer_leaves_the_order_unknown_and_treated_as_open(
    system: System,
) -> None:
    candidate = await system.owing()
    system.gateway_down(60)
    answer = await system.order(candidate)
    assert (answer.status_code, answer.json()["code"]) == (502, "gateway-refused")
    assert [row["status"] for row in await system.rows("select status from orders")] == ["unknown"]
    # While it is away even the first one cannot be closed, so there is no second.
    assert (await system.order(candidate)).json()["code"] == "gateway-refused"
    assert len(await system.rows("select * from orders")) == 1

    system.clock.jump(moment(OPENS) + timedelta(minutes=2))
    second = await system.ordered(candidate)
    assert [row["status"] for row in await system.rows("select status from orders")] == ["open"]
    await system.paid_and_heard(second)
    assert await system.status(candidate) == "paid"


async def test_whoever_may_have_paid_already_is_not_told_that_they_have_not(system: System) -> None:
    candidate = await system.owing()
    system.pay(await system.ordered(candidate))
    system.gateway_down(60)
    refused = (await system.order(candidate)).json()
    assert refused["code"] == "gateway-refused"
    assert "请勿重复支付" in refused["detail"]
    other = (await system.order(await system.owing())).json()
    assert other["code"] == "gateway-refused"
    assert "您没有被扣款" in other["detail"]
    assert "改用其他支付方式也不能" in other["detail"]


async def test_an_order_that_reached_the_gateway_without_our_knowing_is_found_when_paid(
    system: System,
) -> None:
    candidate = await system.owing()
    system.gateway_down(60, Outage.LOSE)
    assert (await system.order(candidate)).json()["code"] == "gateway-refused"
    order_no = (await system.rows("select order_no from orders"))[0]["order_no"]
    system.clock.jump(moment(OPENS) + timedelta(minutes=2))
    system.pay(order_no)
    assert (await system.order(candidate)).json()["code"] == "already-paid"
    assert await system.status(candidate) == "paid"


async def test_a_gateways_no_is_told_and_leaves_nothing_open(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = await system.owing()
    world = system.world.wechat
    monkeypatch.setattr(world, "_world", world._world.__class__(**{
        **{name: getattr(world._world, name) for name in world._world.__slots__}, "app_id": "wxothers"
    }))  # fmt: skip
    assert (await system.order(candidate)).json()["code"] == "gateway-refused"
    (order,) = await system.rows("select * from orders")
    assert (order["status"], order["refusal"]) == ("failed", "APPID_MCHID_NOT_MATCH")
    monkeypatch.undo()


async def test_the_time_of_an_orders_end_wakes_the_job_that_asks(system: System) -> None:
    candidate = await system.owing()
    assert await system.settle() is None
    await system.ordered(candidate)
    assert system.settle_job.awake.is_set()
    assert await system.settle() == moment(OPENS) + hours(2)
