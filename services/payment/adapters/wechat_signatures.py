"""WeChat Pay v3's seals: what we sign, what the platform signed, and the sealed resource of a notification.

Bytes are verified before anybody parses them, and a key nobody told us about is refused, never fetched:
whoever can send us a request could otherwise make us call out as often as they like.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from prometheus_client import Counter

from services.payment.adapters.asking import AccountInvalid
from services.payment.ports import Forged, Malformed, NotificationRefused, Stale

SCHEME = "WECHATPAY2-SHA256-RSA2048"
FRESH = timedelta(minutes=5)
_PROBE = "WECHATPAY/SIGNTEST/"
_HEADERS = ("serial", "timestamp", "nonce", "signature", "signature-type")
_TIMESTAMP = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)  # to the year 2286
_NONCE = re.compile(r"[!-~]{1,128}", re.ASCII)

UNVERIFIED = Counter(
    "kaowu_wechat_unverified", "Answers and notifications whose seal was refused", ["reason"]
)


@dataclass(frozen=True, slots=True)
class WeChatAccount:
    """Who we are at the gateway, and which of its keys we were given: several, during a change of keys."""

    gateway_url: str
    app_id: str
    merchant_id: str
    certificate_serial: str
    private_key: RSAPrivateKey
    api_v3_key: bytes
    platform_keys: Mapping[str, RSAPublicKey]
    """By `Wechatpay-Serial`: the serial of a certificate or the id of a public key."""

    @classmethod
    def read(cls, path: Path) -> WeChatAccount:
        """An account file (JSON); the files it names are beside it."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            private_key = load_pem_private_key((path.parent / content["private_key_file"]).read_bytes(), None)
            account = cls(
                gateway_url=str(content["gateway_url"]).rstrip("/"),
                app_id=str(content["app_id"]),
                merchant_id=str(content["merchant_id"]),
                certificate_serial=str(content["certificate_serial"]),
                private_key=_rsa(private_key),
                api_v3_key=(path.parent / content["api_v3_key_file"]).read_bytes().strip(),
                platform_keys={
                    str(serial): _public_key((path.parent / file).read_bytes())
                    for serial, file in content["platform_keys"].items()
                },
            )
        except KeyError as error:
            raise AccountInvalid(f"{path.name}: entry {error} is missing") from None
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise AccountInvalid(f"{path.name}: cannot be read ({type(error).__name__})") from None
        if len(account.api_v3_key) != 32:
            raise AccountInvalid(f"{path.name}: the APIv3 key has 32 bytes")
        if not account.platform_keys:
            raise AccountInvalid(f"{path.name}: without platform_keys no answer can be verified")
        return account


@dataclass(frozen=True, slots=True)
class Seal:
    """The header fields beside a sealed body, all present and well formed; not yet verified."""

    serial: str
    timestamp: str
    nonce: str
    signature: str

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Seal:
        lower = {name.lower(): value for name, value in headers.items()}
        values = [lower.get(f"wechatpay-{name}", "") for name in _HEADERS]
        if not all(values):
            raise _refused(Malformed("headers"))
        serial, timestamp, nonce, signature, signature_type = values
        if signature_type != SCHEME or not _TIMESTAMP.fullmatch(timestamp) or not _NONCE.fullmatch(nonce):
            raise _refused(Malformed("headers"))
        return cls(serial, timestamp, nonce, signature)

    @property
    def made_at(self) -> datetime:
        return datetime.fromtimestamp(int(self.timestamp), UTC)

    def facts(self) -> dict[str, str]:
        """To be kept with the bytes as evidence."""
        return {
            "Wechatpay-Serial": self.serial,
            "Wechatpay-Timestamp": self.timestamp,
            "Wechatpay-Nonce": self.nonce,
            "Wechatpay-Signature": self.signature,
            "Wechatpay-Signature-Type": SCHEME,
        }


def verify(
    account: WeChatAccount, headers: Mapping[str, str], raw: bytes, since: datetime, until: datetime
) -> Seal:
    """The seal, if the platform made it over exactly these bytes between `since` and `until` ± five minutes.

    A notification has one moment; an answer was made somewhere between asking and hearing.
    """
    seal = Seal.of(headers)
    if seal.signature.startswith(_PROBE):
        # The gateway tests whether we look: whoever accepts a probe is cut off.
        raise _refused(Forged("probe"))
    key = account.platform_keys.get(seal.serial)
    if key is None:
        raise _refused(Forged("unknown-serial"))
    try:
        signature = base64.b64decode(seal.signature, validate=True)
    except (binascii.Error, ValueError):
        raise _refused(Forged("signature")) from None
    # Base64 leaves four bits of its last digit unused: one signature, one spelling.
    if base64.b64encode(signature).decode() != seal.signature:
        raise _refused(Forged("signature"))
    try:
        key.verify(
            signature, f"{seal.timestamp}\n{seal.nonce}\n".encode() + raw + b"\n", PKCS1v15(), SHA256()
        )
    except InvalidSignature:
        raise _refused(Forged("signature")) from None
    # Only now: a stale seal is a true one, so it says something about clocks (or a replay), not about forgers.
    skew = max((since - seal.made_at).total_seconds(), (seal.made_at - until).total_seconds())
    if skew >= FRESH.total_seconds():
        raise _refused(Stale(skew))
    return seal


def open_resource(account: WeChatAccount, resource: Mapping[str, Any]) -> bytes:
    """The plain bytes of an AEAD_AES_256_GCM resource."""
    try:
        nonce = str(resource["nonce"]).encode()
        associated = str(resource.get("associated_data") or "").encode()
        sealed = base64.b64decode(resource["ciphertext"], validate=True)
        if resource["algorithm"] != "AEAD_AES_256_GCM" or len(nonce) != 12:
            raise _refused(Malformed("resource"))
        return AESGCM(account.api_v3_key).decrypt(nonce, sealed, associated)
    except InvalidTag:
        raise _refused(Forged("undecipherable")) from None
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise _refused(Malformed("resource")) from None


def authorization(
    account: WeChatAccount, method: str, target: str, body: bytes, at: datetime, nonce: str | None = None
) -> str:
    """The Authorization header for exactly these bytes to exactly this path and query."""
    nonce = nonce or secrets.token_hex(16)
    timestamp = int(at.timestamp())
    text = f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode() + body + b"\n"
    signature = base64.b64encode(account.private_key.sign(text, PKCS1v15(), SHA256())).decode()
    return (
        f'{SCHEME} mchid="{account.merchant_id}",nonce_str="{nonce}",signature="{signature}",'
        f'timestamp="{timestamp}",serial_no="{account.certificate_serial}"'
    )


def _refused(error: NotificationRefused) -> NotificationRefused:
    UNVERIFIED.labels(error.reason).inc()
    return error


def _rsa(key: object) -> RSAPrivateKey:
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("not an RSA key")
    return key


def _public_key(pem: bytes) -> RSAPublicKey:
    """From a certificate or a bare public key: the platform gives either."""
    if b"BEGIN CERTIFICATE" in pem:
        key: object = load_pem_x509_certificate(pem).public_key()
    else:
        key = load_pem_public_key(pem)
    if not isinstance(key, RSAPublicKey):
        raise ValueError("not an RSA key")
    return key
