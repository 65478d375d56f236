"""A gateway's seal over its own bytes, checked with the key in the file, and what those bytes say.

Written apart from the service's own adapters: whoever checks a file need not trust the code that made it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final
from urllib.parse import parse_qsl

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

_SCHEME: Final = "WECHATPAY2-SHA256-RSA2048"
_ALIPAY_CHARSETS: Final = {"utf-8": "utf-8", "gbk": "gbk", "gb2312": "gbk", "gb18030": "gb18030"}
_WECHAT: Final = ("serial", "timestamp", "nonce", "signature", "signature-type")


class SealBroken(Exception):
    """What does not verify; `part` is where, below the answer."""

    def __init__(self, part: str, expected: str, found: str) -> None:
        super().__init__(f"{part}: {expected}")
        self.part, self.expected, self.found = part, expected, found


@dataclass(frozen=True, slots=True)
class Said:
    """What the sealed bytes say. `readable` is False where they are sealed for the merchant only (a notice of WeChat's)."""

    readable: bool
    order_no: str | None = None
    state: str = ""
    amount_fen: int | None = None
    paid_at: datetime | None = None


def read_key(pem: str) -> RSAPublicKey:
    """One key, one spelling. Raises ValueError."""
    try:
        key = load_pem_public_key(pem.encode())
    except (UnsupportedAlgorithm, TypeError) as error:
        raise ValueError(str(error)) from None
    if not isinstance(key, RSAPublicKey):
        raise ValueError("not an RSA key")
    if key_text(key) != pem:
        raise ValueError("not the one spelling of this key")
    return key


def key_text(key: RSAPublicKey) -> str:
    """As the file has it."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def key_print(key: RSAPublicKey) -> str:
    """What a key is compared by: SHA-256 of its DER form."""
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def unpacked(text: str) -> bytes:
    """Base64 in its one spelling. Raises ValueError."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("no base64") from None
    if base64.b64encode(raw).decode() != text:
        raise ValueError("not the one spelling of these bytes")
    return raw


def wechat(kind: str, raw: bytes, signature: Mapping[str, str], keys: Mapping[str, RSAPublicKey]) -> Said:
    """WeChat Pay v3. Raises SealBroken."""
    fields = {name.lower(): value for name, value in signature.items()}
    for name in _WECHAT:
        if not fields.get(f"wechatpay-{name}"):
            raise SealBroken("signature", f"Wechatpay-{name.title()}", "nothing")
    if unknown := [name for name in fields if name.removeprefix("wechatpay-") not in _WECHAT]:
        raise SealBroken("signature", "the five fields of a seal", unknown[0])
    serial, at, nonce, seal, scheme = (fields[f"wechatpay-{name}"] for name in _WECHAT)
    if scheme != _SCHEME:
        raise SealBroken("signature.Wechatpay-Signature-Type", _SCHEME, scheme)
    key = keys.get(serial)
    if key is None:
        raise SealBroken("signature.Wechatpay-Serial", f"one of keys.wechat ({', '.join(keys)})", serial)
    _verify(key, seal, f"{at}\n{nonce}\n".encode() + raw + b"\n")
    if kind == "notice":
        return Said(readable=False)
    content = _object(raw)
    if "trade_state" not in content:
        return Said(readable=True, state=str(content.get("code", "")))
    amount = content.get("amount")
    return Said(
        readable=True,
        order_no=str(content.get("out_trade_no")),
        state=str(content["trade_state"]),
        amount_fen=amount.get("total") if isinstance(amount, dict) else None,
        paid_at=_instant(content.get("success_time")),
    )


def alipay(kind: str, raw: bytes, signature: Mapping[str, str], keys: Mapping[str, RSAPublicKey]) -> Said:
    """Alipay RSA2: of an answer the sealed bytes are the inner object, of a notice the fields by name. Raises SealBroken."""
    if kind == "notice":
        return _alipay_notice(raw, signature, keys)
    if set(signature) != {"key", "sign", "sign_type"}:
        raise SealBroken("signature", "key, sign, sign_type", ", ".join(sorted(signature)))
    if signature["sign_type"] != "RSA2":
        raise SealBroken("signature.sign_type", "RSA2", signature["sign_type"])
    named = keys.get(signature["key"])
    if named is None:
        raise SealBroken("signature.key", f"one of keys.alipay ({', '.join(keys)})", signature["key"])
    _verify(named, signature["sign"], raw, "signature.sign")
    content = _object(raw)
    if content.get("code") != "10000":
        return Said(readable=True, state=str(content.get("sub_code") or content.get("code", "")))
    return _alipay_said(content, paid=content.get("send_pay_date"))


def _alipay_notice(raw: bytes, signature: Mapping[str, str], keys: Mapping[str, RSAPublicKey]) -> Said:
    """A form that holds its own seal, in the character set that it names; which key made it nobody says."""
    if signature:
        raise SealBroken("signature", "nothing: a notice holds its own seal", ", ".join(sorted(signature)))
    form = raw.decode("latin-1")
    charset = dict(parse_qsl(form, encoding="latin-1")).get("charset", "utf-8").lower()
    if charset not in _ALIPAY_CHARSETS:
        raise SealBroken("raw", " or ".join(_ALIPAY_CHARSETS), charset)
    encoding = _ALIPAY_CHARSETS[charset]
    fields = dict(parse_qsl(form, keep_blank_values=True, encoding=encoding, errors="replace"))
    seal = fields.pop("sign", "")
    fields.pop("sign_type", None)
    text = "&".join(f"{name}={fields[name]}" for name in sorted(fields) if fields[name])
    for key in keys.values():
        try:
            _verify(key, seal, text.encode(encoding, "replace"))
        except SealBroken:
            continue
        return _alipay_said(fields, paid=fields.get("gmt_payment"))
    raise SealBroken("raw", "fields sealed with a key of keys.alipay", "they are not")


SEALS: Final[Mapping[str, Callable[[str, bytes, Mapping[str, str], Mapping[str, RSAPublicKey]], Said]]] = {
    "wechat": wechat,
    "alipay": alipay,
}


def _alipay_said(content: Mapping[str, Any], paid: object) -> Said:
    yuan, _, cent = str(content.get("total_amount", "")).partition(".")
    paid_at = (
        datetime.fromisoformat(f"{paid}+08:00").astimezone(UTC) if isinstance(paid, str) and paid else None
    )
    state = str(content.get("trade_status"))
    return Said(
        readable=True,
        order_no=str(content.get("out_trade_no")),
        state="REFUNDED" if state == "TRADE_CLOSED" and paid_at else state,
        amount_fen=int(yuan) * 100 + int(cent.ljust(2, "0")) if yuan.isdigit() else None,
        paid_at=paid_at,
    )


def _verify(key: RSAPublicKey, seal: str, text: bytes, part: str = "signature.Wechatpay-Signature") -> None:
    try:
        made = unpacked(seal)
        key.verify(made, text, PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        # Which of the two was altered nobody can say: the seal fits only the bytes it was made over.
        raise SealBroken(
            part, "a seal over exactly these raw bytes and fields", "it does not verify"
        ) from None


def _object(raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        raise SealBroken("raw", "a JSON object", "something else") from None
    if not isinstance(content, dict):
        raise SealBroken("raw", "a JSON object", "something else")
    return content


def _instant(text: object) -> datetime | None:
    """Raises ValueError where no offset says which moment it is: here it would be read by the zone of the reader's machine."""
    if not isinstance(text, str):
        return None
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(text)
    return at.astimezone(UTC)
