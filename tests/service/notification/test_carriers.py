"""What every carrier of SMS keeps to: one suite, played against both clients before both simulated carriers.

Whether the simulated ones check signatures as the real ones do is for Tencent's own SDK to say, for Aliyun the example of
its documentation (test_aliyun.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.simulators.http import Reply, Request, serving
from deploy.simulators.outage import Outage
from deploy.simulators.sms_carrier import DEAD_PREFIX, REFUSED_PREFIX, SILENT_PREFIX, SmsCarrier
from services.chassis.clock import SystemClock
from services.notification.adapters import aliyun, tencent
from services.notification.adapters.lines import AccountInvalid
from services.notification.ports import MalformedReceipts, NoAnswer, Receipt, Rejected, Sent, Sms
from tests.simulators.outside import START, Outside, outside

PHONE = "13800001234"
VARIABLES = {"number": "5678", "deadline": "2024年2月8日（星期四）24时"}
TEXT = "考生5678：网上缴费截止2024年2月8日（星期四）24时，逾期视为自动放弃考试。"
NAMES = ("aliyun", "tencent")
CODES = {"aliyun": "SMS_474580001", "tencent": "2240001"}
APPROVED = {
    "aliyun": {CODES["aliyun"]: "考生${number}：网上缴费截止${deadline}，逾期视为自动放弃考试。"},
    "tencent": {CODES["tencent"]: "考生{1}：网上缴费截止{2}，逾期视为自动放弃考试。"},
}
TENCENT = tencent.TencentAccount("http://sms.test", "AKID", b"secret", "1400", "考点", "ap-guangzhou")


@dataclass
class Scene:
    name: str
    stage: Outside
    sms: aliyun.AliyunSms | tencent.TencentSms

    @property
    def carrier(self) -> SmsCarrier:
        return self.stage.world.sms if self.name == "aliyun" else self.stage.world.tencent

    @property
    def at(self) -> str:
        """Its part of the control port."""
        return "/sim/sms" if self.name == "aliyun" else "/sim/tencent"

    async def send(self, to: str = PHONE, reference: str = "message-1", **variables: str) -> str:
        given = VARIABLES | variables
        return (await self.sms.send(to, CODES[self.name], given, "", reference)).provider_ref

    def another(self, **change: Any) -> aliyun.AliyunSms | tencent.TencentSms:
        """A client with an account that differs in this."""
        return client(self.name, self.stage, **change)


def client(name: str, stage: Outside, **change: Any) -> aliyun.AliyunSms | tencent.TencentSms:
    file = stage.world.accounts[name]
    if name == "aliyun":
        return aliyun.AliyunSms(replace(aliyun.AliyunAccount.read(file), **change), clock=stage.clock)
    return tencent.TencentSms(replace(tencent.TencentAccount.read(file), **change), clock=stage.clock)


@pytest.fixture(params=NAMES)
async def scene(
    request: pytest.FixtureRequest, session_directory: Path, tmp_path: Path
) -> AsyncIterator[Scene]:
    async with outside(
        session_directory / "simulator-keys",
        tmp_path,
        templates=APPROVED["aliyun"],
        tencent_templates=APPROVED["tencent"],
    ) as stage:
        stage.world.tencent.receipts_url = stage.world.sms.receipts_url
        sms: Sms = client(request.param, stage)
        assert isinstance(sms, aliyun.AliyunSms | tencent.TencentSms)
        stage.listener.thanks = dict(sms.thanks)
        yield Scene(request.param, stage, sms)
        await sms.aclose()


# Sending


async def test_it_fills_the_approved_text_and_a_receipt_says_what_became_of_it(scene: Scene) -> None:
    serial = await scene.send(reference="0190a1b2-message")
    assert (await scene.stage.control(f"{scene.at}/book"))["messages"][0]["text"] == TEXT
    await scene.stage.play(timedelta(minutes=1))
    ((_, _, body),) = scene.stage.listener.heard
    (receipt,) = scene.sms.parse_receipts(body)
    assert receipt.provider_ref == serial
    assert receipt.reference == ("" if scene.sms.by_serial else "0190a1b2-message")
    assert (receipt.delivered, receipt.at) == (True, START + timedelta(seconds=5))
    assert receipt.code in {"DELIVERED", "DELIVRD"}


@pytest.mark.parametrize("value", ["+ *~%&=#?/", "㐂𠮷·", "'\"\\", "line\nbreak", "{1}${number}"])
async def test_odd_characters_pass_the_carriers_own_check_of_the_signature(scene: Scene, value: str) -> None:
    await scene.send(deadline=value)
    assert value in scene.carrier.messages[0].text


@pytest.mark.parametrize("number", ["12345678901", "1380000123", "", f"{REFUSED_PREFIX}1234"])
async def test_a_number_that_cannot_be_is_refused_for_good_and_not_named(scene: Scene, number: str) -> None:
    with pytest.raises(Rejected) as refused:
        await scene.send(number)
    assert refused.value.permanent
    assert number == "" or number not in str(refused.value)


async def test_a_dead_number_is_undelivered_and_a_silent_one_is_never_heard_of(scene: Scene) -> None:
    await scene.send(f"{DEAD_PREFIX}1234")
    await scene.send(f"{SILENT_PREFIX}1234")
    await scene.stage.play(timedelta(days=4))
    receipts = [one for _, _, body in scene.stage.listener.heard for one in scene.sms.parse_receipts(body)]
    assert [one.delivered for one in receipts] == [False]


async def test_a_variable_too_few_is_refused_for_good(scene: Scene) -> None:
    with pytest.raises(Rejected) as refused:
        await scene.sms.send(PHONE, CODES[scene.name], {"number": "5678"}, "", "r")
    assert refused.value.permanent


async def test_a_text_or_signature_that_is_not_approved_may_be_approved_later(scene: Scene) -> None:
    with pytest.raises(Rejected) as text:
        await scene.sms.send(PHONE, CODES[scene.name] + "9", VARIABLES, "", "r")
    other = scene.another(sign_name="别的")
    with pytest.raises(Rejected) as sign:
        await other.send(PHONE, CODES[scene.name], VARIABLES, "", "r")
    await other.aclose()
    assert (text.value.permanent, sign.value.permanent) == (False, False)


async def test_a_forbidden_word_is_refused_for_good(scene: Scene) -> None:
    await scene.stage.control(f"{scene.at}/forbid", {"words": ["发票"]})
    with pytest.raises(Rejected) as refused:
        await scene.send(deadline="代开发票")
    assert refused.value.permanent
    assert scene.carrier.messages == []


# Limits


async def test_tencent_carries_one_text_to_one_number_once_in_thirty_seconds(scene: Scene) -> None:
    """Aliyun names no such limit for notices."""
    await scene.send()
    scene.stage.clock.move(seconds=29.999999)
    if scene.name == "aliyun":
        await scene.send()
        return
    with pytest.raises(Rejected) as refused:
        await scene.send()
    assert (refused.value.permanent, refused.value.wait) == (False, timedelta(seconds=30))
    await scene.send(deadline="另一天")
    await scene.send("13800009999")
    scene.stage.clock.move(seconds=0.000001)
    await scene.send()


async def test_over_the_cap_of_a_day_a_message_waits_and_is_not_given_up(scene: Scene) -> None:
    most = 50 if scene.name == "aliyun" else 10
    for n in range(most):
        await scene.send(reference=f"r{n}", deadline=str(n))
    with pytest.raises(Rejected) as refused:
        await scene.send()
    assert not refused.value.permanent
    assert refused.value.wait is not None
    assert refused.value.wait >= timedelta(hours=1)
    # 20:00 in Beijing: the day of the calendar ends after four hours, the sliding one after twenty-four.
    scene.stage.clock.move(hours=3.999 if scene.name == "tencent" else 23.999)
    with pytest.raises(Rejected):
        await scene.send()
    scene.stage.clock.move(hours=0.001)
    await scene.send()


async def test_a_throttled_message_goes_later(scene: Scene) -> None:
    await scene.stage.control(f"{scene.at}/throttle", {"seconds": 3600})
    with pytest.raises(Rejected) as refused:
        await scene.send()
    assert (refused.value.permanent, refused.value.wait) == (False, None)
    scene.stage.clock.move(hours=1)
    await scene.send()


# No answer


@pytest.mark.parametrize(("how", "kept"), [("refuse", 0), ("lose", 1), ("swallow", 1), ("hang", 0)])
async def test_without_a_clear_answer_it_is_open_whether_the_message_was_taken(
    scene: Scene, how: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"services.notification.adapters.{scene.name}.PATIENCE", 0.2)
    sms = scene.another()
    await scene.stage.control(f"{scene.at}/down", {"seconds": 60, "how": how})
    with pytest.raises(NoAnswer) as nothing:
        await sms.send(PHONE, CODES[scene.name], VARIABLES, "", "r")
    await sms.aclose()
    assert nothing.value.maybe_accepted
    assert len(scene.carrier.messages) == kept
    assert scene.carrier.weather.reached == 1


async def test_a_slow_carrier_answers_in_the_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.simulators.sms_carrier.SLOW", 0.2)
    scene.carrier.weather.bring(60, Outage.SLOW)
    before = asyncio.get_running_loop().time()
    await scene.send()
    assert asyncio.get_running_loop().time() - before >= 0.2


async def test_without_a_connection_the_message_surely_was_not_taken(scene: Scene) -> None:
    async with serving(_never) as url:
        gone = url
    sms = scene.another(endpoint=gone)
    with pytest.raises(NoAnswer) as nothing:
        await sms.send(PHONE, CODES[scene.name], VARIABLES, "", "r")
    await sms.aclose()
    assert not nothing.value.maybe_accepted


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b"\xff", b'{"Response":[]}', b"x" * 100_000])
async def test_an_answer_nobody_understands_is_no_answer(scene: Scene, body: bytes) -> None:
    async def answer(_: Request) -> Reply:
        return Reply(200, body)

    async with serving(answer) as url:
        sms = scene.another(endpoint=url)
        with pytest.raises(NoAnswer) as nothing:
            await sms.send(PHONE, CODES[scene.name], VARIABLES, "", "r")
        assert nothing.value.maybe_accepted
        await sms.aclose()


async def test_a_wrong_secret_or_clock_gives_up_no_message(scene: Scene) -> None:
    secret = "access_key_secret" if scene.name == "aliyun" else "secret_key"
    sms = scene.another(**{secret: b"wrong"})
    with pytest.raises(Rejected) as refused:
        await sms.send(PHONE, CODES[scene.name], VARIABLES, "", "r")
    await sms.aclose()
    assert not refused.value.permanent
    late = client(scene.name, scene.stage)
    late._clock = SystemClock()
    with pytest.raises(Rejected) as expired:
        await late.send(PHONE, CODES[scene.name], VARIABLES, "", "r")
    await late.aclose()
    assert not expired.value.permanent
    assert scene.carrier.messages == []


# Asking and pulling


async def test_it_tells_what_it_was_given_under_a_reference(scene: Scene) -> None:
    dead = f"{DEAD_PREFIX}0001"
    await scene.send(reference="message-1")
    await scene.send(dead, reference="message-2")
    before = await scene.sms.find(PHONE, START, "message-1")
    assert before == (Sent(None, "") if scene.sms.lists_all else None)
    await scene.stage.play(timedelta(minutes=1))
    found = await scene.sms.find(PHONE, START, "message-1")
    assert found is not None
    assert found.delivered
    failed = await scene.sms.find(dead, START, "message-2")
    assert failed is not None
    assert failed.delivered is False
    assert await scene.sms.find(PHONE, START, "message-2") is None, "another number's"
    assert await scene.sms.find("13900009999", START, "message-1") is None


async def test_it_is_found_by_a_clock_that_is_ahead_of_the_carriers(scene: Scene) -> None:
    """Ours says that it left before the carrier's says that it came: not found, it would be sent again."""
    moment = scene.stage.clock.now()
    await scene.send(reference="message-1")
    await scene.stage.play(timedelta(minutes=1))
    found = await scene.sms.find(PHONE, moment + timedelta(seconds=3), "message-1")
    assert found is not None
    assert found.delivered


