"""Refunds and bills of both channels against their simulated gateways: the same promises, two wire forms."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest

from deploy.simulators.alipay_bill import packed_bill
from deploy.simulators.bill_faults import Booked
from services.payment.adapters import alipay_bills, wechat_bills
from services.payment.adapters.alipay import Alipay
from services.payment.adapters.alipay_signatures import AlipayAccount
from services.payment.adapters.bill_lines import bill_line
from services.payment.adapters.wechat import WeChatPay
from services.payment.adapters.wechat_signatures import WeChatAccount
from services.payment.ports import (
    BillLine,
    ChannelUnavailable,
    NoBillYet,
    OrderState,
    RefundState,
)
from tests.simulators.outside import START, Outside, outside

NUMBER, REFUND = "20240130000000000001", "R20240130000000000001"
END = START + timedelta(hours=2)
TODAY = date(2024, 1, 30)
MADE_AT = datetime(2024, 1, 31, 2, tzinfo=UTC)
Channel = WeChatPay | Alipay


@pytest.fixture
async def stage(session_directory: Path, tmp_path: Path) -> AsyncIterator[Outside]:
    async with outside(session_directory / "simulator-keys", tmp_path) as stage:
        yield stage


@pytest.fixture(params=["wechat", "alipay"])
async def channel(stage: Outside, request: pytest.FixtureRequest) -> AsyncIterator[Channel]:
    account, url = stage.world.accounts[request.param], f"{stage.listener.url}/notify"
    client: Channel
    if request.param == "wechat":
        client = WeChatPay(WeChatAccount.read(account), notify_url=url, clock=stage.clock)
    else:
        client = Alipay(AlipayAccount.read(account), notify_url=url, clock=stage.clock)
    yield client
    await client.aclose()


async def paid(stage: Outside, channel: Channel, number: str = NUMBER, fen: int = 28000) -> str:
    """The gateway's number of the payment."""
    await channel.place_order(number, fen, "考试费", END)
    return str((await stage.control(f"/sim/{channel.name}/pay", {"out_trade_no": number}))["transaction_id"])


async def back(channel: Channel, number: str = NUMBER, refund: str = REFUND, fen: int = 28000) -> RefundState:
    return (await channel.refund(number, refund, fen, fen, "考试费退款")).state


async def test_money_goes_back_once_however_often_it_is_asked_for(stage: Outside, channel: Channel) -> None:
    await paid(stage, channel)
    for _ in range(3):
        answer = await channel.refund(NUMBER, REFUND, 28000, 28000, "考试费退款")
        assert (answer.state, answer.amount_fen, answer.code) == (RefundState.DONE, 28000, "")
        assert answer.at == START
    asked = await channel.query_refund(NUMBER, REFUND)
    assert (asked.state, asked.refund_no) == (RefundState.DONE, REFUND)
    book = await stage.control(f"/sim/{channel.name}/refunds")
    assert book["totals"] == {"refunds": 1, "done": 1, "done_fen": 28000}
    assert (await channel.query(NUMBER)).state is OrderState.REFUNDED


async def test_a_refund_under_way_is_not_done_until_the_gateway_says_so(
    stage: Outside, channel: Channel
) -> None:
    await paid(stage, channel)
    await stage.control(f"/sim/{channel.name}/refunds", {"takes": 3600})
    assert await back(channel) is RefundState.UNDER_WAY
    stage.clock.move(seconds=3600, microseconds=-1)
    assert (await channel.query_refund(NUMBER, REFUND)).state is RefundState.UNDER_WAY
    stage.clock.move(microseconds=1)
    done = await channel.query_refund(NUMBER, REFUND)
    assert (done.state, done.at) == (RefundState.DONE, START + timedelta(hours=1))


async def test_what_was_never_asked_for_is_unknown(stage: Outside, channel: Channel) -> None:
    await paid(stage, channel)
    assert (await channel.query_refund(NUMBER, REFUND)).state is RefundState.UNKNOWN


async def test_more_than_was_paid_is_refused_in_the_gateways_own_words(
    stage: Outside, channel: Channel
) -> None:
    await paid(stage, channel)
    assert await back(channel) is RefundState.DONE
    answer = await channel.refund(NUMBER, REFUND + "X", 28000, 28000, "考试费退款")
    assert answer.state is RefundState.REFUSED
    assert answer.code in {"INVALID_REQUEST", "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"}


async def test_a_script_may_have_somebody_pay_the_wrong_amount(stage: Outside, channel: Channel) -> None:
    await channel.place_order(NUMBER, 28000, "考试费", END)
    said = await stage.control(
        f"/sim/{channel.name}/pay", {"out_trade_no": NUMBER, "amount_fen": 27999, "callbacks": [0]}
    )
    assert said["amount_fen"] == 27999
    await stage.at_rest()
    _, headers, body = stage.listener.heard[-1]
    notice = channel.parse_notification(headers, body, stage.clock.now())
    assert (notice.state, notice.amount_fen) == (OrderState.PAID, 27999)
    answer = await channel.query(NUMBER)
    assert (answer.state, answer.amount_fen) == (OrderState.PAID, 27999)


