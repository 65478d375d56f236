"""WeChat Pay spoken by somebody else: the package wechatpayv3 and our code must agree, both ways."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from wechatpayv3 import WeChatPay as Oracle
from wechatpayv3 import WeChatPayType
from wechatpayv3.utils import build_authorization, rsa_verify

from deploy.simulators.credentials import SigningKey
from services.payment.adapters.wechat import WeChatPay
from services.payment.adapters.wechat_signatures import WeChatAccount, authorization
from services.payment.ports import Forged, OrderState
from tests.simulators.outside import Outside, outside

NUMBER = "20240130000000000001"


@pytest.fixture
async def stage(session_directory: Path, tmp_path: Path) -> AsyncIterator[Outside]:
    """The oracle knows only the machine's clock, so the simulated one stands near it."""
    async with outside(session_directory / "simulator-keys", tmp_path, at=datetime.now(UTC)) as stage:
        yield stage


def oracle(stage: Outside, key: SigningKey, tmp_path: Path) -> Any:
    """wechatpayv3 as its users configure it, except for the gateway's address."""
    wechat = stage.world.credentials.wechat
    directory = stage.world.credentials.directory / "wechat"
    trust: dict[str, Any] = {}
    if key.certificate_pem is None:
        public = key.private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        trust = {"public_key": public.decode(), "public_key_id": key.serial}
    else:
        certificates = tmp_path / "certificates"
        certificates.mkdir()
        (certificates / f"{key.serial}.pem").write_bytes(key.certificate_pem)
        trust = {"cert_dir": str(certificates)}
    client = Oracle(
        wechatpay_type=WeChatPayType.NATIVE,
        mchid=wechat.merchant_id,
        private_key=(directory / "merchant-key.pem").read_text(),
        cert_serial_no=wechat.merchant_serial,
        appid=wechat.app_id,
        apiv3_key=wechat.api_v3_key.decode(),
        notify_url=f"{stage.listener.url}/notify",
        timeout=5,
        **trust,
    )
    client._core._gate_way = stage.world.wechat_url
    return client


async def ask(call: Callable[..., tuple[int, Any]], **arguments: Any) -> tuple[int, Any]:
    """The oracle is synchronous; the simulator lives in this loop."""
    status, text = await asyncio.to_thread(call, **arguments)
    return status, json.loads(text) if text else None


@pytest.fixture(params=[0, 1], ids=["certificate", "public-key"])
def key(request: pytest.FixtureRequest, stage: Outside) -> SigningKey:
    number: int = request.param
    stage.world.wechat.sign_with(number)
    return stage.world.credentials.wechat.signing_keys[number]


async def test_wechatpayv3_works_against_the_simulator_unchanged(
    stage: Outside, key: SigningKey, tmp_path: Path
) -> None:
    client = oracle(stage, key, tmp_path)
    status, order = await ask(
        client.pay,
        description="2024年度卫生专业技术资格考试报名费",
        out_trade_no=NUMBER,
        amount={"total": 20000, "currency": "CNY"},
        attach="考生",
    )
    assert status == 200
    assert order["code_url"].startswith("weixin://")
    status, found = await ask(client.query, out_trade_no=NUMBER)
    assert (status, found["trade_state"], found["attach"]) == (200, "NOTPAY", "考生")
    paid = await stage.control("/sim/wechat/pay", {"out_trade_no": NUMBER, "callbacks": [0]})
    status, found = await ask(client.query, transaction_id=paid["transaction_id"])
    assert (status, found["trade_state"], found["amount"]["total"]) == (200, "SUCCESS", 20000)
    status, refusal = await ask(client.close, out_trade_no=NUMBER)
    assert (status, refusal["code"]) == (400, "ORDERPAID")


async def test_wechatpayv3_closes_and_pays_no_more(stage: Outside, key: SigningKey, tmp_path: Path) -> None:
    client = oracle(stage, key, tmp_path)
    await ask(client.pay, description="考试报名费", out_trade_no=NUMBER, amount={"total": 20000})
    assert await ask(client.close, out_trade_no=NUMBER) == (204, None)
    assert (await ask(client.query, out_trade_no=NUMBER))[1]["trade_state"] == "CLOSED"


async def test_wechatpayv3_fetches_the_certificates_it_is_offered(stage: Outside, tmp_path: Path) -> None:
    key = stage.world.credentials.wechat.signing_keys[0]
    client = oracle(stage, key, tmp_path)
    await asyncio.to_thread(client._core._update_certificates)
    serials = {f"{certificate.serial_number:X}" for certificate in client._core._certificates}
    offered = {k.serial for k in stage.world.credentials.wechat.signing_keys[:-1] if k.certificate_pem}
    assert serials == offered
    assert len(offered) == 2