async def test_what_it_keeps_for_us_is_pulled_once(scene: Scene) -> None:
    scene.carrier.receipts_url = None
    for n in range(3):
        await scene.send(f"1380000000{n}", reference=f"message-{n}")
    await scene.stage.play(timedelta(seconds=30))
    pulled = await scene.sms.pull()
    if scene.name == "aliyun":
        assert pulled is None, "its queue is another product; it is asked by number"
        return
    assert pulled is not None
    assert [(one.reference, one.delivered) for one in pulled] == [(f"message-{n}", True) for n in range(3)]
    assert await scene.sms.pull() == []


@pytest.mark.parametrize(
    "raw", [b"", b"nothing", b"{}", b"[1]", b"[{}]", b'[{"sid":7,"report_status":"SUCCESS"}]', b"[" * 99_999]
)
async def test_what_is_no_receipt_is_said_to_be_none(scene: Scene, raw: bytes) -> None:
    with pytest.raises(MalformedReceipts):
        scene.sms.parse_receipts(raw)


@pytest.mark.parametrize(("times", "delay"), [(2, 5.0), (1, 90_000.0)])
async def test_receipts_come_late_or_twice_when_told_to(scene: Scene, times: int, delay: float) -> None:
    await scene.stage.control(f"{scene.at}/receipts", {"times": times, "delay": delay})
    await scene.send()
    await scene.stage.play(timedelta(days=2))
    assert scene.stage.listener.moments() == [delay] * times
    await scene.stage.control(f"{scene.at}/receipts", {"never": True})
    await scene.send("13800005555")
    await scene.stage.play(timedelta(days=9))
    assert len(scene.stage.listener.heard) == times


