"""The simulation's gateways keep what the real adapters keep before the simulators' wire: the same assertions for both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, cast

import pytest

from deploy.simulators.order_book import OrderBook, Refusal
from deploy.simulators.outage import Outage
from deploy.simulators.refund_book import RefundBook
from services.payment.adapters.alipay import Alipay
from services.payment.adapters.alipay_signatures import AlipayAccount
from services.payment.adapters.wechat import WeChatPay
from services.payment.adapters.wechat_signatures import WeChatAccount
from services.payment.ports import (
    AlreadyPaid,
    Capability,
    ChannelUnavailable,
    Closed,
    NotificationRefused,
    NumberInUse,
    OrderState,
    RefundState,
)
from tests.simulation.chance import Chance
from tests.simulation.gateway import SEAL, Manners, SimulatedGateway
from tests.simulators.outside import START, HandClock, Outside, outside

NUMBER: Final = "20240130000000000001"
OTHER: Final = "20240130000000000002"
REFUND: Final = "REFUND0001"
FEN: Final = 20_000
END: Final = START + timedelta(hours=2)
KINDS: Final = ("wechat", "alipay")

Channel = WeChatPay | Alipay | SimulatedGateway


@dataclass
class Gateway:
    """A channel, the book that it asks, and what happens to them."""

    kind: str
    channel: Channel
    book: OrderBook
    refunds: RefundBook
    clock: HandClock
    notice: Callable[[], Awaitable[tuple[dict[str, str], bytes]]]
    """Somebody pays NUMBER, and this is how it is told."""
    go_away: Callable[[], None]

    @property
    def remembers(self) -> bool:
        return Capability.REMEMBERS in self.channel.capabilities

    async def place(self, number: str = NUMBER, fen: int = FEN) -> None:
        placed = await self.channel.place_order(number, fen, "考试费", END)
        assert placed.order_no == number
        assert placed.code_url

    def pay(self, number: str = NUMBER) -> datetime:
        now = self.clock.now()
        self.book.open(number, now)
        self.book.pay(number, now, [])
        return now

    async def state(self, number: str = NUMBER) -> OrderState:
        return (await self.channel.query(number)).state

    async def give_back(self, number: str = REFUND) -> RefundState:
        return (await self.channel.refund(NUMBER, number, FEN, FEN, "考试费退款")).state


@pytest.fixture(params=[f"{how} {kind}" for kind in KINDS for how in ("spoken", "simulated")])
async def gateway(
    request: pytest.FixtureRequest, session_directory: Path, tmp_path: Path
) -> AsyncIterator[Gateway]:
    how, _, kind = cast("str", request.param).partition(" ")
    if how == "simulated":
        yield _simulated(kind)
        return
    async with outside(session_directory / "simulator-keys", tmp_path) as stage:
        spoken = _spoken(kind, stage)
        yield spoken
        await cast("WeChatPay | Alipay", spoken.channel).aclose()


def _simulated(kind: str) -> Gateway:
    clock = HandClock()
    channel = SimulatedGateway(clock.now, kind, remembers=kind == "wechat")

    async def notice() -> tuple[dict[str, str], bytes]:
        found.pay()
        return dict(SEAL), channel.notice(NUMBER)

    def go_away() -> None:
        channel._manners = Manners(away=1000)

    channel.begin(Chance(1), Manners())
    found = Gateway(kind, channel, channel.book, channel.refunds, clock, notice, go_away)
    return found


def _spoken(kind: str, stage: Outside) -> Gateway:
    url, accounts = f"{stage.listener.url}/notify", stage.world.accounts
    channel: WeChatPay | Alipay
    if kind == "wechat":
        channel = WeChatPay(WeChatAccount.read(accounts["wechat"]), notify_url=url, clock=stage.clock)
        world = stage.world.wechat
        book, refunds = world.book, world.refunds
    else:
        channel = Alipay(AlipayAccount.read(accounts["alipay"]), notify_url=url, clock=stage.clock)
        book, refunds = stage.world.alipay.book, stage.world.alipay.refunds

    async def notice() -> tuple[dict[str, str], bytes]:
        field = "order_no" if kind == "wechat" else "out_trade_no"
        await stage.control(f"/sim/{kind}/pay", {field: NUMBER, "callbacks": [0]})
        await stage.at_rest()
        _, headers, body = stage.listener.heard[-1]
        return headers, body

    def go_away() -> None:
        getattr(stage.world, kind).weather.bring(3600, Outage.REFUSE)

    return Gateway(kind, channel, book, refunds, stage.clock, notice, go_away)


async def test_they_say_what_they_can(gateway: Gateway) -> None:
    expected = {Capability.CLOSABLE, Capability.EXPIRES, Capability.REFUNDS}
    assert gateway.channel.name == gateway.kind
    assert gateway.channel.capabilities - {Capability.BILLS, Capability.REMEMBERS} == expected
    assert gateway.remembers == (gateway.kind == "wechat")


async def test_what_is_paid_is_found_paid(gateway: Gateway) -> None:
    await gateway.place()
    gateway.clock.move(minutes=3)
    paid_at = gateway.pay()
    answer = await gateway.channel.query(NUMBER)
    found = gateway.book.find(NUMBER)
    assert found is not None
    assert (answer.order_no, answer.state, answer.paid_at) == (NUMBER, OrderState.PAID, paid_at)
    assert (answer.amount_fen, answer.currency, answer.transaction_id) == (FEN, "CNY", found.transaction_id)
    assert answer.raw
    assert answer.signature


async def test_one_knows_an_order_at_once_the_other_when_its_code_is_opened(gateway: Gateway) -> None:
    await gateway.place()
    first = OrderState.UNPAID if gateway.remembers else OrderState.UNKNOWN_ORDER
    assert await gateway.state() is first
    if not gateway.remembers:
        assert await gateway.channel.close(NUMBER) == Closed(NUMBER, known=False)
        gateway.book.open(NUMBER, gateway.clock.now())
        assert await gateway.state() is OrderState.UNPAID
    assert await gateway.channel.close(NUMBER) == Closed(NUMBER)
    assert await gateway.state() is OrderState.CLOSED
    with pytest.raises(Refusal):
        gateway.pay()


async def test_a_number_that_nobody_used_is_unknown(gateway: Gateway) -> None:
    assert await gateway.state() is OrderState.UNKNOWN_ORDER
    assert await gateway.channel.close(NUMBER) == Closed(NUMBER, known=False)


async def test_what_is_paid_is_not_closed_and_what_is_closed_may_be_closed_again(gateway: Gateway) -> None:
    for number in (NUMBER, OTHER):
        await gateway.place(number)
    gateway.pay()
    gateway.book.open(OTHER, gateway.clock.now())
    assert await gateway.channel.close(NUMBER) == AlreadyPaid(NUMBER)
    assert await gateway.state() is OrderState.PAID
    for _ in range(2):
        assert await gateway.channel.close(OTHER) == Closed(OTHER)


async def test_an_order_ends_at_its_moment(gateway: Gateway) -> None:
    await gateway.place()
    await gateway.place(OTHER)
    gateway.book.open(OTHER, gateway.clock.now())
    gateway.clock.move(hours=2, microseconds=-1)
    assert await gateway.state(OTHER) is OrderState.UNPAID
    gateway.clock.move(microseconds=1)
    after = OrderState.UNPAID if gateway.remembers else OrderState.CLOSED
    assert await gateway.state(OTHER) is after, "one says so by itself, the other must be told to close"
    with pytest.raises(Refusal):
        gateway.pay(OTHER)


async def test_a_number_belongs_to_one_order(gateway: Gateway) -> None:
    await gateway.place()
    await gateway.place()
    with pytest.raises(NumberInUse):
        await gateway.place(fen=1)
    gateway.pay()
    with pytest.raises(NumberInUse):
        await gateway.place()


async def test_what_goes_back_goes_back_once_under_its_number(gateway: Gateway) -> None:
    await gateway.place()
    gateway.pay()
    assert (await gateway.channel.query_refund(NUMBER, REFUND)).state is RefundState.UNKNOWN
    for _ in range(2):
        answer = await gateway.channel.refund(NUMBER, REFUND, FEN, FEN, "考试费退款")
        assert (answer.refund_no, answer.state, answer.amount_fen) == (REFUND, RefundState.DONE, FEN)
        assert answer.raw
    assert len(gateway.refunds.all()) == 1
    found = await gateway.channel.query_refund(NUMBER, REFUND)
    assert (found.state, found.amount_fen) == (RefundState.DONE, FEN)
    assert await gateway.state() is OrderState.REFUNDED
    assert await gateway.give_back("REFUND0002") is RefundState.REFUSED, "more than was paid"


async def test_a_refund_may_have_to_wait_be_refused_and_take_its_time(gateway: Gateway) -> None:
    await gateway.place()
    gateway.pay()
    later = "NOT_ENOUGH" if gateway.kind == "wechat" else "ACQ.SELLER_BALANCE_NOT_ENOUGH"
    gateway.refunds.refusing += [later, "INVALID_REQUEST"]
    with pytest.raises(ChannelUnavailable):
        await gateway.give_back()
    assert await gateway.give_back() is RefundState.REFUSED
    gateway.refunds.takes = timedelta(minutes=30)
    assert await gateway.give_back() is RefundState.UNDER_WAY
    gateway.clock.move(minutes=29)
    assert (await gateway.channel.query_refund(NUMBER, REFUND)).state is RefundState.UNDER_WAY
    gateway.clock.move(minutes=1)
    assert (await gateway.channel.query_refund(NUMBER, REFUND)).state is RefundState.DONE


async def test_what_came_back_from_a_dead_account_is_not_done(gateway: Gateway) -> None:
    await gateway.place()
    gateway.pay()
    gateway.refunds.abnormal = 1
    said = RefundState.REFUSED if gateway.kind == "wechat" else RefundState.UNDER_WAY
    assert await gateway.give_back() is said
    assert (await gateway.channel.query_refund(NUMBER, REFUND)).state is said


async def test_a_notice_says_what_the_book_says(gateway: Gateway) -> None:
    await gateway.place()
    headers, body = await gateway.notice()
    found, told = gateway.book.find(NUMBER), gateway.channel.parse_notification(headers, body, START)
    assert found is not None
    assert (told.order_no, told.state, told.paid_at) == (NUMBER, OrderState.PAID, START)
    assert (told.amount_fen, told.currency, told.transaction_id) == (FEN, "CNY", found.transaction_id)
    with pytest.raises(NotificationRefused):
        gateway.channel.parse_notification({}, b"{}", START)


async def test_a_gateway_that_is_away_says_nothing_and_does_nothing(gateway: Gateway) -> None:
    await gateway.place()
    gateway.go_away()
    for call in (gateway.channel.query, gateway.channel.close):
        with pytest.raises(ChannelUnavailable):
            await call(NUMBER)
    with pytest.raises(ChannelUnavailable):
        await gateway.place(OTHER)
    assert gateway.book.find(OTHER) is None
