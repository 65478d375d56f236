"""Tencent Cloud alone: its own SDK as the judge of signatures, what it refuses, and what it says without our reference."""

from __future__ import annotations

import asyncio
import json
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from deploy.simulators.http import Reply, Request, serving
from services.notification.adapters import tencent
from services.notification.adapters.lines import AccountInvalid
from services.notification.ports import NoAnswer, Receipt, Rejected
from tests.service.notification.at_a_carrier import (
    CODES,
    PHONE,
    TENCENT,
    VARIABLES,
    Scene,
)
from tests.simulators.outside import START


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
            7,
            {"ReportStatus": "PERHAPS", "SessionContext": "message-1", "SerialNo": "1"},
            {
                "ReportStatus": "FAIL",
                "SessionContext": "message-2",
                "SerialNo": "2",
                "Description": "MK:0001",
                "UserReceiveTime": 10**30,
            },
        ]
        return Reply.of({"Response": {"PullSmsSendStatusSet": entries}})

    async with serving(odd) as url:
        sms = scene.another(endpoint=url)
        with pytest.raises(NoAnswer):
            await sms.find(PHONE, START, "message-1")
        page = await sms.pull()
        assert page is not None
        assert list(page.receipts) == [Receipt("message-2", "2", False, "MK:0001", None)], (
            "one spoils no other"
        )
        assert len(page.unreadable) == 2
        await sms.aclose()


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