async def test_a_push_that_is_not_thanked_as_it_wants_is_repeated(scene: Scene) -> None:
    scene.stage.listener.answers = [500]
    await scene.send()
    await scene.stage.play(timedelta(seconds=30))
    assert len(scene.stage.listener.heard) == 1
    thanks = json.dumps(dict(scene.sms.thanks))
    assert scene.carrier._thanked(json.loads(thanks))
    assert not scene.carrier._thanked({"code": 1, "result": 1})


# Only Tencent


async def _never(_: Request) -> Reply:
    raise AssertionError("nobody should come here")


def _sdk(url: str, **profile: Any) -> Any:
    """Tencent's own client, as its documentation shows it."""
    warnings.simplefilter("ignore")
    from tencentcloud.common.credential import Credential  # noqa: PLC0415  slow to import
    from tencentcloud.common.profile.client_profile import ClientProfile  # noqa: PLC0415
    from tencentcloud.common.profile.http_profile import HttpProfile  # noqa: PLC0415
    from tencentcloud.sms.v20210111.sms_client import SmsClient  # noqa: PLC0415

    scheme, _, host = url.partition("://")
    http = HttpProfile(protocol=scheme, endpoint=host, reqTimeout=10)
    return SmsClient(
        Credential(profile["secret_id"], profile["secret_key"]),
        "ap-guangzhou",
        ClientProfile(httpProfile=http),
    )


