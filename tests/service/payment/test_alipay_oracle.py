"""Alipay spoken by somebody else: the package python-alipay-sdk and our code must agree, both ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from alipay import AliPay as Oracle
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deploy.simulators.http import Reply, Request, serving
from services.payment.adapters.alipay import Alipay
from services.payment.adapters.alipay_signatures import AlipayAccount, sign
from services.payment.adapters.asking import BEIJING
from services.payment.ports import Closed, Forged, Malformed, OrderState
from tests.simulators.outside import Outside, outside

NUMBER = "20240130000000000001"


@pytest.fixture
async def stage(session_directory: Path, tmp_path: Path) -> AsyncIterator[Outside]:
    async with outside(session_directory / "simulator-keys", tmp_path, at=datetime.now(UTC)) as stage:
        yield stage


@pytest.fixture
def oracle(stage: Outside) -> Any:
    """The package as its users configure it, except for the gateway's address."""
    world = stage.world.credentials.alipay
    key = world.signing_keys[0].private_key.public_key()
    client = Oracle(
        appid=world.app_id,
        app_notify_url=f"{stage.listener.url}/notify",
        app_private_key_string=(
            stage.world.credentials.directory / "alipay" / "merchant-key.pem"
        ).read_text(),
        alipay_public_key_string=key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    )
    client._gateway = f"{stage.world.alipay_url}/gateway.do"
    return client


@pytest.fixture
def account(stage: Outside) -> AlipayAccount:
    return AlipayAccount.read(stage.world.accounts["alipay"])


@pytest.fixture
async def alipay(stage: Outside, account: AlipayAccount) -> AsyncIterator[Alipay]:
    client = Alipay(account, notify_url=f"{stage.listener.url}/notify", clock=stage.clock)
    yield client
    await client.aclose()


async def ask(stage: Outside, oracle: Any, method: str, **content: str) -> dict[str, Any]:
    """By the package, which blocks; it stamps with this machine's own clock face, Alipay reads Beijing's."""
    at = f"{stage.clock.now().astimezone(BEIJING):%Y-%m-%d %H:%M:%S}"
    answer: dict[str, Any] = await asyncio.to_thread(oracle.server_api, method, content, timestamp=at)
    return answer


async def test_the_package_orders_queries_and_closes_at_our_simulator(stage: Outside, oracle: Any) -> None:
    """It verifies every seal of the simulator's answers itself."""
    content = {"out_trade_no": NUMBER, "total_amount": "200.00", "subject": "考试费"}
    assert (await ask(stage, oracle, "alipay.trade.precreate", **content))["code"] == "10000"
    unopened = await ask(stage, oracle, "alipay.trade.query", out_trade_no=NUMBER)
    assert unopened["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    stage.world.alipay.pay(NUMBER, [])
    assert (await ask(stage, oracle, "alipay.trade.query", out_trade_no=NUMBER))[
        "trade_status"
    ] == "TRADE_SUCCESS"
    back = await ask(
        stage,
        oracle,
        "alipay.trade.refund",
        out_trade_no=NUMBER,
        out_request_no="R1",
        refund_amount="200.00",
        refund_reason="考试费退款",
    )
    assert (back["code"], back["fund_change"]) == ("10000", "Y")


async def test_what_the_package_placed_our_client_reads_and_the_other_way_round(
    stage: Outside, oracle: Any, alipay: Alipay
) -> None:
    content = {"out_trade_no": NUMBER, "total_amount": "200.00", "subject": "考试费"}
    await ask(stage, oracle, "alipay.trade.precreate", **content)
    await stage.control("/sim/alipay/open", {"order_no": NUMBER})
    assert (await alipay.query(NUMBER)).state is OrderState.UNPAID
    assert await alipay.close(NUMBER) == Closed(NUMBER)
    other = NUMBER[:-1] + "2"
    await alipay.place_order(other, 20_000, "考试费", stage.clock.now() + timedelta(hours=1))
    await stage.control("/sim/alipay/open", {"order_no": other})
    assert (await ask(stage, oracle, "alipay.trade.query", out_trade_no=other))["trade_status"] == (
        "WAIT_BUYER_PAY"
    )


def test_both_make_the_same_seal_of_the_same_fields(oracle: Any, account: AlipayAccount) -> None:
    """RSA2 has no chance in it: equal bytes, equal seal."""
    fields = oracle.build_body("alipay.trade.query", {"out_trade_no": NUMBER})
    sealed = dict(parse_qsl(oracle.sign_data(dict(fields))))
    theirs = sealed.pop("sign")
    assert sign(account, sealed) == theirs


async def notice(stage: Outside, alipay: Alipay) -> bytes:
    """The gateway's notice of a payment, as it travels."""
    bodies: list[bytes] = []

    async def keep(request: Request) -> Reply:
        bodies.append(request.body)
        return Reply(200, b"success")

    async with serving(keep) as url:
        alipay._notify_url = f"{url}/notify"
        await alipay.place_order(NUMBER, 20_000, "考试费", stage.clock.now() + timedelta(hours=1))
        stage.world.alipay.pay(NUMBER, [0])
        while not bodies:
            await asyncio.sleep(0.005)
    return bodies[0]


async def test_a_notice_that_we_take_the_package_takes_and_altered_both_refuse(
    stage: Outside, oracle: Any, alipay: Alipay
) -> None:
    raw = await notice(stage, alipay)
    assert alipay.parse_notification({}, raw, stage.clock.now()).order_no == NUMBER
    fields = dict(parse_qsl(raw.decode(), keep_blank_values=True))
    seal = fields.pop("sign")
    assert oracle.verify(dict(fields), seal)
    fields.pop("sign_type")
    for name, value in fields.items():
        if not value:
            continue  # without a value it is in nobody's seal
        altered = {**fields, name: f"{value}0"}
        assert not oracle.verify(dict(altered), seal), name
        body = urlencode({**altered, "sign": seal, "sign_type": "RSA2"}).encode()
        with pytest.raises((Forged, Malformed)):
            alipay.parse_notification({}, body, stage.clock.now())
