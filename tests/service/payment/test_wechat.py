"""The WeChat Pay channel against a gateway that checks signatures for real and breaks when told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from deploy.simulators.credentials import Credentials
from deploy.simulators.http import Reply, Request, serving
from services.chassis.wire import Answer
from services.payment.adapters.asking import BODY_LIMIT
from services.payment.adapters.wechat import WeChatPay
from services.payment.adapters.wechat_signatures import WeChatAccount, verify
from services.payment.ports import (
    AlreadyPaid,
    Capability,
    ChannelRefused,
    ChannelUnavailable,
    Closed,
    OrderState,
    PaymentChannel,
    PlacedOrder,
)
from tests.simulators.outside import START, HandClock, Outside, outside

NUMBER = "20240130000000000001"
END = START + timedelta(hours=2)


@pytest.fixture
async def stage(session_directory: Path, tmp_path: Path) -> AsyncIterator[Outside]:
    async with outside(session_directory / "simulator-keys", tmp_path) as stage:
        yield stage


@pytest.fixture
async def wechat(stage: Outside) -> AsyncIterator[WeChatPay]:
    account = WeChatAccount.read(stage.world.accounts["wechat"])
    client = WeChatPay(account, notify_url=f"{stage.listener.url}/notify", clock=stage.clock)
    yield client
    await client.aclose()


async def placed(wechat: PaymentChannel, number: str = NUMBER, fen: int = 20000) -> PlacedOrder:
    return await wechat.place_order(number, fen, "2024年度卫生专业技术资格考试报名费", END)


async def test_the_channel_says_what_it_can(wechat: WeChatPay) -> None:
    channel: PaymentChannel = wechat
    assert channel.name == "wechat"
    assert channel.capabilities == set(Capability)


async def test_an_order_is_placed_paid_and_found_paid(stage: Outside, wechat: WeChatPay) -> None:
    order = await placed(wechat)
    assert order.code_url.startswith("weixin://wxpay/bizpayurl?pr=")
    unpaid = await wechat.query(NUMBER)
    assert (unpaid.state, unpaid.paid_at, unpaid.transaction_id) == (OrderState.UNPAID, None, None)
    stage.clock.move(minutes=3)
    paid = await stage.control("/sim/wechat/pay", {"out_trade_no": NUMBER})
    answer = await wechat.query(NUMBER)
    assert answer.state is OrderState.PAID
    assert answer.paid_at == stage.clock.now() == datetime.fromisoformat(paid["paid_at"])
    assert (answer.amount_fen, answer.currency) == (20000, "CNY")
    assert answer.transaction_id == paid["transaction_id"]


async def test_an_answer_can_be_verified_again_from_what_is_kept(wechat: WeChatPay) -> None:
    """The evidence of a forfeiture: bytes and seal alone prove what the gateway said."""
    await placed(wechat)
    await wechat.close(NUMBER)
    answer = await wechat.query(NUMBER)
    assert answer.state is OrderState.CLOSED
    seal = verify(wechat._account, answer.signature, answer.raw, START, START)
    assert seal.made_at == START
    assert json.loads(answer.raw)["trade_state"] == "CLOSED"


async def test_placing_the_same_order_again_gives_a_code_for_the_same_order(
    stage: Outside, wechat: WeChatPay
) -> None:
    first = await placed(wechat)
    second = await placed(wechat)
    assert first.code_url != second.code_url
    assert (await stage.control("/sim/wechat/book"))["totals"]["orders"] == 1


async def test_the_same_number_for_another_amount_is_refused(wechat: WeChatPay) -> None:
    await placed(wechat)
    with pytest.raises(ChannelRefused, match="OUT_TRADE_NO_USED"):
        await placed(wechat, fen=15000)


async def test_an_order_ends_at_the_second_asked_for_and_never_after(
    stage: Outside, wechat: WeChatPay
) -> None:
    end = datetime(2024, 2, 9, 0, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=8)))
    await wechat.place_order(NUMBER, 20000, "考试报名费", end)
    book = await stage.control("/sim/wechat/book")
    assert book["orders"][0]["expires_at"] == "2024-02-08T16:00:00+00:00"


async def test_an_expired_order_cannot_be_paid_but_is_not_closed(stage: Outside, wechat: WeChatPay) -> None:
    await placed(wechat)
    stage.clock.move(hours=2)
    assert await stage.try_control("/sim/wechat/pay", {"order_no": NUMBER}) == (
        409,
        {"code": "ORDER_EXPIRED", "message": "订单已过支付截止时间"},
    )
    assert (await wechat.query(NUMBER)).state is OrderState.UNPAID


async def test_a_microsecond_before_its_end_an_order_can_be_paid(stage: Outside, wechat: WeChatPay) -> None:
    await placed(wechat)
    stage.clock.move(seconds=7199.999999)
    await stage.control("/sim/wechat/pay", {"order_no": NUMBER})
    assert (await wechat.query(NUMBER)).paid_at == END - timedelta(seconds=1)


async def test_closing_ends_an_unpaid_order(stage: Outside, wechat: WeChatPay) -> None:
    await placed(wechat)
    assert await wechat.close(NUMBER) == Closed(NUMBER)
    assert await wechat.close(NUMBER) == Closed(NUMBER)
    status, refusal = await stage.try_control("/sim/wechat/pay", {"order_no": NUMBER})
    assert (status, refusal["code"]) == (409, "ORDER_CLOSED")


async def test_a_paid_order_is_not_closed(stage: Outside, wechat: WeChatPay) -> None:
    await placed(wechat)
    await stage.control("/sim/wechat/pay", {"order_no": NUMBER})
    assert await wechat.close(NUMBER) == AlreadyPaid(NUMBER)


async def test_an_order_the_gateway_never_saw_is_unknown_and_that_is_signed(wechat: WeChatPay) -> None:
    answer = await wechat.query(NUMBER)
    assert answer.state is OrderState.UNKNOWN_ORDER
    assert verify(wechat._account, answer.signature, answer.raw, START, START).made_at == START
    assert await wechat.close(NUMBER) == Closed(NUMBER, known=False)


async def test_a_notification_comes_at_its_moment_and_is_understood(
    stage: Outside, wechat: WeChatPay
) -> None:
    await placed(wechat)
    await stage.control("/sim/wechat/pay", {"order_no": NUMBER, "callbacks": [3]})
    await stage.play(timedelta(minutes=1))
    assert stage.listener.moments() == [3]
    at, headers, body = stage.listener.heard[0]
    heard = wechat.parse_notification(headers, body, at)
    assert (heard.order_no, heard.state, heard.amount_fen) == (NUMBER, OrderState.PAID, 20000)
    assert heard.paid_at == START


@pytest.mark.parametrize("how", ["altered-body", "wrong-signature", "probe", "stale", "unlisted-key"])
async def test_an_answer_that_does_not_verify_is_no_answer(
    stage: Outside, wechat: WeChatPay, how: str
) -> None:
    await placed(wechat)
    await stage.control("/sim/wechat/pay", {"order_no": NUMBER})
    await stage.control("/sim/wechat/misbehave", {"how": how})
    with pytest.raises(ChannelUnavailable, match="unverified answer"):
        await wechat.query(NUMBER)
    assert (await wechat.query(NUMBER)).state is OrderState.PAID


async def test_an_unverified_refusal_is_no_refusal(stage: Outside, wechat: WeChatPay) -> None:
    """Whoever sits on the line could else make a paid order "unknown" and cost somebody the exam."""
    await stage.control("/sim/wechat/misbehave", {"how": "wrong-signature"})
    with pytest.raises(ChannelUnavailable, match="unverified answer"):
        await wechat.query(NUMBER)


@pytest.mark.parametrize("key", [0, 1, 2])
async def test_any_platform_key_we_were_given_verifies(stage: Outside, wechat: WeChatPay, key: int) -> None:
    await stage.control("/sim/wechat/sign-with", {"key": key})
    assert (await placed(wechat)).order_no == NUMBER


async def test_a_gateway_that_is_down_leaves_the_outcome_unknown(stage: Outside, wechat: WeChatPay) -> None:
    await stage.control("/sim/wechat/down", {"seconds": 7200})
    with pytest.raises(ChannelUnavailable, match="503"):
        await placed(wechat)
    stage.clock.move(seconds=7200)
    assert (await wechat.query(NUMBER)).state is OrderState.UNKNOWN_ORDER
    assert (await stage.at_rest())["reached"]["wechat-down"] == 1


async def test_a_lost_answer_is_repaired_by_asking_again(stage: Outside, wechat: WeChatPay) -> None:
    await stage.control("/sim/wechat/down", {"seconds": 60, "how": "lose"})
    with pytest.raises(ChannelUnavailable, match="502"):
        await placed(wechat)
    stage.clock.move(seconds=60)
    await placed(wechat)
    assert (await stage.control("/sim/wechat/book"))["totals"]["orders"] == 1


async def test_a_gateway_that_hangs_is_given_up_in_time(
    stage: Outside, wechat: WeChatPay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.payment.adapters.asking.PATIENCE", 0.2)
    await stage.control("/sim/wechat/down", {"seconds": 60, "how": "hang"})
    with pytest.raises(ChannelUnavailable, match="in time"):
        await wechat.query(NUMBER)


async def test_nobody_at_home_leaves_the_outcome_unknown(stage: Outside) -> None:
    account = WeChatAccount.read(stage.world.accounts["wechat"])
    async with serving(_never) as url:
        gone = url
    client = WeChatPay(_moved(account, gone), notify_url="https://office.test/notify", clock=stage.clock)
    with pytest.raises(ChannelUnavailable, match="ConnectionRefusedError"):
        await client.query(NUMBER)
    await client.aclose()


async def test_a_request_with_the_wrong_key_is_refused_as_such(
    stage: Outside, wechat: WeChatPay, tmp_path: Path
) -> None:
    stranger = Credentials.of(tmp_path / "other-keys")
    file = stranger.write_account_files(stage.world.wechat_url, "http://alipay.test", "http://sms.test", 25)[
        "wechat"
    ]
    client = WeChatPay(WeChatAccount.read(file), notify_url="https://office.test/n", clock=stage.clock)
    with pytest.raises(ChannelRefused, match="401 SIGN_ERROR"):
        await client.query(NUMBER)
    await client.aclose()


async def test_a_request_of_six_minutes_ago_is_refused_by_the_gateway(stage: Outside) -> None:
    account = WeChatAccount.read(stage.world.accounts["wechat"])
    slow = HandClock(START - timedelta(minutes=6))
    client = WeChatPay(account, notify_url="https://office.test/n", clock=slow)
    with pytest.raises(ChannelRefused, match="SIGN_ERROR"):
        await client.query(NUMBER)
    await client.aclose()


async def _never(_: Request) -> Reply:
    raise AssertionError("nobody should come here")


def _moved(account: WeChatAccount, url: str) -> WeChatAccount:
    return WeChatAccount(
        gateway_url=url,
        app_id=account.app_id,
        merchant_id=account.merchant_id,
        certificate_serial=account.certificate_serial,
        private_key=account.private_key,
        api_v3_key=account.api_v3_key,
        platform_keys=account.platform_keys,
    )


class _Says:
    """Somebody on the line who always answers this."""

    def __init__(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        self._answer = Answer(status, headers, content)

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes = b""
    ) -> Answer:
        return self._answer

    async def aclose(self) -> None: ...


def _answering(stage: Outside, status: int, headers: Mapping[str, str], content: bytes) -> WeChatPay:
    """The channel, with somebody on the line who always answers this."""
    account = WeChatAccount.read(stage.world.accounts["wechat"])
    return WeChatPay(
        account,
        notify_url="https://office.test/n",
        clock=stage.clock,
        asking=_Says(status, headers, content),
    )


@pytest.mark.parametrize(
    ("status", "content", "reason"),
    [
        (302, b"", "unverified answer"),
        (429, b'{"code":"FREQUENCY_LIMITED"}', "429"),
        (404, b'{"code":"ORDER_NOT_EXIST"}', "unverified answer"),
        (200, b'{"trade_state":"NOTPAY"}', "unverified answer"),
        (204, b"", "unverified answer"),
    ],
)
async def test_odd_answers_are_no_answers(stage: Outside, status: int, content: bytes, reason: str) -> None:
    client = _answering(stage, status, {"Location": "http://169.254.169.254/"}, content)
    with pytest.raises(ChannelUnavailable, match=reason):
        await client.query(NUMBER)
    await client.aclose()


async def test_an_answer_without_end_is_not_read_to_its_end(stage: Outside) -> None:
    async def endless(_: Request) -> Reply:
        return Reply(200, b"x" * (BODY_LIMIT + 1))

    account = WeChatAccount.read(stage.world.accounts["wechat"])
    async with serving(endless) as url:
        client = WeChatPay(_moved(account, url), notify_url="https://office.test/n", clock=stage.clock)
        with pytest.raises(ChannelUnavailable, match="too large"):
            await client.query(NUMBER)
        await client.aclose()


async def test_an_answer_about_another_order_is_refused(stage: Outside, wechat: WeChatPay) -> None:
    """A true answer, replayed for another question within its five minutes."""
    await placed(wechat)
    other = NUMBER[:-1] + "2"
    await placed(wechat, other)
    answer = await wechat.query(other)
    client = _answering(stage, 200, answer.signature, answer.raw)
    with pytest.raises(ChannelUnavailable, match="another order"):
        await client.query(NUMBER)
    assert (await client.query(other)).state is OrderState.UNPAID
    await client.aclose()


@pytest.mark.parametrize(
    "number", ["", "short", "x" * 33, "2024/../../refund", "20240130 00001", "考试考试考试"]
)
async def test_an_order_number_that_could_bend_a_path_is_never_sent(wechat: WeChatPay, number: str) -> None:
    with pytest.raises(ValueError, match="order number"):
        await wechat.query(number)


async def test_every_allowed_character_of_an_order_number_survives_the_signature(wechat: WeChatPay) -> None:
    number = "aZ09_-|*20240130"
    await placed(wechat, number)
    assert (await wechat.query(number)).order_no == number
    assert await wechat.close(number) == Closed(number)


@pytest.mark.parametrize(
    ("fen", "description", "end"),
    [
        (0, "考试报名费", END),
        (-1, "考试报名费", END),
        (20000, "", END),
        (20000, "长" * 128, END),
        (20000, "考试报名费", datetime(2024, 2, 9)),  # noqa: DTZ001 - a moment without an offset is what is refused
    ],
)
async def test_an_order_that_makes_no_sense_is_never_sent(
    wechat: WeChatPay, fen: int, description: str, end: datetime
) -> None:
    with pytest.raises(ValueError, match=r"an order has|needs an offset"):
        await wechat.place_order(NUMBER, fen, description, end)


async def test_a_hundred_orders_at_once_are_placed(stage: Outside, wechat: WeChatPay) -> None:
    await asyncio.gather(*(placed(wechat, f"2024013000{n:04d}") for n in range(100)))
    assert (await stage.control("/sim/wechat/book"))["totals"]["orders"] == 100


async def test_moments_come_back_in_utc(stage: Outside, wechat: WeChatPay) -> None:
    await placed(wechat)
    await stage.control("/sim/wechat/pay", {"order_no": NUMBER})
    paid_at = (await wechat.query(NUMBER)).paid_at
    assert paid_at is not None
    assert paid_at.tzinfo is UTC
