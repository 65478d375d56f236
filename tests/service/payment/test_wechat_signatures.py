"""WeChat Pay's seals: what counts as the gateway's word, and every way in which something is not."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis.clock import SystemClock
from services.payment.adapters.asking import AccountInvalid
from services.payment.adapters.wechat import WeChatPay
from services.payment.adapters.wechat_signatures import (
    SCHEME,
    UNVERIFIED,
    WeChatAccount,
    authorization,
    open_resource,
    verify,
)
from services.payment.ports import Forged, Malformed, NotificationRefused, OrderState, Stale

AT = datetime(2024, 2, 8, 15, 59, 59, tzinfo=UTC)
VECTOR: dict[str, str] = json.loads((Path(__file__).parent / "wechat_vector.json").read_text())
_FROZEN_KEY = load_pem_private_key(VECTOR["private_key"].encode(), None)
assert isinstance(_FROZEN_KEY, rsa.RSAPrivateKey)
PLATFORM = _FROZEN_KEY
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
API_V3_KEY = b"0123456789abcdef0123456789abcdef"
ACCOUNT = WeChatAccount(
    gateway_url="https://gateway.test",
    app_id="wx0000000000000000",
    merchant_id="1900000001",
    certificate_serial="5A",
    private_key=PLATFORM,
    api_v3_key=API_V3_KEY,
    platform_keys={"7B": PLATFORM.public_key(), "PUB_KEY_ID_01": PLATFORM.public_key()},
)
TRANSACTION: dict[str, Any] = {
    "mchid": "1900000001",
    "appid": "wx0000000000000000",
    "out_trade_no": "20240208000000000001",
    "transaction_id": "4200000000202402080000000001",
    "trade_type": "NATIVE",
    "trade_state": "SUCCESS",
    "trade_state_desc": "支付成功",
    "bank_type": "OTHERS",
    "attach": "",
    "success_time": "2024-02-08T23:59:58+08:00",
    "payer": {"openid": "oTest"},
    "amount": {"total": 20000, "payer_total": 20000, "currency": "CNY", "payer_currency": "CNY"},
}


def channel(account: WeChatAccount = ACCOUNT) -> WeChatPay:
    return WeChatPay(account, notify_url="https://office.test/notify", clock=SystemClock())


# A client makes a TLS context, which costs more than a thousand verifications.
OURS = channel()


def sealed(
    body: bytes, *, at: datetime = AT, key: rsa.RSAPrivateKey = PLATFORM, serial: str = "7B"
) -> dict[str, str]:
    """The header fields the gateway would send beside these bytes."""
    timestamp, nonce = str(int(at.timestamp())), "8f1cd2e0b3a44c5d9e6f708192a3b4c5"
    text = f"{timestamp}\n{nonce}\n".encode() + body + b"\n"
    return {
        "Wechatpay-Serial": serial,
        "Wechatpay-Timestamp": timestamp,
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Signature": base64.b64encode(key.sign(text, PKCS1v15(), SHA256())).decode(),
        "Wechatpay-Signature-Type": SCHEME,
    }


def notice(
    transaction: Mapping[str, Any] = TRANSACTION, *, key: bytes = API_V3_KEY, **resource: Any
) -> bytes:
    """A notification's body around this transaction; `resource` overrides fields of the envelope."""
    plain = json.dumps(transaction, ensure_ascii=False).encode()
    cipher = AESGCM(key).encrypt(b"123456789012", plain, b"transaction")
    return json.dumps(
        {
            "id": "EV-0001",
            "create_time": "2024-02-08T23:59:59+08:00",
            "resource_type": "encrypt-resource",
            "event_type": "TRANSACTION.SUCCESS",
            "summary": "支付成功",
            "resource": {
                "original_type": "transaction",
                "algorithm": "AEAD_AES_256_GCM",
                "ciphertext": base64.b64encode(cipher).decode(),
                "associated_data": "transaction",
                "nonce": "123456789012",
            }
            | resource,
        },
        ensure_ascii=False,
    ).encode()