async def test_an_empty_account_is_a_matter_of_later(stage: Outside, channel: Channel) -> None:
    await paid(stage, channel)
    await stage.control(f"/sim/{channel.name}/refunds", {"refuse": ["NOT_ENOUGH"]})
    with pytest.raises(ChannelUnavailable, match="NOT_ENOUGH"):
        await back(channel)
    assert await back(channel) is RefundState.DONE


async def test_an_answer_lost_on_its_way_leaves_one_refund(stage: Outside, channel: Channel) -> None:
    await paid(stage, channel)
    await stage.control(f"/sim/{channel.name}/down", {"seconds": 60, "how": "lose"})
    with pytest.raises(ChannelUnavailable):
        await back(channel)
    stage.clock.move(seconds=60)
    assert await back(channel) is RefundState.DONE
    assert (await stage.control(f"/sim/{channel.name}/refunds"))["totals"]["refunds"] == 1


async def test_wechats_notice_of_a_refund_says_that_asking_is_worth_while(
    stage: Outside, channel: Channel
) -> None:
    if not isinstance(channel, WeChatPay):
        return  # Alipay tells of a full refund by the order's own notice, in test_alipay.py
    await paid(stage, channel)
    await back(channel)
    await stage.at_rest()
    _, headers, body = stage.listener.heard[-1]
    notice = channel.parse_notification(headers, body, stage.clock.now())
    assert (notice.state, notice.order_no, notice.paid_at) == (OrderState.REFUNDED, NUMBER, None)


# Bills


def at_ten_next_day() -> timedelta:
    return datetime(2024, 1, 31, 2, 0, tzinfo=UTC) - START


async def test_a_bill_lists_every_payment_and_every_refund_of_its_day(
    stage: Outside, channel: Channel
) -> None:
    first, second = await paid(stage, channel), await paid(stage, channel, NUMBER + "2", 20050)
    await back(channel)
    stage.clock.move(seconds=at_ten_next_day().total_seconds())
    bill = await channel.fetch_bill(TODAY)
    assert (bill.channel, bill.day, len(bill.digest)) == (channel.name, TODAY, 32)
    assert set(bill.lines) == {
        BillLine(NUMBER, first, None, 28000, START),
        BillLine(NUMBER + "2", second, None, 20050, START),
        BillLine(NUMBER, first, REFUND, 28000, START),
    }


async def test_there_is_no_bill_before_ten_next_morning_nor_of_an_empty_day(
    stage: Outside, channel: Channel
) -> None:
    await paid(stage, channel)
    stage.clock.move(seconds=at_ten_next_day().total_seconds() - 1e-6)
    with pytest.raises(NoBillYet):
        await channel.fetch_bill(TODAY)
    stage.clock.move(microseconds=1)
    assert len((await channel.fetch_bill(TODAY)).lines) == 1
    with pytest.raises(NoBillYet):
        await channel.fetch_bill(TODAY - timedelta(days=1))


@pytest.mark.parametrize("fault", ["missing", "extra", "amount"])
async def test_a_bill_may_differ_from_the_truth(stage: Outside, channel: Channel, fault: str) -> None:
    """The simulator's own faults, which reconciliation has to find."""
    first, second = await paid(stage, channel), await paid(stage, channel, NUMBER + "2", 20050)
    stage.clock.move(seconds=at_ten_next_day().total_seconds())
    true = {
        BillLine(NUMBER, first, None, 28000, START),
        BillLine(NUMBER + "2", second, None, 20050, START),
    }
    await stage.control(f"/sim/{channel.name}/bill", {"faults": [fault]})
    lines = (await channel.fetch_bill(TODAY)).lines
    assert {"missing": 1, "extra": 3, "amount": 2}[fault] == len(lines)
    assert len(true - set(lines)) == {"missing": 1, "extra": 0, "amount": 1}[fault]


async def test_a_bill_at_another_host_is_never_fetched(stage: Outside, channel: Channel) -> None:
    """Whoever could choose the host could make us call anybody, with our seal on it."""
    for url in ("http://elsewhere.test/bill?token=1", stage.listener.url + "/bill", "file:///etc/passwd"):
        with pytest.raises(ChannelUnavailable, match="another host"):
            await channel._download(url)
    assert not stage.listener.heard


@pytest.mark.parametrize("packed", [b"", b"not gzip", gzip.compress(b"x" * 100, mtime=0)[:-9]])
def test_a_wechat_bill_that_is_not_whole_is_refused(packed: bytes) -> None:
    with pytest.raises(ChannelUnavailable):
        wechat_bills.unzipped(packed)


OURS = "1900000001"
COLUMNS = "交易时间,商户号,微信订单号,商户订单号,交易状态,应结订单金额,商户退款单号,退款金额"
BAD_SUM = f"{COLUMNS}\r\n`2024-01-30 20:00:00,`{OURS},`4,`A,`SUCCESS,`1.005,`0,`0.00\r\n总交易单数\r\n"
CUT_SHORT = f"{COLUMNS}\r\n`2024-01-30 20:00:00,`{OURS},`4,`A,`SUCCESS,`1.00,`0,`0.00\r\n"


