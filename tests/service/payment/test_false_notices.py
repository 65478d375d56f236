"""Notices that are not what they seem, of both gateways: nothing changes, the protocol's no, a counter and an audit line.

Rows 41 and 45–48 of the fault matrix that concern what comes in by itself. What the seals themselves refuse, byte by byte, is
in the tests of each channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from structlog.testing import capture_logs

from deploy.simulators.order_book import Order
from tests.service.payment.system import CLOSES, System, moment
from tests.support.counted import counted

DAY: Final = "2024-01-30 10:00"
CHANNELS: Final = ("wechat", "alipay")
PATHS: Final = {"wechat": "/gateway/wechat/notify", "alipay": "/gateway/alipay/notify"}
TAKEN: Final = {"wechat": (204, b""), "alipay": (200, b"success")}
MICROSECOND: Final = timedelta(microseconds=1)

Notice = tuple[dict[str, str], bytes]
Make = Callable[[System, Any, Order], Notice]


async def refused(system: System, channel: str, notice: Notice, reason: str, status: int) -> None:
    """Send it: nothing of the service's changes, and the refusal is answered, counted and in the audit log."""
    path = PATHS[channel]
    before = await system.everything()
    outcomes = counted("kaowu_payment_callbacks_total", channel=channel, outcome=reason)
    lines = counted("kaowu_access_refused_total", route=path, why=reason)
    with capture_logs() as logged:
        answer = await system.http.post(path, content=notice[1], headers=notice[0])
    assert await system.everything() == before
    assert answer.status_code == status
    if channel == "wechat":
        assert answer.json() == {"code": "FAIL", "message": reason}
    else:
        assert answer.text == "failure"
    assert counted("kaowu_payment_callbacks_total", channel=channel, outcome=reason) == outcomes + 1
    assert counted("kaowu_access_refused_total", route=path, why=reason) == lines + 1
    (line,) = [one for one in logged if one["event"] == "access-refused"]
    assert (line["why"], line["who"], line["route"]) == (reason, f"gateway:{channel}", path)


def misbehaving(how: str) -> Make:
    """The gateway's own notice, spoiled on its way or by its sender."""

    def make(_: System, gateway: Any, order: Order) -> Notice:
        gateway.misbehave(how, 1)
        notice: Notice = gateway._notice(order, gateway._notice_id())
        return notice

    return make


def about(**changed: object) -> Make:
    """Truly sealed, about something else."""

    def make(_: System, gateway: Any, order: Order) -> Notice:
        other = replace(order, **changed)  # type: ignore[arg-type]  # fields of an order, by name
        notice: Notice = gateway._notice(other, gateway._notice_id())
        return notice

    return make


def sealed_with_another_key(_: System, gateway: Any, order: Order) -> Notice:
    """Truly signed; what is inside was sealed for another merchant."""
    ours, gateway._aead = gateway._aead, AESGCM(b"k" * 32)
    try:
        notice: Notice = gateway._notice(order, gateway._notice_id())
    finally:
        gateway._aead = ours
    return notice


def of_another(**changed: str) -> Make:
    """Truly sealed by the gateway, for somebody else's account."""

    def make(_: System, gateway: Any, order: Order) -> Notice:
        ours = gateway._world
        gateway._world = replace(ours, **changed)
        try:
            notice: Notice = gateway._notice(order, gateway._notice_id())
        finally:
            gateway._world = ours
        return notice

    return make


@pytest.fixture
async def both(system: System) -> System:
    await system.with_alipay()
    system.at(DAY)
    return system


FALSE: Final = [
    ("wechat", misbehaving("wrong-signature"), "signature", 401),
    ("wechat", misbehaving("altered-body"), "signature", 401),
    ("wechat", misbehaving("unlisted-key"), "unknown-serial", 401),
    ("wechat", misbehaving("probe"), "probe", 401),
    ("wechat", misbehaving("stale"), "stale", 401),
    ("wechat", of_another(app_id="wx1111111111111111"), "foreign", 401),
    ("wechat", of_another(merchant_id="1900000999"), "foreign", 401),
    ("wechat", sealed_with_another_key, "undecipherable", 401),
    ("wechat", about(out_trade_no="20240129OFSOMEBODYELSE"), "unknown-order", 400),
    ("wechat", about(currency="USD"), "foreign-money", 400),
    ("wechat", about(amount_fen=0), "foreign-money", 400),
    ("alipay", misbehaving("wrong-signature"), "signature", 401),
    ("alipay", misbehaving("altered-body"), "signature", 401),
    ("alipay", misbehaving("unlisted-key"), "signature", 401),
    ("alipay", misbehaving("stale"), "stale", 401),
    ("alipay", of_another(app_id="2021999999999999"), "foreign", 401),
    ("alipay", of_another(seller_id="2088999999999999"), "foreign", 401),
    ("alipay", about(out_trade_no="20240129OFSOMEBODYELSE"), "unknown-order", 400),
]