async def test_tencents_own_sdk_and_our_client_sign_one_request_alike(tmp_path: Path) -> None:
    """The SDK's request, taken apart: with its body, moment and choice of headers our signature is its signature."""
    from tencentcloud.sms.v20210111 import models  # noqa: PLC0415  slow to import

    seen: list[Request] = []

    async def take(request: Request) -> Reply:
        seen.append(request)
        return Reply.of({"Response": {"SendStatusSet": [], "RequestId": "1"}})

    async with serving(take) as url:
        request = models.SendSmsRequest()
        request.from_json_string(
            json.dumps({"PhoneNumberSet": ["+8613800001234"], "TemplateParamSet": ["㐂 +*~%", "2"]})
        )
        sdk = _sdk(url, secret_id="AKID", secret_key="secret")
        await asyncio.to_thread(sdk.SendSms, request)
    (theirs,) = seen
    at = datetime.fromtimestamp(int(theirs.headers["x-tc-timestamp"]), UTC)
    ours = tencent.signed_headers(
        TENCENT, theirs.headers["host"], "SendSms", theirs.body, at, signed="content-type;host"
    )
    same = ("x-tc-action", "x-tc-version", "x-tc-region", "x-tc-timestamp", "host")
    assert {name: ours[name] for name in same} == {name: theirs.headers[name] for name in same}
    expected = theirs.headers["authorization"]
    if theirs.headers["content-type"] == ours["content-type"]:
        assert ours["authorization"] == expected
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tencent, "_CONTENT_TYPE", theirs.headers["content-type"])
            again = tencent.signed_headers(
                TENCENT, theirs.headers["host"], "SendSms", theirs.body, at, signed="content-type;host"
            )
        assert again["authorization"] == expected