def test_a_request_is_signed_as_the_frozen_vector_says() -> None:
    """The vector was signed by OpenSSL's command line, not by this code."""
    header = authorization(
        ACCOUNT,
        "POST",
        "/v3/pay/transactions/native",
        VECTOR["request_body"].encode(),
        datetime.fromtimestamp(int(VECTOR["timestamp"]), UTC),
        nonce=VECTOR["nonce"],
    )
    assert header == (
        f'WECHATPAY2-SHA256-RSA2048 mchid="1900000001",nonce_str="{VECTOR["nonce"]}",'
        f'signature="{VECTOR["request_signature"]}",timestamp="{VECTOR["timestamp"]}",serial_no="5A"'
    )


def test_an_answer_is_verified_as_the_frozen_vector_says() -> None:
    at = datetime.fromtimestamp(int(VECTOR["timestamp"]), UTC)
    headers = {
        "wechatpay-serial": "7B",
        "wechatpay-timestamp": VECTOR["timestamp"],
        "wechatpay-nonce": VECTOR["nonce"],
        "wechatpay-signature": VECTOR["answer_signature"],
        "wechatpay-signature-type": SCHEME,
    }
    seal = verify(ACCOUNT, headers, VECTOR["answer_body"].encode(), at, at)
    assert seal.made_at == at


def test_a_resource_opens_as_the_frozen_vector_says() -> None:
    """Made with the AES-GCM of another library: key, nonce and text of the vector."""
    resource = {
        "algorithm": "AEAD_AES_256_GCM",
        "nonce": VECTOR["resource_nonce"],
        "associated_data": "transaction",
        "ciphertext": VECTOR["resource_ciphertext"],
    }
    assert open_resource(ACCOUNT, resource).decode() == VECTOR["resource_plain"]


def test_a_true_notification_is_read() -> None:
    body = notice()
    heard = OURS.parse_notification(sealed(body), body, AT)
    assert heard.state is OrderState.PAID
    assert (heard.order_no, heard.amount_fen, heard.currency) == ("20240208000000000001", 20000, "CNY")
    assert heard.paid_at == datetime(2024, 2, 8, 15, 59, 58, tzinfo=UTC)
    assert heard.transaction_id == "4200000000202402080000000001"
    assert (heard.app_id, heard.merchant_id) == ("wx0000000000000000", "1900000001")


def test_both_the_old_and_the_new_key_verify_during_a_change() -> None:
    body = notice()
    for serial in ("7B", "PUB_KEY_ID_01"):
        assert OURS.parse_notification(sealed(body, serial=serial), body, AT).amount_fen == 20000


def test_an_empty_associated_data_is_allowed() -> None:
    plain = json.dumps(TRANSACTION).encode()
    cipher = AESGCM(API_V3_KEY).encrypt(b"123456789012", plain, b"")
    body = notice(ciphertext=base64.b64encode(cipher).decode(), associated_data="")
    assert OURS.parse_notification(sealed(body), body, AT).state is OrderState.PAID


@settings(max_examples=300)
@given(st.data())
def test_no_altered_byte_of_the_body_passes(data: st.DataObject) -> None:
    body = notice()
    position = data.draw(st.integers(0, len(body) - 1))
    flipped = bytes([body[position] ^ data.draw(st.integers(1, 255))])
    with pytest.raises(Forged, match="signature"):
        OURS.parse_notification(sealed(body), body[:position] + flipped + body[position + 1 :], AT)


@settings(max_examples=400)
@given(st.data())
def test_no_altered_header_passes(data: st.DataObject) -> None:
    body = notice()
    headers = sealed(body)
    name = data.draw(st.sampled_from(sorted(headers)))
    value = headers[name]
    position = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters=value[position]))
    headers[name] = value[:position] + other + value[position + 1 :]
    with pytest.raises(NotificationRefused):
        OURS.parse_notification(headers, body, AT)


@settings(max_examples=100)
@given(st.data())
def test_no_lost_or_added_character_of_a_header_passes(data: st.DataObject) -> None:
    body = notice()
    headers = sealed(body)
    name = data.draw(st.sampled_from(sorted(headers)))
    value = headers[name]
    position = data.draw(st.integers(0, len(value) - 1))
    added = data.draw(st.sampled_from(["", "0", "A", "=", " ", "\n"]))
    headers[name] = value[:position] + added + value[position + (0 if added else 1) :]
    with pytest.raises(NotificationRefused):
        OURS.parse_notification(headers, body, AT)


