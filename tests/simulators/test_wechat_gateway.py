"""The simulated gateway keeps its own book, calls back when the script says, and repeats as the real one does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from deploy.simulators.wechat import REPEATS
from services.payment.adapters.wechat import WeChatPay
from services.payment.adapters.wechat_signatures import WeChatAccount
from services.payment.ports import ChannelRefused, Forged, OrderState, Stale
from tests.simulators.outside import START, Outside, outside

NUMBER = "20240130000000000001"
END = START + timedelta(days=2)


@pytest.fixture
async def stage(session_directory: Path, tmp_path: Path) -> AsyncIterator[Outside]:
    async with outside(session_directory / "simulator-keys", tmp_path) as stage:
        yield stage


@pytest.fixture
async def merchant(stage: Outside) -> AsyncIterator[WeChatPay]:
    client = _merchant(stage)
    await client.place_order(NUMBER, 20000, "考试报名费", END)
    yield client
    await client.aclose()


def _merchant(stage: Outside) -> WeChatPay:
    account = WeChatAccount.read(stage.world.accounts["wechat"])
    return WeChatPay(account, notify_url=f"{stage.listener.url}/notify", clock=stage.clock)


async def pay(stage: Outside, *callbacks: float, number: str = NUMBER) -> None:
    await stage.control("/sim/wechat/pay", {"out_trade_no": number, "callbacks": list(callbacks)})


async def test_callbacks_come_at_the_seconds_of_the_script(stage: Outside, merchant: WeChatPay) -> None:
    await pay(stage, 3, 40, 90_000)
    await stage.play(timedelta(days=2))
    assert stage.listener.moments() == [3, 40, 90_000]
    for at, headers, body in stage.listener.heard:
        assert merchant.parse_notification(headers, body, at).order_no == NUMBER


async def test_a_payment_without_callbacks_is_never_told(stage: Outside, merchant: WeChatPay) -> None:
    await pay(stage)
    await stage.play(timedelta(days=3))
    assert stage.listener.heard == []
    assert (await merchant.query(NUMBER)).state is OrderState.PAID


async def test_rest_names_the_moment_of_the_next_callback(stage: Outside, merchant: WeChatPay) -> None:
    assert (await stage.at_rest())["next_at"] is None
    await pay(stage, 30)
    rest = await stage.at_rest()
    assert datetime.fromisoformat(rest["next_at"]) == START + timedelta(seconds=30)
    stage.clock.move(seconds=29)
    assert (await stage.at_rest())["next_at"] == rest["next_at"]
    assert stage.listener.heard == []
    stage.clock.move(seconds=1)
    assert (await stage.at_rest())["next_at"] is None
    assert len(stage.listener.heard) == 1


async def test_a_callback_due_now_is_pending_until_it_is_answered(
    stage: Outside, merchant: WeChatPay
) -> None:
    await pay(stage, 0)
    assert (await stage.control("/sim/rest"))["pending_now"] >= 1 or len(stage.listener.heard) == 1
    await stage.at_rest()
    assert len(stage.listener.heard) == 1


async def test_an_unanswered_notification_is_repeated_on_the_real_schedule(
    stage: Outside, merchant: WeChatPay
) -> None:
    stage.listener.answers = [500] * 100
    await pay(stage, 2)
    await stage.play(timedelta(days=3))
    seconds = [15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10800, 10800, 10800, 21600, 21600]
    assert [gap.total_seconds() for gap in REPEATS] == seconds
    assert sum(seconds) == 24 * 3600 + 4 * 60
    assert stage.listener.moments() == [2 + sum(seconds[:n]) for n in range(16)]
    assert len({body for _, _, body in stage.listener.heard}) == 16


async def test_repeats_stop_at_the_first_200_or_204(stage: Outside, merchant: WeChatPay) -> None:
    stage.listener.answers = [503, 302, 204]
    await pay(stage, 0)
    await stage.play(timedelta(days=2))
    assert stage.listener.moments() == [0, 15, 30]
    book = await stage.control("/sim/wechat/book")
    assert (book["orders"][0]["notified"], book["orders"][0]["acknowledged"]) == (3, 1)


async def test_a_receiver_that_is_gone_is_tried_again(stage: Outside) -> None:
    account = WeChatAccount.read(stage.world.accounts["wechat"])
    client = WeChatPay(account, notify_url="http://127.0.0.1:9/notify", clock=stage.clock)
    await client.place_order(NUMBER, 20000, "考试报名费", END)
    await client.aclose()
    await pay(stage, 0)
    rest = await stage.at_rest()
    assert datetime.fromisoformat(rest["next_at"]) == START + timedelta(seconds=15)


async def test_while_it_is_down_nothing_is_paid_and_callbacks_wait(
    stage: Outside, merchant: WeChatPay
) -> None:
    await pay(stage, 10)
    await stage.control("/sim/wechat/down", {"seconds": 7200})
    await merchant_refused(stage)
    await stage.play(timedelta(hours=1))
    assert stage.listener.heard == []
    await stage.play(timedelta(hours=3))
    assert stage.listener.moments() == [7200]


async def merchant_refused(stage: Outside) -> None:
    status, refusal = await stage.try_control("/sim/wechat/pay", {"out_trade_no": NUMBER})
    assert (status, refusal["code"]) == (409, "GATEWAY_DOWN")


async def test_paying_twice_is_refused(stage: Outside, merchant: WeChatPay) -> None:
    await pay(stage)
    status, refusal = await stage.try_control("/sim/wechat/pay", {"out_trade_no": NUMBER})
    assert (status, refusal["code"]) == (409, "ORDERPAID")


async def test_an_order_nobody_placed_cannot_be_paid(stage: Outside) -> None:
    status, refusal = await stage.try_control("/sim/wechat/pay", {"out_trade_no": NUMBER})
    assert (status, refusal["code"]) == (404, "ORDER_NOT_EXIST")


async def test_a_replay_tells_again_with_a_fresh_seal(stage: Outside, merchant: WeChatPay) -> None:
    await pay(stage, 0)
    await stage.at_rest()
    stage.clock.move(hours=1)
    assert await stage.control("/sim/wechat/replay", {}) == {"notifications": 1}
    await stage.at_rest()
    at, headers, body = stage.listener.heard[1]
    assert merchant.parse_notification(headers, body, at).order_no == NUMBER


async def test_a_captured_replay_is_the_old_bytes_and_stale(stage: Outside, merchant: WeChatPay) -> None:
    await pay(stage, 0)
    await stage.at_rest()
    stage.clock.move(minutes=5, seconds=1)
    assert await stage.control("/sim/wechat/replay", {"how": "captured"}) == {"notifications": 1}
    await stage.at_rest()
    at, headers, body = stage.listener.heard[1]
    assert body == stage.listener.heard[0][2]
    with pytest.raises(Stale):
        merchant.parse_notification(headers, body, at)


async def test_a_notification_signed_with_an_unlisted_key_is_refused(
    stage: Outside, merchant: WeChatPay
) -> None:
    await stage.control("/sim/wechat/sign-with", {"key": -1})
    await pay(stage, 0)
    await stage.at_rest()
    at, headers, body = stage.listener.heard[0]
    with pytest.raises(Forged, match="unknown-serial"):
        merchant.parse_notification(headers, body, at)


async def test_the_book_has_every_order_and_fen(stage: Outside, merchant: WeChatPay) -> None:
    for n in range(2, 6):
        await merchant.place_order(f"2024013000000000000{n}", 10000 + n, "考试报名费", END)
    await pay(stage)
    await pay(stage, number="20240130000000000003")
    await merchant.close("20240130000000000004")
    book = await stage.control("/sim/wechat/book?limit=2")
    assert book["totals"] == {
        "orders": 5,
        "paid": 2,
        "paid_fen": 30003,
        "closed": 1,
        "notified": 0,
        "acknowledged": 0,
    }
    found = list(book["orders"])
    while book["next"] is not None:
        book = await stage.control(f"/sim/wechat/book?limit=2&after={book['next']}")
        found += book["orders"]
    assert [(order["out_trade_no"][-1], order["state"]) for order in found] == [
        ("1", "SUCCESS"),
        ("2", "NOTPAY"),
        ("3", "SUCCESS"),
        ("4", "CLOSED"),
        ("5", "NOTPAY"),
    ]


async def test_after_a_restart_the_gateway_remembers_and_still_calls_back(
    session_directory: Path, tmp_path: Path
) -> None:
    keys = session_directory / "simulator-keys"
    async with outside(keys, tmp_path) as stage:
        client = _merchant(stage)
        for n in (1, 2, 3):
            await client.place_order(f"2024013000000000000{n}", 20000, "考试报名费", END)
        await pay(stage, 0, number="20240130000000000001")
        await pay(stage, 60, number="20240130000000000002")
        await client.close("20240130000000000003")
        await stage.at_rest()
        before = await stage.control("/sim/wechat/book")
        url = stage.listener.url
        await client.aclose()
    async with outside(keys, tmp_path) as stage:
        assert (await stage.control("/sim/wechat/book"))["orders"] == before["orders"]
        rest = await stage.at_rest()
        assert datetime.fromisoformat(rest["next_at"]) == START + timedelta(seconds=60)
        assert url != stage.listener.url  # it will find nobody there: that is the first try
        client = _merchant(stage)
        assert (await client.query("20240130000000000003")).state is OrderState.CLOSED
        with pytest.raises(ChannelRefused, match="ORDERPAID"):
            await client.place_order("20240130000000000001", 20000, "考试报名费", END)
        await client.aclose()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"appid": "wx1111111111111111"}, "APPID_MCHID_NOT_MATCH"),
        ({"out_trade_no": "short"}, "PARAM_ERROR"),
        ({"out_trade_no": "考试考试考试"}, "PARAM_ERROR"),
        ({"description": ""}, "PARAM_ERROR"),
        ({"description": "长" * 128}, "PARAM_ERROR"),
        ({"notify_url": "http://office.example.cn/notify"}, "PARAM_ERROR"),
        ({"notify_url": "https://office.example.cn/notify?a=1"}, "PARAM_ERROR"),
        ({"amount": {"total": 0}}, "PARAM_ERROR"),
        ({"amount": {"total": 1.5}}, "PARAM_ERROR"),
        ({"amount": {"total": 100, "currency": "USD"}}, "PARAM_ERROR"),
        ({"amount": None}, "PARAM_ERROR"),
        ({"time_expire": "2024-02-09 00:00:00"}, "PARAM_ERROR"),
        ({"time_expire": "2024-02-09T00:00:00"}, "PARAM_ERROR"),
    ],
)
async def test_an_order_in_the_wrong_form_is_refused_in_the_gateways_words(
    stage: Outside, merchant: WeChatPay, change: dict[str, object], code: str
) -> None:
    world = stage.world.credentials.wechat
    order: dict[str, object] = {
        "appid": world.app_id,
        "mchid": world.merchant_id,
        "description": "考试报名费",
        "out_trade_no": "20240130000000000009",
        "notify_url": "https://office.example.cn/notify",
        "amount": {"total": 100, "currency": "CNY"},
    }
    reply = await merchant.call("POST", "/v3/pay/transactions/native", order | change)
    assert (reply.status, reply.code) == (400, code)
    assert reply.content["message"]
    assert (await merchant.call("POST", "/v3/pay/transactions/native", order)).status == 200


async def test_what_it_does_not_know_is_a_signed_404(stage: Outside, merchant: WeChatPay) -> None:
    reply = await merchant.call("GET", "/v3/refund/domestic/refunds/1", None)
    assert (reply.status, reply.code) == (404, "RESOURCE_NOT_EXISTS")


async def test_an_end_too_near_or_too_far_is_moved_silently(stage: Outside, merchant: WeChatPay) -> None:
    near, far = "20240130000000000011", "20240130000000000012"
    await merchant.place_order(near, 100, "考试报名费", START + timedelta(seconds=5))
    await merchant.place_order(far, 100, "考试报名费", START + timedelta(days=400))
    ends = {o["out_trade_no"]: o["expires_at"] for o in (await stage.control("/sim/wechat/book"))["orders"]}
    assert datetime.fromisoformat(ends[near]) == START + timedelta(minutes=1)
    assert datetime.fromisoformat(ends[far]) == START + timedelta(days=90)


@pytest.mark.parametrize("body", [{}, {"out_trade_no": NUMBER, "callbacks": "never"}, {"callbacks": [1]}])
async def test_a_script_that_makes_no_sense_is_told_so(stage: Outside, body: dict[str, object]) -> None:
    status, refusal = await stage.try_control("/sim/wechat/pay", body)
    assert status in {400, 404}
    assert refusal["code"]