@pytest.mark.parametrize("scene", ["tencent"], indirect=True)
async def test_the_simulated_carrier_takes_what_tencents_own_sdk_sends(scene: Scene) -> None:
    from tencentcloud.common.exception.tencent_cloud_sdk_exception import (  # noqa: PLC0415  slow to import
        TencentCloudSDKException,
    )
    from tencentcloud.sms.v20210111 import models  # noqa: PLC0415

    scene.stage.clock.move(seconds=(datetime.now(UTC) - scene.stage.clock.now()).total_seconds())
    world = scene.stage.world.credentials.tencent
    url = scene.stage.world.tencent_url
    sdk = _sdk(url, secret_id=world.secret_id, secret_key=world.secret_key)
    request = models.SendSmsRequest()
    request.PhoneNumberSet = [f"+86{PHONE}"]
    request.SmsSdkAppId, request.SignName = world.sdk_app_id, world.sign_name
    request.TemplateId, request.TemplateParamSet = CODES["tencent"], list(VARIABLES.values())
    request.SessionContext = "message-1"
    answer = await asyncio.to_thread(sdk.SendSms, request)
    (status,) = answer.SendStatusSet
    assert (status.Code, status.SessionContext) == ("Ok", "message-1")
    assert status.SerialNo == scene.carrier.messages[0].biz_id
    scene.stage.clock.move(minutes=1)
    await scene.stage.at_rest()
    pull = models.PullSmsSendStatusRequest()
    pull.Limit, pull.SmsSdkAppId = 100, world.sdk_app_id
    pulled = await asyncio.to_thread(sdk.PullSmsSendStatus, pull)
    assert [one.ReportStatus for one in pulled.PullSmsSendStatusSet] == ["SUCCESS"]
    wrong = _sdk(url, secret_id=world.secret_id, secret_key="wrong")
    with pytest.raises(TencentCloudSDKException) as refused:
        await asyncio.to_thread(wrong.SendSms, request)
    assert refused.value.code == "AuthFailure.SignatureFailure"


@pytest.mark.parametrize("scene", ["tencent"], indirect=True)
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, None),
        ({"x-tc-action": "PullSmsSendStatus"}, "AuthFailure.SignatureFailure"),
        ({"host": "elsewhere.test"}, "AuthFailure.SignatureFailure"),
        ({"content-type": "application/json"}, "AuthFailure.SignatureFailure"),
        ({"x-tc-timestamp": str(int(START.timestamp()) + 1)}, "AuthFailure.SignatureFailure"),
        ({"x-tc-timestamp": str(int(START.timestamp()) - 301)}, "AuthFailure.SignatureExpire"),
        ({"x-tc-version": "2019-07-11"}, "NoSuchVersion"),
        ({"authorization": ""}, "AuthFailure.InvalidAuthorization"),
    ],
)
async def test_tencent_refuses_any_altered_header(
    scene: Scene, change: dict[str, str], code: str | None
) -> None:
    assert await _resend(scene, change) == code


@pytest.mark.parametrize("scene", ["tencent"], indirect=True)
async def test_tencent_refuses_an_altered_body(scene: Scene) -> None:
    assert await _resend(scene, {}, body=b'{"Limit":99}') == "AuthFailure.SignatureFailure"