LINE = ("2024-01-30 20:00:00", "4200", "A1", "1.00")


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (0, "0001-01-01 00:00:00"),
        (1, "42\x00"),
        (2, ""),
        (3, "Infinity"),
        (3, "NaN"),
        (3, "9" * 30),
        (3, "-1.00"),
    ],
)
def test_a_line_that_could_not_be_kept_makes_its_bill_unreadable(place: int, wrong: str) -> None:
    """One such line must not stop the comparison of every other day and gateway."""
    at, transaction, order, yuan = LINE
    assert bill_line(order, transaction, None, yuan, at).amount_fen == 100
    cells = list(LINE)
    cells[place] = wrong
    at, transaction, order, yuan = cells
    with pytest.raises(ValueError, match=r"."):
        bill_line(order, transaction, None, yuan, at)
    text = f"{COLUMNS}\r\n`{at},`{OURS},`{transaction},`{order},`SUCCESS,`{yuan},`0,`0.00\r\n总交易单数\r\n"
    with pytest.raises(ChannelUnavailable):
        list(wechat_bills.read_bill(text.encode(), OURS))


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_alipay_bill_that_is_packed_in_another_way_is_refused(packing: int) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", packing) as archive:
        archive.writestr("bill.csv", b"x" * 1000)
    spoilt = packed.getvalue().replace(b"x", b"y")
    with pytest.raises(ChannelUnavailable):
        list(alipay_bills.read_bill(spoilt[:60] + bytes(8) + spoilt[68:], "2088000000000001"))


@pytest.mark.parametrize("text", ["", "a,b\r\n", f"{COLUMNS}\r\n`x\r\n", BAD_SUM, CUT_SHORT])
def test_a_wechat_bill_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(ChannelUnavailable):
        list(wechat_bills.read_bill(text.encode(), OURS))


@pytest.mark.parametrize("packed", [b"", b"not a zip", b"PK\x05\x06" + bytes(18)])
def test_an_alipay_bill_in_another_form_is_refused(packed: bytes) -> None:
    with pytest.raises(ChannelUnavailable):
        list(alipay_bills.read_bill(packed, "2088000000000001"))


WHOLE = CUT_SHORT + "总交易单数\r\n`1\r\n"


def test_a_bill_of_another_merchant_is_refused() -> None:
    assert len(list(wechat_bills.read_bill(WHOLE.encode(), OURS))) == 1
    with pytest.raises(ChannelUnavailable, match="another merchant"):
        list(wechat_bills.read_bill(WHOLE.encode(), "1900000002"))
    line = Booked(datetime(2024, 1, 30, 4, tzinfo=UTC), NUMBER, "2024013022001", 28000, "", 0)
    packed = packed_bill([line], "2088000000000001", TODAY, MADE_AT)
    assert len(list(alipay_bills.read_bill(packed, "2088000000000001"))) == 1
    with pytest.raises(ChannelUnavailable, match="another merchant"):
        list(alipay_bills.read_bill(packed, "2088000000000002"))


def test_an_alipay_bill_that_is_cut_short_inside_its_zip_is_refused() -> None:
    line = Booked(datetime(2024, 1, 30, 4, tzinfo=UTC), NUMBER, "2024013022001", 28000, "", 0)
    packed, cut = io.BytesIO(packed_bill([line] * 3, "2088000000000001", TODAY, MADE_AT)), io.BytesIO()
    with zipfile.ZipFile(packed) as whole, zipfile.ZipFile(cut, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, whole.read(name)[:-120])
    with pytest.raises(ChannelUnavailable):
        list(alipay_bills.read_bill(cut.getvalue(), "2088000000000001"))


@pytest.mark.parametrize("module", [wechat_bills, alipay_bills])
def test_a_small_file_that_holds_more_than_the_limit_is_refused(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is 64 MB; what is tested is that it holds for what comes out, not for what came."""
    assert module.FILE_LIMIT == 64 << 20
    monkeypatch.setattr(module, "FILE_LIMIT", 10_000)
    if module is wechat_bills:
        wechat_bills.unzipped(gzip.compress(bytes(9_999)))
        with pytest.raises(ChannelUnavailable, match="too large"):
            wechat_bills.unzipped(gzip.compress(bytes(10_001)))
        return
    line = Booked(datetime(2024, 1, 30, 4, tzinfo=UTC), NUMBER, "2024013022001", 28000, "", 0)
    assert list(
        alipay_bills.read_bill(packed_bill([line], "2088000000000001", TODAY, MADE_AT), "2088000000000001")
    )
    with pytest.raises(ChannelUnavailable, match="not one file"):
        list(
            alipay_bills.read_bill(
                packed_bill([line] * 200, "2088000000000001", TODAY, MADE_AT), "2088000000000001"
            )
        )
