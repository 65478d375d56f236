"""The Alipay channel against a gateway that checks signatures for real and breaks when told to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import pytest

from deploy.simulators.credentials import Credentials
from services.chassis.wire import Answer
from services.payment.adapters.alipay import Alipay
from services.payment.adapters.alipay_calls import fen_of, yuan
from services.payment.adapters.alipay_signatures import (
    AlipayAccount,
    signed_part,
    verify,
)
from services.payment.adapters.asking import BODY_LIMIT
from services.payment.ports import (
    AlreadyPaid,
    Capability,
    ChannelRefused,
    ChannelUnavailable,
    Closed,
    Forged,
    Malformed,
    NotificationRefused,
    NumberInUse,
    OrderState,
    PaymentChannel,
    PlacedOrder,
    Stale,
)
from tests.simulators.outside import START, Outside, outside

NUMBER = "20240130000000000001"
END = START + timedelta(hours=2)


@pytest.fixture
async def stage(session_directory: Path, tmp_path: Path) -> AsyncIterator[Outside]:
    async with outside(session_directory / "simulator-keys", tmp_path) as stage:
        yield stage


@pytest.fixture
async def alipay(stage: Outside) -> AsyncIterator[Alipay]:
    account = AlipayAccount.read(stage.world.accounts["alipay"])
    client = Alipay(account, notify_url=f"{stage.listener.url}/notify", clock=stage.clock)
    yield client
    await client.aclose()


async def placed(alipay: PaymentChannel, number: str = NUMBER, fen: int = 20000) -> PlacedOrder:
    return await alipay.place_order(number, fen, "2024年度卫生专业技术资格考试报名费", END)


async def test_the_channel_says_what_it_can(alipay: Alipay) -> None:
    channel: PaymentChannel = alipay
    assert channel.name == "alipay"
    assert channel.capabilities == set(Capability) - {Capability.REMEMBERS}


async def test_an_order_is_placed_paid_and_found_paid(stage: Outside, alipay: Alipay) -> None:
    order = await placed(alipay, fen=28050)
    assert order.code_url.startswith("https://qr.")
    stage.clock.move(minutes=3)
    paid = await stage.control("/sim/alipay/pay", {"out_trade_no": NUMBER})
    answer = await alipay.query(NUMBER)
    assert answer.state is OrderState.PAID
    assert answer.paid_at == stage.clock.now() == datetime.fromisoformat(paid["paid_at"])
    assert (answer.amount_fen, answer.currency) == (28050, "CNY")
    assert answer.transaction_id == paid["transaction_id"]


async def test_before_anybody_opens_the_code_the_trade_does_not_exist(stage: Outside, alipay: Alipay) -> None:
    await placed(alipay)
    assert (await alipay.query(NUMBER)).state is OrderState.UNKNOWN_ORDER
    assert await alipay.close(NUMBER) == Closed(NUMBER, known=False)
    await stage.control("/sim/alipay/open", {"order_no": NUMBER})
    assert (await alipay.query(NUMBER)).state is OrderState.UNPAID
    assert await alipay.close(NUMBER) == Closed(NUMBER)
    assert (await alipay.query(NUMBER)).state is OrderState.CLOSED


async def test_an_order_ends_at_its_moment_by_itself(stage: Outside, alipay: Alipay) -> None:
    await placed(alipay)
    await stage.control("/sim/alipay/open", {"order_no": NUMBER})
    stage.clock.move(hours=2, microseconds=-1)
    assert (await alipay.query(NUMBER)).state is OrderState.UNPAID
    stage.clock.move(microseconds=1)
    assert (await alipay.query(NUMBER)).state is OrderState.CLOSED
    status, refusal = await stage.try_control("/sim/alipay/pay", {"out_trade_no": NUMBER})
    assert (status, refusal["code"]) == (409, "ORDER_CLOSED")


async def test_closing_what_is_paid_or_closed_says_which(stage: Outside, alipay: Alipay) -> None:
    await placed(alipay)
    await stage.control("/sim/alipay/pay", {"out_trade_no": NUMBER})
    assert await alipay.close(NUMBER) == AlreadyPaid(NUMBER)
    other = NUMBER[:-1] + "2"
    await placed(alipay, other)
    await stage.control("/sim/alipay/open", {"order_no": other})
    assert await alipay.close(other) == await alipay.close(other) == Closed(other)


async def test_the_same_order_again_is_the_same_and_another_under_its_number_is_refused(
    stage: Outside, alipay: Alipay
) -> None:
    assert (await placed(alipay)).order_no == (await placed(alipay)).order_no
    with pytest.raises(NumberInUse):
        await placed(alipay, fen=1)
    await stage.control("/sim/alipay/pay", {"out_trade_no": NUMBER})
    with pytest.raises(NumberInUse):
        await placed(alipay)


async def test_an_answer_can_be_verified_again_from_what_is_kept(stage: Outside, alipay: Alipay) -> None:
    """The evidence of a forfeiture: bytes and seal alone prove what the gateway said."""
    await placed(alipay)
    answer = await alipay.query(NUMBER)
    assert verify(alipay._account, answer.raw, answer.signature["sign"]).key == answer.signature["key"]
    with pytest.raises(Forged):
        verify(alipay._account, answer.raw.replace(b"40004", b"10000"), answer.signature["sign"])


@pytest.mark.parametrize("how", ["altered-body", "wrong-signature", "unlisted-key"])
async def test_an_answer_that_is_not_the_gateways_teaches_nothing(
    stage: Outside, alipay: Alipay, how: str
) -> None:
    await placed(alipay)
    await stage.control("/sim/alipay/misbehave", {"how": how})
    with pytest.raises(ChannelUnavailable, match="unverified"):
        await alipay.query(NUMBER)
    assert (await alipay.query(NUMBER)).state is OrderState.UNKNOWN_ORDER


async def test_both_keys_of_a_change_are_good_and_a_third_is_not(stage: Outside, alipay: Alipay) -> None:
    await placed(alipay)
    for key, good in ((0, True), (1, True), (2, False)):
        name = (await stage.control("/sim/alipay/sign-with", {"key": key}))["serial"]
        if good:
            assert (await alipay.query(NUMBER)).signature["key"] == name
        else:
            with pytest.raises(ChannelUnavailable):
                await alipay.query(NUMBER)


@pytest.mark.parametrize("how", ["refuse", "lose"])
async def test_a_gateway_that_is_away_leaves_the_outcome_unknown(
    stage: Outside, alipay: Alipay, how: str
) -> None:
    await stage.control("/sim/alipay/down", {"seconds": 60, "how": how})
    with pytest.raises(ChannelUnavailable):
        await placed(alipay)
    stage.clock.move(seconds=60)
    assert (await placed(alipay)).order_no == NUMBER


async def test_a_request_with_the_wrong_key_is_refused_as_such(
    stage: Outside, tmp_path: Path, alipay: Alipay
) -> None:
    stranger = Credentials.of(tmp_path / "other-keys").write_account_files(
        "http://wechat.test", stage.world.alipay_url, "http://sms.test", 25
    )["alipay"]
    client = Alipay(AlipayAccount.read(stranger), notify_url="https://office.test/n", clock=stage.clock)
    with pytest.raises(ChannelRefused, match="invalid-signature"):
        await client.query(NUMBER)
    await client.aclose()


class Fixed:
    """Carries no request anywhere: every answer is this one."""

    def __init__(self, status: int, body: bytes) -> None:
        self._answer = Answer(status, {}, body)

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes = b""
    ) -> Answer:
        return self._answer

    async def aclose(self) -> None:
        return None


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (302, b""),
        (200, b""),
        (200, b"<html>"),
        (200, b'{"alipay_trade_query_response":'),
        (200, b'{"alipay_trade_query_response":{"code":"10000"}'),
        (200, b'{"alipay_trade_close_response":{"code":"10000"},"sign":"x"}'),
        (200, b'{"alipay_trade_query_response":{"code":"10000"},"sign":"eA=="}'),
        (200, b'{"alipay_trade_query_response":{"code":"10000"},"sign":"e"}'),
        (200, b'{"alipay_trade_query_response":{"code":"40004","sub_code":"ACQ.TRADE_NOT_EXIST"}}'),
    ],
)
async def test_whatever_comes_back_unsealed_is_no_answer(stage: Outside, status: int, body: bytes) -> None:
    account = AlipayAccount.read(stage.world.accounts["alipay"])
    client = Alipay(account, notify_url="https://n.test/", clock=stage.clock, asking=Fixed(status, body))
    with pytest.raises(ChannelUnavailable):
        await client.query(NUMBER)


async def test_an_answer_about_another_order_is_not_believed(stage: Outside, alipay: Alipay) -> None:
    """Truly signed, and taken from another call."""
    await placed(alipay)
    await stage.control("/sim/alipay/pay", {"out_trade_no": NUMBER})
    said = await alipay.query(NUMBER)
    raw = b'{"alipay_trade_query_response":%s,"sign":"%s"}' % (said.raw, said.signature["sign"].encode())
    taken = Alipay(alipay._account, notify_url="https://n.test/", clock=stage.clock, asking=Fixed(200, raw))
    assert (await taken.query(NUMBER)).state is OrderState.PAID
    with pytest.raises(ChannelUnavailable, match="another order"):
        await taken.query(NUMBER[:-1] + "9")


# Notices


async def heard(stage: Outside, alipay: Alipay) -> bytes:
    await placed(alipay)
    await stage.control("/sim/alipay/pay", {"out_trade_no": NUMBER, "callbacks": [0]})
    await stage.at_rest()
    return stage.listener.heard[-1][2]


async def test_a_notice_is_read_when_it_is_the_gateways(stage: Outside, alipay: Alipay) -> None:
    raw = await heard(stage, alipay)
    notice = alipay.parse_notification({}, raw, stage.clock.now())
    assert (notice.order_no, notice.amount_fen, notice.state) == (NUMBER, 20000, OrderState.PAID)
    assert notice.paid_at == START


async def test_every_field_of_a_notice_is_sealed(stage: Outside, alipay: Alipay) -> None:
    fields = dict(parse_qsl((await heard(stage, alipay)).decode()))
    at = stage.clock.now()
    for name, value in fields.items():
        for changed in (
            {**fields, name: value + "1"},
            {key: value for key, value in fields.items() if key != name},
        ):
            with pytest.raises(NotificationRefused):
                alipay.parse_notification({}, urlencode(changed).encode(), at)
    with pytest.raises(Forged):
        alipay.parse_notification({}, urlencode({**fields, "extra": "1"}).encode(), at)


async def test_a_notice_is_fresh_for_five_minutes_either_way(stage: Outside, alipay: Alipay) -> None:
    raw, at = await heard(stage, alipay), stage.clock.now()
    edge, step = timedelta(minutes=5), timedelta(microseconds=1)
    for good in (at + edge - step, at - edge + step):
        assert alipay.parse_notification({}, raw, good).order_no == NUMBER
    for bad in (at + edge, at - edge):
        with pytest.raises(Stale):
            alipay.parse_notification({}, raw, bad)


async def test_the_order_of_fields_does_not_matter_but_a_field_twice_does(
    stage: Outside, alipay: Alipay
) -> None:
    raw = await heard(stage, alipay)
    pairs = parse_qsl(raw.decode())
    assert (
        alipay.parse_notification({}, urlencode(pairs[::-1]).encode(), stage.clock.now()).order_no == NUMBER
    )
    for name, value in pairs:
        twice = urlencode([*pairs, (name, value)]).encode()
        with pytest.raises(Malformed):
            alipay.parse_notification({}, twice, stage.clock.now())


async def test_a_plus_is_a_blank_and_chinese_may_come_in_gbk(stage: Outside, alipay: Alipay) -> None:
    """Alipay writes blanks as `+`, and its older notices are GBK."""
    fields = dict(parse_qsl((await heard(stage, alipay)).decode()))
    assert b"+" in urlencode(fields).encode()
    fields["charset"] = "GBK"
    del fields["sign"], fields["sign_type"]
    gateway = stage.world.alipay
    text = "&".join(f"{name}={fields[name]}" for name in sorted(fields) if fields[name])
    seal = gateway._seal(text.encode("gbk"), "")
    raw = urlencode({**fields, "sign": seal, "sign_type": "RSA2"}, encoding="gbk").encode()
    assert alipay.parse_notification({}, raw, stage.clock.now()).order_no == NUMBER
    with pytest.raises(Malformed):
        alipay.parse_notification({}, raw.replace(b"charset=GBK", b"charset=utf-7"), stage.clock.now())


@pytest.mark.parametrize(
    "raw",
    [b"", b"x", b"\xff\xfe", b"a=b", b"sign=x&sign_type=RSA", b"sign=&sign_type=RSA2", b"a=%ff&sign=x&sign_type=RSA2"],
)  # fmt: skip
async def test_what_is_no_notice_is_refused_without_harm(alipay: Alipay, raw: bytes) -> None:
    with pytest.raises(NotificationRefused):
        alipay.parse_notification({}, raw, START)


async def test_a_huge_body_is_refused_before_it_is_read(alipay: Alipay) -> None:
    with pytest.raises(Malformed, match="too-large"):
        alipay.parse_notification({}, b"a" * (BODY_LIMIT + 1), START)


async def test_another_merchants_true_notice_is_foreign(stage: Outside, alipay: Alipay) -> None:
    raw = await heard(stage, alipay)
    fields = dict(parse_qsl(raw.decode()))
    for name in ("app_id", "seller_id"):
        other = {**fields, name: "2088999999999999"}
        del other["sign"], other["sign_type"]
        text = "&".join(f"{key}={other[key]}" for key in sorted(other) if other[key])
        signed = {**other, "sign": stage.world.alipay._seal(text.encode(), ""), "sign_type": "RSA2"}
        with pytest.raises(Forged, match="foreign"):
            alipay.parse_notification({}, urlencode(signed).encode(), stage.clock.now())


# Bytes and money


@pytest.mark.parametrize(
    "inner", ['{"a":"}"}', '{"a":"\\"}{"}', '{"a":{"b":{}},"c":"\\\\"}', '{"sign":"no","x":"sign"}']
)
def test_the_signed_part_ends_where_its_brackets_do(inner: str) -> None:
    raw = f' {{ "alipay_trade_query_response" : {inner} , "sign":"S", "alipay_cert_sn":"C"}}'.encode()
    assert signed_part(raw, "alipay_trade_query_response") == (inner.encode(), "S")


@pytest.mark.parametrize("fen", [1, 9, 10, 99, 100, 20000, 28050, 10**12])
def test_money_goes_out_and_comes_back_to_the_fen(fen: int) -> None:
    assert fen_of(yuan(fen)) == fen


@pytest.mark.parametrize(
    "text", ["", "1.", ".5", "1.234", "-1.00", "1e3", "01.00", "１.00", " 1.00", None, 1, 1.5]
)
def test_what_is_not_money_is_none(text: object) -> None:
    assert fen_of(text) is None


@pytest.mark.parametrize(("text", "fen"), [("200", 20000), ("200.5", 20050), ("0.01", 1)])
def test_money_may_be_written_short(text: str, fen: int) -> None:
    assert fen_of(text) == fen


async def test_an_unacknowledged_notice_comes_eight_times_in_a_day(stage: Outside, alipay: Alipay) -> None:
    """`success` and nothing else acknowledges."""
    await placed(alipay)
    await stage.control("/sim/alipay/pay", {"out_trade_no": NUMBER, "callbacks": [0]})
    await stage.play(timedelta(days=3))
    assert len(stage.listener.heard) == 8
    assert stage.listener.moments()[-1] == 87_840  # 24 h 24 min