async def _resend(scene: Scene, change: dict[str, str], body: bytes | None = None) -> str | None:
    """The code of what a rightly signed request is answered that was altered after signing."""
    account = tencent.TencentAccount.read(scene.stage.world.accounts["tencent"])
    content = json.dumps({"Limit": 1, "SmsSdkAppId": account.sdk_app_id}).encode()
    host = account.endpoint.partition("://")[2]
    headers = tencent.signed_headers(account, host, "PullSmsSendStatus", content, START)
    if change.get("x-tc-action"):
        headers = tencent.signed_headers(account, host, "SendSms", content, START)
    async with httpx2.AsyncClient(trust_env=False, verify=False) as http:
        response = await http.post(account.endpoint, content=body or content, headers=headers | change)
    error = response.json()["Response"].get("Error")
    return error["Code"] if error else None


@pytest.mark.parametrize("scene", ["tencent"], indirect=True)
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("InternalError.Timeout", NoAnswer),
        ("FailedOperation.InsufficientBalanceInSmsPackage", Rejected),
        ("UnauthorizedOperation.ServiceSuspendDueToArrears", Rejected),
        ("Something.NobodyHasMetYet", Rejected),
    ],
)
async def test_what_waiting_may_cure_is_never_final(
    scene: Scene, code: str, expected: type[Exception]
) -> None:
    async def answer(_: Request) -> Reply:
        return Reply.of({"Response": {"SendStatusSet": [{"Code": code, "SerialNo": ""}]}})

    async with serving(answer) as url:
        sms = scene.another(endpoint=url)
        with pytest.raises(expected) as raised:
            await sms.send(PHONE, CODES["tencent"], VARIABLES, "", "r")
        await sms.aclose()
    assert not getattr(raised.value, "permanent", False)


@pytest.mark.parametrize("scene", ["tencent"], indirect=True)
async def test_receipts_without_our_reference_or_of_an_unknown_kind_never_mean_that_nothing_was_sent(
    scene: Scene,
) -> None:
    await scene.send()
    await scene.stage.play(timedelta(minutes=1))
    scene.stage.world.tencent.gives_context = False
    with pytest.raises(NoAnswer):
        await scene.sms.find(PHONE, START, "message-1")

    async def odd(_: Request) -> Reply:
        entries = [
            {"ReportStatus": "PERHAPS", "SessionContext": "message-1", "SerialNo": "1"},
            {
                "ReportStatus": "FAIL",
                "SessionContext": "message-2",
                "SerialNo": "2",
                "Description": "MK:0001",
            },
        ]
        return Reply.of({"Response": {"PullSmsSendStatusSet": entries}})

    async with serving(odd) as url:
        sms = scene.another(endpoint=url)
        with pytest.raises(NoAnswer):
            await sms.find(PHONE, START, "message-1")
        assert await sms.pull() == [Receipt("message-2", "2", False, "MK:0001", None)], "one spoils no other"
        await sms.aclose()


@settings(max_examples=60)
@given(
    st.binary(max_size=200)
    | st.lists(st.dictionaries(st.text(), st.text())).map(lambda x: json.dumps(x).encode())
)
def test_no_pushed_body_brings_the_reader_down(raw: bytes) -> None:
    for reader in (
        tencent.TencentSms(TENCENT, clock=SystemClock()).parse_receipts,
        aliyun.AliyunSms(
            aliyun.AliyunAccount("http://sms.test", "id", b"s", "考点"), clock=SystemClock()
        ).parse_receipts,
    ):
        with contextlib.suppress(MalformedReceipts):
            assert all(isinstance(one, Receipt) for one in reader(raw))


def test_tencents_account_file_says_what_is_wrong_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    content = {
        "endpoint": "https://sms.test/",
        "secret_id": "id",
        "secret_key_file": "key",
        "sign_name": "考点",
    }
    file.write_text(json.dumps(content))
    with pytest.raises(AccountInvalid, match="cannot be read"):
        tencent.TencentAccount.read(file)
    (tmp_path / "key").write_text("hidden\n")
    with pytest.raises(AccountInvalid, match="sdk_app_id") as invalid:
        tencent.TencentAccount.read(file)
    assert "hidden" not in str(invalid.value)
    file.write_text(json.dumps(content | {"sdk_app_id": "1400"}))
    assert tencent.TencentAccount.read(file) == tencent.TencentAccount(
        "https://sms.test", "id", b"hidden", "1400", "考点", "ap-guangzhou"
    )