@pytest.mark.parametrize("name", sorted(sealed(b"{}")))
def test_a_missing_header_is_malformed(name: str) -> None:
    body = notice()
    headers = sealed(body)
    del headers[name]
    with pytest.raises(Malformed, match="headers"):
        OURS.parse_notification(headers, body, AT)


@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title])
def test_header_names_are_read_in_any_case(spelling: Any) -> None:
    body = notice()
    headers = {spelling(name): value for name, value in sealed(body).items()}
    assert OURS.parse_notification(headers, body, AT).state is OrderState.PAID


def test_the_other_spelling_of_a_signature_is_refused() -> None:
    """Base64 leaves bits unused: sixteen spellings decode to one signature, and one is right."""
    body = notice()
    headers = sealed(body)
    value = headers["Wechatpay-Signature"]
    assert value.endswith("==")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    twin = value[:-3] + alphabet[alphabet.index(value[-3]) ^ 1] + "=="
    assert base64.b64decode(twin) == base64.b64decode(value)
    with pytest.raises(Forged, match="signature"):
        OURS.parse_notification(headers | {"Wechatpay-Signature": twin}, body, AT)


@pytest.mark.parametrize(
    ("late", "passes"),
    [
        (timedelta(minutes=4, seconds=59), True),
        (timedelta(minutes=4, seconds=59, microseconds=999_999), True),
        (timedelta(minutes=5), False),
        (timedelta(minutes=5, seconds=1), False),
        (-timedelta(minutes=4, seconds=59), True),
        (-timedelta(minutes=5), False),
        (-timedelta(minutes=5, seconds=1), False),
        (timedelta(days=1), False),
    ],
)
def test_a_replay_is_refused_from_five_minutes_on(late: timedelta, passes: bool) -> None:
    body = notice()
    headers = sealed(body)
    if passes:
        assert OURS.parse_notification(headers, body, AT + late).state is OrderState.PAID
    else:
        with pytest.raises(Stale) as refused:
            OURS.parse_notification(headers, body, AT + late)
        assert refused.value.skew_seconds == pytest.approx(abs(late.total_seconds()))


def test_a_forgery_is_called_forged_even_when_it_is_stale() -> None:
    """Stale must mean that the gateway said it, so that it can raise an alarm about clocks."""
    body = notice()
    headers = sealed(body, key=STRANGER)
    with pytest.raises(Forged, match="signature"):
        OURS.parse_notification(headers, body, AT + timedelta(days=1))


def test_an_answer_may_be_sealed_any_time_while_we_waited() -> None:
    """A rehearsal's clock may jump while an answer is under way; a real one may take long."""
    body = b"{}"
    headers = sealed(body, at=AT)
    asked, heard = AT - timedelta(hours=1), AT + timedelta(hours=1)
    assert verify(ACCOUNT, headers, body, asked, heard).made_at == AT
    with pytest.raises(Stale):
        verify(ACCOUNT, headers, body, AT + timedelta(minutes=5), AT + timedelta(hours=1))
    with pytest.raises(Stale):
        verify(ACCOUNT, headers, body, AT - timedelta(hours=1), AT - timedelta(minutes=5))


def test_an_unknown_serial_is_refused_and_counted() -> None:
    body = notice()
    before = UNVERIFIED.labels("unknown-serial")._value.get()
    with pytest.raises(Forged, match="unknown-serial"):
        OURS.parse_notification(sealed(body, serial="7C"), body, AT)
    assert UNVERIFIED.labels("unknown-serial")._value.get() == before + 1


def test_the_serial_of_one_key_does_not_vouch_for_another() -> None:
    body = notice()
    account = replace(ACCOUNT, platform_keys={"7B": PLATFORM.public_key(), "9D": STRANGER.public_key()})
    with pytest.raises(Forged, match="signature"):
        channel(account).parse_notification(sealed(body, serial="9D"), body, AT)


def test_a_probe_is_refused() -> None:
    body = notice()
    headers = sealed(body)
    headers["Wechatpay-Signature"] = "WECHATPAY/SIGNTEST/" + headers["Wechatpay-Signature"][19:]
    with pytest.raises(Forged, match="probe"):
        OURS.parse_notification(headers, body, AT)


