"""Aliyun SMS: our client against a carrier that checks its signature for real, and against Aliyun's own signer and example."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.simulators.aliyun import DEAD_PREFIX, REFUSED_PREFIX, SILENT_PREFIX
from deploy.simulators.http import Reply, Request, serving
from services.chassis.clock import SystemClock
from services.notification.adapters.aliyun import (
    AccountInvalid,
    AliyunAccount,
    AliyunSms,
    canonical_query,
    signed_headers,
)
from services.notification.ports import Accepted, NoAnswer, Receipt, Rejected, Sent, Sms
from tests.simulators.outside import START, HandClock, Outside, outside

PHONE = "13800001234"
TEMPLATE = "SMS_474580001"
TEMPLATES = {TEMPLATE: "考生${number}：网上缴费截止${deadline}，逾期视为自动放弃考试。"}
VARIABLES = {"number": "5678", "deadline": "2024年2月8日（星期四）24时"}


@pytest.fixture
async def stage(session_directory: Path, tmp_path: Path) -> AsyncIterator[Outside]:
    async with outside(session_directory / "simulator-keys", tmp_path, templates=TEMPLATES) as stage:
        yield stage


@pytest.fixture
async def sms(stage: Outside) -> AsyncIterator[AliyunSms]:
    client = AliyunSms(AliyunAccount.read(stage.world.accounts["aliyun"]), clock=stage.clock)
    yield client
    await client.aclose()


async def send(sms: Sms, to: str = PHONE, reference: str = "message-1", **variables: str) -> Accepted:
    return await sms.send(to, TEMPLATE, VARIABLES | variables, "", reference)


def test_the_signature_is_the_one_of_aliyuns_documentation() -> None:
    """The worked example of "V3 版本请求体&签名机制": same inputs, same signature."""
    query = canonical_query(
        {
            "RegionId": "cn-shanghai",
            "ImageId": "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd",
        }
    )
    assert query == "ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai"
    headers = signed_headers(
        AliyunAccount("", "YourAccessKeyId", b"YourAccessKeySecret", ""),
        "ecs.cn-shanghai.aliyuncs.com",
        "RunInstances",
        query,
        datetime(2023, 10, 26, 10, 22, 32, tzinfo=UTC),
        "3156853299f313e23d1673dc12e1703d",
        version="2014-05-26",
    )
    assert headers["authorization"] == (
        "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,"
        "SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,"
        "Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
    )


@settings(max_examples=60, deadline=None)  # the signer is slow to import
@given(
    st.dictionaries(
        st.sampled_from(["PhoneNumbers", "SignName", "TemplateParam", "OutId"]), st.text(min_size=1)
    ),
    st.integers(0, 10**8),
)
def test_the_signature_is_the_one_of_aliyuns_own_signer(parameters: dict[str, str], seconds: int) -> None:
    """That of its SDKs: the same request, signed by both."""
    from alibabacloud_openapi_util.client import Client  # noqa: PLC0415
    from Tea.request import TeaRequest  # noqa: PLC0415

    query = canonical_query(parameters)
    account, moment = AliyunAccount("", "AKID", b"secret", ""), START + timedelta(seconds=seconds)
    ours = signed_headers(account, "dysmsapi.aliyuncs.com", "SendSms", query, moment, "a-nonce")
    theirs = TeaRequest()
    theirs.method, theirs.pathname, theirs.query = "POST", "/", parameters
    theirs.headers = {name: value for name, value in ours.items() if name != "authorization"}
    assert ours["authorization"] == Client.get_authorization(
        theirs, "ACS3-HMAC-SHA256", ours["x-acs-content-sha256"], "AKID", "secret"
    )


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=5))
def test_a_canonical_query_reads_back_as_it_was(parameters: dict[str, str]) -> None:
    query = canonical_query(parameters)
    assert dict(parse_qsl(query, keep_blank_values=True)) == parameters
    assert "+" not in query
    assert query.isascii()


async def test_a_message_is_accepted_and_its_receipt_comes_back_with_our_reference(
    stage: Outside, sms: AliyunSms
) -> None:
    accepted = await send(sms, reference="0190a1b2-message")
    await stage.play(timedelta(minutes=1))
    assert stage.listener.moments() == [5]
    _, _, body = stage.listener.heard[0]
    assert list(sms.parse_receipts(body).receipts) == [
        Receipt("0190a1b2-message", accepted.provider_ref, True, "DELIVERED", START + timedelta(seconds=5))
    ]


async def test_the_carrier_fills_the_approved_text(stage: Outside, sms: AliyunSms) -> None:
    await send(sms)
    book = await stage.control("/sim/sms/book")
    assert book["messages"][0]["text"] == (
        "考生5678：网上缴费截止2024年2月8日（星期四）24时，逾期视为自动放弃考试。"
    )
    assert PHONE not in json.dumps(book)


@settings(max_examples=25)
@given(value=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
async def test_any_variable_survives_the_signature_and_the_wire(value: str) -> None:
    """Signs, spaces, stars, pluses, Chinese: the query is signed exactly as it is sent."""
    seen: list[tuple[str, Any]] = []

    async def take(request: Request) -> Reply:
        seen.append((request.query, dict(parse_qsl(request.query))["TemplateParam"]))
        return Reply.of({"Code": "OK", "BizId": "1"})

    async with serving(take) as url:
        client = AliyunSms(AliyunAccount(url, "id", b"secret", "乐山考点"), clock=SystemClock())
        await client.send(PHONE, TEMPLATE, {"v": value}, "", "r")
        await client.aclose()
    [(query, parameters)] = seen
    assert json.loads(parameters) == {"v": value}
    assert query == canonical_query(dict(parse_qsl(query, keep_blank_values=True)))


@pytest.mark.parametrize("value", ["+ *~%&=#?/", "㐂𠮷·", "a b", "'\"\\", "line\nbreak"])
async def test_odd_characters_pass_the_carriers_own_check(stage: Outside, sms: AliyunSms, value: str) -> None:
    await send(sms, deadline=value)
    book = await stage.control("/sim/sms/book")
    assert value in book["messages"][0]["text"]


@pytest.mark.parametrize(
    ("prefix", "delivered", "code"),
    [(DEAD_PREFIX, False, "MOBILE_NOT_ON_SERVICE"), ("1380000", True, "DELIVERED")],
)
async def test_a_dead_number_is_undelivered(
    stage: Outside, sms: AliyunSms, prefix: str, delivered: bool, code: str
) -> None:
    await send(sms, prefix + "1234")
    await stage.play(timedelta(minutes=1))
    [receipt] = sms.parse_receipts(stage.listener.heard[0][2]).receipts
    assert (receipt.delivered, receipt.code) == (delivered, code)


async def test_a_silent_number_never_has_a_receipt(stage: Outside, sms: AliyunSms) -> None:
    await send(sms, SILENT_PREFIX + "1234")
    await stage.play(timedelta(days=4))
    assert stage.listener.heard == []


@pytest.mark.parametrize("number", ["12345678901", "1380000123", "", REFUSED_PREFIX + "1234"])
async def test_an_illegal_number_is_refused_for_good(sms: AliyunSms, number: str) -> None:
    with pytest.raises(Rejected) as refused:
        await send(sms, number)
    assert refused.value.permanent
    assert refused.value.code in {"isv.MOBILE_NUMBER_ILLEGAL", "MissingPhoneNumbers"}
    assert number == "" or number not in str(refused.value)


async def test_a_missing_variable_is_refused_for_good(sms: AliyunSms) -> None:
    with pytest.raises(Rejected) as refused:
        await sms.send(PHONE, TEMPLATE, {"number": "5678"}, "", "r")
    assert (refused.value.code, refused.value.permanent) == ("isv.TEMPLATE_MISSING_PARAMETERS", True)


async def test_an_unapproved_template_may_be_approved_later(sms: AliyunSms) -> None:
    with pytest.raises(Rejected) as refused:
        await sms.send(PHONE, "SMS_999", VARIABLES, "", "r")
    assert (refused.value.code, refused.value.permanent) == ("isv.SMS_TEMPLATE_ILLEGAL", False)


async def test_the_fifty_first_message_of_a_day_must_wait(stage: Outside, sms: AliyunSms) -> None:
    for n in range(50):
        await send(sms, reference=f"r{n}")
    with pytest.raises(Rejected) as refused:
        await send(sms)
    assert (refused.value.code, refused.value.permanent) == ("isv.BUSINESS_LIMIT_CONTROL", False)
    await send(sms, "13800005678")
    stage.clock.move(hours=24)
    await send(sms)


async def test_a_wrong_secret_gives_up_no_message(stage: Outside) -> None:
    account = AliyunAccount.read(stage.world.accounts["aliyun"])
    client = AliyunSms(replace(account, access_key_secret=b"wrong"), clock=stage.clock)
    with pytest.raises(Rejected) as refused:
        await send(client)
    assert (refused.value.code, refused.value.permanent) == ("SignatureDoesNotMatch", False)
    await client.aclose()


async def test_a_throttled_message_goes_later(stage: Outside, sms: AliyunSms) -> None:
    await stage.control("/sim/sms/throttle", {"seconds": 3600})
    with pytest.raises(Rejected) as refused:
        await send(sms)
    assert (refused.value.code, refused.value.permanent) == ("Throttling.User", False)
    stage.clock.move(hours=1)
    await send(sms)


@pytest.mark.parametrize(("how", "kept"), [("refuse", 0), ("lose", 1)])
async def test_a_carrier_that_is_down_leaves_it_open_whether_it_took_the_message(
    stage: Outside, sms: AliyunSms, how: str, kept: int
) -> None:
    await stage.control("/sim/sms/down", {"seconds": 60, "how": how})
    with pytest.raises(NoAnswer) as nothing:
        await send(sms)
    assert nothing.value.maybe_accepted
    assert (await stage.control("/sim/sms/book"))["totals"]["messages"] == kept


async def test_a_carrier_that_hangs_is_given_up_in_time(
    stage: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.notification.adapters.aliyun.PATIENCE", 0.2)
    sms = AliyunSms(AliyunAccount.read(stage.world.accounts["aliyun"]), clock=stage.clock)
    await stage.control("/sim/sms/down", {"seconds": 60, "how": "hang"})
    with pytest.raises(NoAnswer, match="in time") as nothing:
        await send(sms)
    assert nothing.value.maybe_accepted
    await sms.aclose()


async def test_without_a_connection_the_message_surely_was_not_taken() -> None:
    async with serving(_never) as url:
        gone = url
    client = AliyunSms(AliyunAccount(gone, "id", b"secret", "乐山考点"), clock=SystemClock())
    with pytest.raises(NoAnswer) as nothing:
        await send(client)
    assert not nothing.value.maybe_accepted
    await client.aclose()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b"\xff", b"x" * 100_000])
async def test_an_answer_nobody_understands_is_no_answer(body: bytes) -> None:
    async def answer(_: Request) -> Reply:
        return Reply(200, body)

    async with serving(answer) as url:
        client = AliyunSms(AliyunAccount(url, "id", b"secret", "乐山考点"), clock=SystemClock())
        with pytest.raises(NoAnswer) as nothing:
            await send(client)
        assert nothing.value.maybe_accepted
        await client.aclose()


async def test_a_hundred_messages_at_once_have_one_receipt_batch(stage: Outside, sms: AliyunSms) -> None:
    await asyncio.gather(*(send(sms, f"139{n:08d}", f"r{n}") for n in range(100)))
    await stage.play(timedelta(minutes=1))
    [(_, _, body)] = stage.listener.heard
    assert {receipt.reference for receipt in sms.parse_receipts(body).receipts} == {
        f"r{n}" for n in range(100)
    }


# Requests as a stranger would alter them


async def _resend(stage: Outside, change: dict[str, str], query: str | None = None) -> tuple[int, str]:
    """A rightly signed request, altered after signing."""
    account = AliyunAccount.read(stage.world.accounts["aliyun"])
    right = canonical_query(
        {
            "PhoneNumbers": PHONE,
            "SignName": account.sign_name,
            "TemplateCode": TEMPLATE,
            "TemplateParam": json.dumps(VARIABLES),
            "OutId": "r",
        }
    )
    host = urlsplit(account.endpoint).netloc
    headers = signed_headers(account, host, "SendSms", right, stage.clock.now(), "nonce-1") | change
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        response = await client.post(f"{account.endpoint}/?{query or right}", headers=headers)
    return response.status_code, response.json()["Code"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, "OK"),
        ({"x-acs-action": "SendBatchSms"}, "SignatureDoesNotMatch"),
        ({"x-acs-version": "2017-05-26"}, "SignatureDoesNotMatch"),
        ({"x-acs-date": "2024-01-30T12:00:01Z"}, "SignatureDoesNotMatch"),
        ({"x-acs-signature-nonce": "nonce-2"}, "SignatureDoesNotMatch"),
        ({"x-acs-content-sha256": "0" * 64}, "SignatureDoesNotMatch"),
        ({"x-acs-extra": "unsigned"}, "IncompleteSignature"),
        ({"host": "elsewhere.test"}, "SignatureDoesNotMatch"),
        ({"authorization": ""}, "MissingAuthorization"),
        (
            {"authorization": "ACS3-HMAC-SHA256 Credential=x,SignedHeaders=host,Signature=" + "0" * 64},
            "InvalidAccessKeyId.NotFound",
        ),
    ],
)
async def test_the_carrier_refuses_any_altered_header(
    stage: Outside, change: dict[str, str], code: str
) -> None:
    assert (await _resend(stage, change))[1] == code


async def test_the_carrier_refuses_an_altered_query(stage: Outside) -> None:
    assert await _resend(stage, {}, query="PhoneNumbers=13800009999") == (400, "SignatureDoesNotMatch")


async def test_the_carrier_refuses_a_request_sent_again(stage: Outside) -> None:
    assert await _resend(stage, {}) == (200, "OK")
    assert await _resend(stage, {}) == (400, "SignatureNonceUsed")


async def test_a_nonce_is_remembered_as_long_as_a_date_could_be_fresh_and_no_longer(stage: Outside) -> None:
    assert await _resend(stage, {}) == (200, "OK")
    stage.clock.move(minutes=29, seconds=59.999999)
    assert await _resend(stage, {}) == (400, "SignatureNonceUsed")
    stage.clock.move(microseconds=1)
    assert await _resend(stage, {}) == (200, "OK")


async def test_the_carrier_refuses_a_request_of_sixteen_minutes_ago(stage: Outside) -> None:
    account = AliyunAccount.read(stage.world.accounts["aliyun"])
    client = AliyunSms(account, clock=HandClock(START - timedelta(minutes=16)))
    with pytest.raises(Rejected, match=r"InvalidTimeStamp\.Expired"):
        await send(client)
    await client.aclose()


async def _never(_: Request) -> Reply:
    raise AssertionError("nobody should come here")


def test_an_account_file_says_what_is_wrong_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    content = {"endpoint": "https://sms.test/", "access_key_id": "id", "access_key_secret_file": "secret"}
    file.write_text(json.dumps(content))
    with pytest.raises(AccountInvalid, match="cannot be read"):
        AliyunAccount.read(file)
    (tmp_path / "secret").write_text("hidden\n")
    with pytest.raises(AccountInvalid, match="sign_name"):
        AliyunAccount.read(file)
    file.write_text(json.dumps(content | {"sign_name": "乐山考点", "endpoint": "sms.test"}))
    with pytest.raises(AccountInvalid, match="endpoint is a URL") as invalid:
        AliyunAccount.read(file)
    assert "hidden" not in str(invalid.value)
    file.write_text(json.dumps(content | {"sign_name": "乐山考点"}))
    assert AliyunAccount.read(file) == AliyunAccount("https://sms.test", "id", b"hidden", "乐山考点")


async def test_the_carrier_tells_what_it_was_given_under_a_reference(stage: Outside, sms: AliyunSms) -> None:
    await send(sms, reference="message-1")
    dead = f"{DEAD_PREFIX}0001"
    await send(sms, dead, reference="message-2")
    assert await sms.find(PHONE, START, "message-1") == Sent(None, "")
    await stage.play(timedelta(minutes=1))
    assert await sms.find(PHONE, START, "message-1") == Sent(True, "DELIVERED")
    assert await sms.find(dead, START, "message-2") == Sent(False, "MOBILE_NOT_ON_SERVICE")
    assert await sms.find(PHONE, START, "message-2") is None, "another number's"
    assert await sms.find("13900009999", START, "message-1") is None


async def test_a_message_is_found_on_whatever_page_and_day_it_is(stage: Outside, sms: AliyunSms) -> None:
    for number in range(120):
        stage.clock.move(seconds=31)
        if number % 40 == 0:
            stage.clock.move(seconds=24 * 3600)
        await send(sms, reference=f"message-{number}", number=str(number))
    stage.clock.move(seconds=24 * 3600)
    assert await sms.find(PHONE, START, "message-119") is not None
    assert await sms.find(PHONE, START, "message-0") is not None
    assert await sms.find(PHONE, START, "message-120") is None
    assert await sms.find(PHONE, stage.clock.now(), "message-119") is None, "not on this day"


@pytest.mark.parametrize(
    "answer",
    [
        {"Code": "OK"},
        {"Code": "OK", "SmsSendDetailDTOs": {"SmsSendDetailDTO": "none"}},
        {"Code": "OK", "SmsSendDetailDTOs": [{"OutId": "message-1", "SendStatus": 9}]},
    ],
)
async def test_an_answer_that_cannot_be_read_never_means_that_nothing_was_sent(
    answer: dict[str, Any],
) -> None:
    async def handle(_: Request) -> Reply:
        return Reply.of(answer)

    async with serving(handle) as url:
        client = AliyunSms(AliyunAccount(url, "id", b"secret", "乐山考点"), clock=SystemClock())
        with pytest.raises(NoAnswer):
            await client.find(PHONE, SystemClock().now(), "message-1")
        await client.aclose()