async def test_wechatpayv3_reads_the_simulators_notification_and_so_do_we(
    stage: Outside, key: SigningKey, tmp_path: Path
) -> None:
    client = oracle(stage, key, tmp_path)
    await ask(client.pay, description="考试报名费", out_trade_no=NUMBER, amount={"total": 20000})
    await stage.control("/sim/wechat/pay", {"out_trade_no": NUMBER, "callbacks": [0]})
    await stage.at_rest()
    at, headers, body = stage.listener.heard[0]
    theirs = client.callback(headers, body)
    ours = _channel(stage).parse_notification(headers, body, at)
    assert theirs["event_type"] == "TRANSACTION.SUCCESS"
    resource = theirs["resource"]
    assert (resource["out_trade_no"], resource["amount"]["total"]) == (ours.order_no, ours.amount_fen)
    assert datetime.fromisoformat(resource["success_time"]) == ours.paid_at
    assert ours.state is OrderState.PAID


async def test_altered_bytes_are_refused_by_both(stage: Outside, key: SigningKey, tmp_path: Path) -> None:
    client = oracle(stage, key, tmp_path)
    await ask(client.pay, description="考试报名费", out_trade_no=NUMBER, amount={"total": 20000})
    await stage.control("/sim/wechat/pay", {"out_trade_no": NUMBER, "callbacks": [0]})
    await stage.at_rest()
    at, headers, body = stage.listener.heard[0]
    ours = _channel(stage)
    for position in range(0, len(body), 7):
        altered = body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]
        assert client.callback(headers, altered.decode("utf-8", "replace")) is None
        with pytest.raises(Forged):
            ours.parse_notification(headers, altered, at)


async def test_an_altered_answer_stops_wechatpayv3_as_it_stops_us(stage: Outside, tmp_path: Path) -> None:
    client = oracle(stage, stage.world.credentials.wechat.signing_keys[0], tmp_path)
    await ask(client.pay, description="考试报名费", out_trade_no=NUMBER, amount={"total": 20000})
    await stage.control("/sim/wechat/misbehave", {"how": "altered-body"})
    with pytest.raises(Exception, match="failed to verify the signature"):
        await ask(client.query, out_trade_no=NUMBER)


async def test_what_we_sign_is_what_wechatpayv3_would_sign(
    stage: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = WeChatAccount.read(stage.world.accounts["wechat"])
    at = datetime(2024, 1, 30, 12, 0, 0, tzinfo=UTC)
    monkeypatch.setattr("wechatpayv3.utils.time.time", at.timestamp)
    body = '{"mchid":"1900000001","description":"考试报名费"}'
    path = "/v3/pay/transactions/native"
    theirs = build_authorization(
        path, "POST", account.merchant_id, account.certificate_serial, account.private_key, body, "N0NCE"
    )
    assert authorization(account, "POST", path, body.encode(), at, nonce="N0NCE") == theirs


async def test_what_we_send_verifies_with_wechatpayv3s_own_verifier(stage: Outside) -> None:
    """Our Authorization, taken apart and checked by the oracle's RSA verification."""
    account = WeChatAccount.read(stage.world.accounts["wechat"])
    at = datetime(2024, 1, 30, 12, 0, 0, tzinfo=UTC)
    header = authorization(account, "GET", "/v3/x?mchid=1", b"", at, nonce="N0NCE")
    signature = header.split('signature="')[1].split('"')[0]
    # Its text is timestamp, nonce, body: the request's text has two lines more in front.
    public = account.private_key.public_key()
    assert rsa_verify("GET\n/v3/x?mchid=1\n1706616000", "N0NCE", "", signature, public)
    assert not rsa_verify("GET\n/v3/x?mchid=2\n1706616000", "N0NCE", "", signature, public)


def _channel(stage: Outside) -> WeChatPay:
    account = WeChatAccount.read(stage.world.accounts["wechat"])
    return WeChatPay(account, notify_url="https://office.test/notify", clock=stage.clock)


async def test_the_oracle_takes_a_day_old_signature_and_we_do_not(
    stage: Outside, key: SigningKey, tmp_path: Path
) -> None:
    """Why there is code of ours at all: this package has no idea of freshness."""
    client = oracle(stage, key, tmp_path)
    await ask(client.pay, description="考试报名费", out_trade_no=NUMBER, amount={"total": 20000})
    await stage.control("/sim/wechat/pay", {"out_trade_no": NUMBER, "callbacks": [0]})
    await stage.at_rest()
    at, headers, body = stage.listener.heard[0]
    assert client.callback(headers, body) is not None
    with pytest.raises(Exception, match="stale"):
        _channel(stage).parse_notification(headers, body, at + timedelta(days=1))