def test_a_body_of_ten_megabytes_is_refused_before_anything() -> None:
    with pytest.raises(Malformed, match="too-large"):
        OURS.parse_notification({}, b"x" * 10_000_000, AT)


def test_another_merchants_valid_notification_is_forged_to_us() -> None:
    """Signed by the gateway and readable with our key, but about somebody else's money."""
    for field in ("mchid", "appid"):
        body = notice(TRANSACTION | {field: "1900009999"})
        with pytest.raises(Forged, match="foreign"):
            OURS.parse_notification(sealed(body), body, AT)


def test_a_resource_sealed_with_another_merchants_key_is_forged() -> None:
    body = notice(key=b"another merchant's APIv3 key 32b")
    with pytest.raises(Forged, match="undecipherable"):
        OURS.parse_notification(sealed(body), body, AT)


def test_a_rightly_signed_wrong_amount_is_reported_as_it_is() -> None:
    """Only the caller knows the order: it must see the amount that was paid, not the one expected."""
    body = notice(TRANSACTION | {"amount": {"total": 1, "currency": "CNY"}})
    assert OURS.parse_notification(sealed(body), body, AT).amount_fen == 1


@pytest.mark.parametrize(
    "change",
    [
        {"amount": {"total": "20000", "currency": "CNY"}},
        {"amount": {"total": 200.0, "currency": "CNY"}},
        {"amount": {"total": True, "currency": "CNY"}},
        {"amount": {"total": -1, "currency": "CNY"}},
        {"amount": {"total": 20000}},
        {"amount": None},
        {"success_time": None},
        {"success_time": "2024-02-08T23:59:58"},
        {"success_time": "yesterday"},
        {"out_trade_no": ""},
        {"out_trade_no": 17},
        {"transaction_id": None},
        {"trade_state": "MAYBE"},
        {"trade_state": None},
        {"mchid": None},
    ],
)
def test_a_signed_notification_in_another_form_is_malformed(change: dict[str, Any]) -> None:
    body = notice(TRANSACTION | change)
    with pytest.raises(Malformed):
        OURS.parse_notification(sealed(body), body, AT)


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "AEAD_AES_128_GCM"},
        {"nonce": "short"},
        {"nonce": None},
        {"ciphertext": "%%%"},
        {"ciphertext": None},
        {"original_type": "refund"},
    ],
)
def test_a_resource_in_another_form_is_malformed(change: dict[str, Any]) -> None:
    body = notice(**change)
    with pytest.raises(Malformed):
        OURS.parse_notification(sealed(body), body, AT)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"\xff\xfe", b"{}", b'{"resource_type":"encrypt-resource","resource":[]}']
)
def test_signed_nonsense_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        OURS.parse_notification(sealed(body), body, AT)


@given(st.dictionaries(st.text(max_size=30), st.text(max_size=60)), st.binary(max_size=300))
def test_whatever_a_stranger_sends_is_refused_and_never_crashes(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(NotificationRefused):
        OURS.parse_notification(headers, body, AT)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_whatever_the_gateway_signs_is_read_or_refused(body: bytes) -> None:
    with pytest.raises(NotificationRefused):
        OURS.parse_notification(sealed(body), body, AT)


def test_an_account_file_says_what_is_wrong_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    (tmp_path / "key.pem").write_text("no key at all")
    (tmp_path / "api").write_text("too short")
    content = {
        "gateway_url": "https://gateway.test",
        "app_id": "wx",
        "merchant_id": "19",
        "certificate_serial": "5A",
        "private_key_file": "key.pem",
        "api_v3_key_file": "api",
        "platform_keys": {},
    }
    file.write_text(json.dumps(content))
    with pytest.raises(AccountInvalid, match="cannot be read"):
        WeChatAccount.read(file)
    (tmp_path / "key.pem").write_text(VECTOR["private_key"])
    with pytest.raises(AccountInvalid, match="32 bytes"):
        WeChatAccount.read(file)
    (tmp_path / "api").write_bytes(API_V3_KEY)
    with pytest.raises(AccountInvalid, match="platform_keys"):
        WeChatAccount.read(file)
    del content["app_id"]
    file.write_text(json.dumps(content))
    with pytest.raises(AccountInvalid, match="app_id"):
        WeChatAccount.read(file)