@pytest.mark.parametrize(
    ("channel", "make", "reason", "status"),
    FALSE,
    ids=[f"{one[0]}-{number}-{one[2]}" for number, one in enumerate(FALSE)],
)
async def test_a_false_notice_changes_nothing_and_is_refused_counted_and_written_down(
    both: System, channel: str, make: Make, reason: str, status: int
) -> None:
    candidate = await both.owing()
    order_no = await both.ordered(candidate, channel)
    both.pay(order_no)
    gateway = getattr(both.world, channel)
    order = gateway.book.find(order_no)
    await refused(both, channel, make(both, gateway, order), reason, status)
    # The true one, afterwards, is taken all the same: a forger keeps nobody from having paid.
    await both.call_back(order_no)
    assert await both.words(candidate) == ["due", "paid"]


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_notice_about_an_order_of_the_other_channel_is_refused(both: System, channel: str) -> None:
    """Truly sealed: the gateway's word counts for its own orders only."""
    other = next(one for one in CHANNELS if one != channel)
    candidate = await both.owing()
    theirs = await both.ordered(candidate, other)
    mine = await both.ordered(await both.owing(), channel)
    both.pay(mine)
    gateway = getattr(both.world, channel)
    notice = about(out_trade_no=theirs)(both, gateway, gateway.book.find(mine))
    await refused(both, channel, notice, "unknown-order", 400)
    assert await both.status(candidate) == "awaiting"


@pytest.mark.parametrize("channel", CHANNELS)
async def test_the_same_notice_again_is_acknowledged_and_changes_nothing_until_it_is_stale(
    both: System, channel: str
) -> None:
    candidate = await both.owing()
    order_no = await both.ordered(candidate, channel)
    both.pay(order_no)
    gateway = getattr(both.world, channel)
    headers, body = gateway._notice(gateway.book.find(order_no), gateway._notice_id())
    for expected in ("paid", "duplicate", "duplicate"):
        before = counted("kaowu_payment_callbacks_total", channel=channel, outcome=expected)
        answer = await both.http.post(PATHS[channel], content=body, headers=headers)
        assert (answer.status_code, answer.content) == TAKEN[channel]
        assert counted("kaowu_payment_callbacks_total", channel=channel, outcome=expected) == before + 1
    assert await both.words(candidate) == ["due", "paid"]
    assert await both.ledger(candidate) == [("received", 20_000, None), ("fee", 20_000, None)]
    both.clock.jump(moment(DAY) + timedelta(minutes=5) - MICROSECOND)
    answer = await both.http.post(PATHS[channel], content=body, headers=headers)
    assert (answer.status_code, answer.content) == TAKEN[channel]
    both.clock.jump(moment(DAY) + timedelta(minutes=5))
    await refused(both, channel, (headers, body), "stale", 401)


