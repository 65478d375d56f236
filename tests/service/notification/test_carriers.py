"""What every carrier of SMS keeps to: one suite, played against both clients before both simulated carriers.

Whether the simulated ones check signatures as the real ones do is for Tencent's own SDK to say (test_tencent.py), for Aliyun
the signer of its SDKs and the example of its documentation (test_aliyun.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.simulators.http import Reply, Request, serving
from deploy.simulators.outage import Outage
from deploy.simulators.sms_carrier import DEAD_PREFIX, REFUSED_PREFIX, SILENT_PREFIX
from services.chassis.clock import SystemClock
from services.notification.adapters import aliyun, tencent
from services.notification.ports import MalformedReceipts, NoAnswer, Pushed, Receipt, Rejected, Sent
from tests.service.notification.at_a_carrier import (
    CODES,
    PHONE,
    TENCENT,
    TEXT,
    VARIABLES,
    Scene,
    client,
)
from tests.simulators.outside import START

# Sending


async def test_it_fills_the_approved_text_and_a_receipt_says_what_became_of_it(scene: Scene) -> None:
    serial = await scene.send(reference="0190a1b2-message")
    assert (await scene.stage.control(f"{scene.at}/book"))["messages"][0]["text"] == TEXT
    await scene.stage.play(timedelta(minutes=1))
    ((_, _, body),) = scene.stage.listener.heard
    (receipt,) = scene.sms.parse_receipts(body).receipts
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
    receipts = [
        one for _, _, body in scene.stage.listener.heard for one in scene.sms.parse_receipts(body).receipts
    ]
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
    assert [(one.reference, one.delivered) for one in pulled.receipts] == [
        (f"message-{n}", True) for n in range(3)
    ]
    assert await scene.sms.pull() == Pushed([], [])


@pytest.mark.parametrize("raw", [b"", b"nothing", b"{}", b"[" * 99_999])
async def test_what_is_no_receipt_is_said_to_be_none(scene: Scene, raw: bytes) -> None:
    with pytest.raises(MalformedReceipts):
        scene.sms.parse_receipts(raw)


@pytest.mark.parametrize("raw", [b"[1]", b"[{}]", b'[{"sid":7,"report_status":"SUCCESS"}]'])
async def test_an_entry_that_is_no_receipt_is_none(scene: Scene, raw: bytes) -> None:
    pushed = scene.sms.parse_receipts(raw)
    assert (list(pushed.receipts), len(pushed.unreadable)) == ([], 1)


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


async def _never(_: Request) -> Reply:
    raise AssertionError("nobody should come here")


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
            assert all(isinstance(one, Receipt) for one in reader(raw).receipts)