@pytest.mark.parametrize("channel", CHANNELS)
async def test_an_own_clock_that_is_six_minutes_off_is_alarmed_and_the_query_still_finds_the_payment(
    both: System, channel: str
) -> None:
    """Every true notice is refused then; nobody may lose a place over that."""
    candidate = await both.owing()
    order_no = await both.ordered(candidate, channel)
    both.pay(order_no)
    gateway = getattr(both.world, channel)
    notice = gateway._notice(gateway.book.find(order_no), gateway._notice_id())
    both.clock.jump(moment(DAY) + timedelta(minutes=6))
    with capture_logs() as logged:
        await both.http.post(PATHS[channel], content=notice[1], headers=notice[0])
    assert [one["skew_seconds"] for one in logged if one["event"] == "notice-stale"] == [360]
    assert counted("kaowu_payment_callback_skew_seconds", channel=channel) == 360
    assert await both.status(candidate) == "awaiting"
    both.at(CLOSES)
    await both.close()
    assert await both.words(candidate) == ["due", "paid"]


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_true_notice_of_a_wrong_amount_pays_nothing_and_the_money_goes_back(
    both: System, channel: str
) -> None:
    candidate = await both.owing()
    order_no = await both.ordered(candidate, channel)
    both.pay(order_no)
    gateway = getattr(both.world, channel)
    headers, body = about(amount_fen=19_999)(both, gateway, gateway.book.find(order_no))
    before = counted("kaowu_payment_callbacks_total", channel=channel, outcome="refund-due")
    answer = await both.http.post(PATHS[channel], content=body, headers=headers)
    assert (answer.status_code, answer.content) == TAKEN[channel]
    assert counted("kaowu_payment_callbacks_total", channel=channel, outcome="refund-due") == before + 1
    assert await both.status(candidate) == "awaiting"
    assert await both.ledger(candidate) == [
        ("received", 19_999, None),
        ("refund-due", 19_999, "wrong-amount"),
    ]


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "without length"])
async def test_ten_megabytes_are_refused_unread_counted_and_written_down(
    both: System, channel: str, declared: bool
) -> None:
    before = await both.everything()
    refusals = counted("kaowu_refusals_total", route="unmatched", code="too-large") + counted(
        "kaowu_refusals_total", route=PATHS[channel], code="too-large"
    )

    async def pieces() -> Any:
        for _ in range(160):
            yield b"x" * 65_536

    with capture_logs() as logged:
        answer = await both.http.post(PATHS[channel], content=b"x" * (10 << 20) if declared else pieces())
    assert answer.status_code == 413
    assert answer.content not in {b"success", b""}
    assert await both.everything() == before
    assert [one["why"] for one in logged if one["event"] == "access-refused"] == ["too-large"]
    after = counted("kaowu_refusals_total", route="unmatched", code="too-large") + counted(
        "kaowu_refusals_total", route=PATHS[channel], code="too-large"
    )
    assert after == refusals + 1


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_body_below_the_limit_of_requests_and_above_that_of_notices_is_refused(
    both: System, channel: str
) -> None:
    await refused(both, channel, ({}, b"x" * 100_000), "too-large", 400)


async def test_a_closed_notice_after_a_success_undoes_nothing_and_one_before_it_decides_nothing(
    both: System,
) -> None:
    """Row 47: out of order. The gateway's words arrive as CLOSED, SUCCESS, CLOSED."""
    candidate = await both.owing()
    order_no = await both.ordered(candidate, "alipay")
    both.pay(order_no)
    gateway: Any = both.world.alipay
    closed = _closed(gateway, order_no)
    for expected in (["due"], ["due", "paid"], ["due", "paid"]):
        if expected == ["due", "paid"] and await both.status(candidate) == "awaiting":
            await both.call_back(order_no)
        else:
            answer = await both.http.post(PATHS["alipay"], content=closed)
            assert answer.content == b"success"
        assert await both.words(candidate) == expected
    assert await both.ledger(candidate) == [("received", 20_000, None), ("fee", 20_000, None)]
    assert counted("kaowu_payment_callbacks_total", channel="alipay", outcome="nothing") >= 2


def _closed(gateway: Any, order_no: str) -> bytes:
    fields = dict(parse_qsl(gateway._notice(gateway.book.find(order_no), gateway._notice_id())[1].decode()))
    for name in ("sign", "sign_type", "gmt_payment"):
        del fields[name]
    fields["trade_status"] = "TRADE_CLOSED"
    text = "&".join(f"{name}={fields[name]}" for name in sorted(fields) if fields[name])
    return urlencode({**fields, "sign": gateway._seal(text.encode(), ""), "sign_type": "RSA2"}).encode()


@pytest.mark.parametrize("channel", CHANNELS)
async def test_keys_that_change_during_the_window_lose_nobody_a_payment(both: System, channel: str) -> None:
    """Row 50. Old and new are good side by side; what nobody gave us is refused, and the payment is found later."""
    gateway = getattr(both.world, channel)
    unlisted = len(gateway._world.signing_keys) - 1
    for key in (1, 0, 1):
        gateway.sign_with(key)
        candidate = await both.owing()
        await both.paid_and_heard(await both.ordered(candidate, channel))
        assert await both.words(candidate) == ["due", "paid"]
    candidate = await both.owing()
    order_no = await both.ordered(candidate, channel)
    both.pay(order_no)
    gateway.sign_with(unlisted)
    notice = gateway._notice(gateway.book.find(order_no), gateway._notice_id())
    await refused(both, channel, notice, "unknown-serial" if channel == "wechat" else "signature", 401)
    both.at(CLOSES)
    await both.close()
    assert await both.status(candidate) == "held", "somebody was decided about by a key that nobody knows"
    gateway.sign_with(0)
    both.clock.jump(moment(CLOSES) + timedelta(minutes=6))
    await both.settle()
    assert await both.words(candidate) == ["due", "paid"]
