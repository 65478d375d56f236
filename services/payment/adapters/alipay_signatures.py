"""Alipay's RSA2 seals: what we sign, what the gateway signed, and how a notice's form is read.

Two texts are signed in two ways. A request and a notice: their decoded fields, sorted, `k=v` joined by `&`. An answer:
the bytes of its inner object exactly as they came, so these are cut out of the body before anything is parsed.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from prometheus_client import Counter

from services.payment.adapters.asking import BEIJING, AccountInvalid
from services.payment.ports import Forged, Malformed, NotificationRefused, Stale

SIGN_TYPE: Final = "RSA2"
FRESH: Final = timedelta(minutes=5)
# What a notice may be written in. Anything else is refused rather than guessed at.
_CHARSETS: Final = {"utf-8": "utf-8", "gbk": "gbk", "gb2312": "gbk", "gb18030": "gb18030"}
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
_MOST_FIELDS: Final = 80

UNVERIFIED = Counter("kaowu_alipay_unverified", "Answers and notices whose seal was refused", ["reason"])


@dataclass(frozen=True, slots=True)
class AlipayAccount:
    """Who we are at the gateway, and which of its keys we were given: several, during a change of keys."""

    gateway_url: str
    app_id: str
    seller_id: str
    private_key: RSAPrivateKey
    gateway_keys: Mapping[str, RSAPublicKey]
    """By the names the account file gives them: RSA2 seals name no key, so each is tried."""
    bill_origins: frozenset[str]
    """From where bills may be fetched, as scheme://host: they lie at another host than the gateway."""

    @classmethod
    def read(cls, path: Path) -> AlipayAccount:
        """An account file (JSON); the files it names are beside it."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            private_key = load_pem_private_key((path.parent / content["private_key_file"]).read_bytes(), None)
            keys = {
                str(name): load_pem_public_key((path.parent / file).read_bytes())
                for name, file in content["gateway_keys"].items()
            }
            account = cls(
                gateway_url=str(content["gateway_url"]),
                app_id=str(content["app_id"]),
                seller_id=str(content["seller_id"]),
                private_key=_private(private_key),
                gateway_keys={name: _public(key) for name, key in keys.items()},
                bill_origins=frozenset(map(str, content.get("bill_origins", ()))),
            )
        except KeyError as error:
            raise AccountInvalid(f"{path.name}: entry {error} is missing") from None
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise AccountInvalid(f"{path.name}: cannot be read ({type(error).__name__})") from None
        if not account.gateway_keys:
            raise AccountInvalid(f"{path.name}: without gateway_keys no answer can be verified")
        return account


@dataclass(frozen=True, slots=True)
class Seal:
    """Who signed, and the signature: with the signed bytes enough to verify them again years later."""

    key: str
    signature: str

    def facts(self) -> dict[str, str]:
        """To be kept with the bytes as evidence."""
        return {"key": self.key, "sign": self.signature, "sign_type": SIGN_TYPE}


def sign(account: AlipayAccount, fields: Mapping[str, str]) -> str:
    """The `sign` of a request with these fields."""
    signature = account.private_key.sign(signed_text(fields).encode(), PKCS1v15(), SHA256())
    return base64.b64encode(signature).decode()


def signed_text(fields: Mapping[str, str]) -> str:
    """Every field that has a value, but `sign`, by name."""
    return "&".join(f"{name}={fields[name]}" for name in sorted(fields) if fields[name] and name != "sign")


def verify(account: AlipayAccount, text: bytes, signature: str) -> Seal:
    """The seal, if the gateway made it over exactly these bytes. Raises Forged."""
    try:
        made = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        raise refused(Forged("signature")) from None
    # Base64 leaves bits of its last digit unused: one signature, one spelling.
    if base64.b64encode(made).decode() != signature:
        raise refused(Forged("signature"))
    for name, key in account.gateway_keys.items():
        try:
            key.verify(made, text, PKCS1v15(), SHA256())
        except InvalidSignature:
            continue
        return Seal(name, signature)
    raise refused(Forged("signature"))


def signed_part(raw: bytes, name: str) -> tuple[bytes, str]:
    """Of an answer: the bytes of the object `name` as they were signed, and the signature. Raises Malformed.

    The object is found by counting its brackets, outside of strings: whoever parses it and writes it again gets other bytes.
    """
    opening = re.match(rb'\s*\{\s*"' + re.escape(name.encode()) + rb'"\s*:\s*(?=\{)', raw)
    if opening is None:
        raise refused(Malformed("answer"))
    start = opening.end()
    end = _end_of_object(raw, start)
    try:
        rest = json.loads(b"{" + raw[end:].lstrip().removeprefix(b","))
    except (ValueError, RecursionError):
        raise refused(Malformed("answer")) from None
    signature = rest.get("sign")
    if not isinstance(signature, str) or not signature:
        raise refused(Malformed("unsigned"))
    return raw[start:end], signature


def _end_of_object(raw: bytes, start: int) -> int:
    depth, quoted, escaped = 0, False, False
    for at in range(start, len(raw)):
        byte = raw[at]
        if quoted:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                quoted = False
        elif byte == 0x22:
            quoted = True
        elif byte == 0x7B:
            depth += 1
        elif byte == 0x7D:
            depth -= 1
            if depth == 0:
                return at + 1
    raise refused(Malformed("answer"))


def read_notice(account: AlipayAccount, raw: bytes, at: datetime) -> tuple[dict[str, str], Seal]:
    """The fields of a notice that the gateway signed within five minutes of `at`. Raises NotificationRefused."""
    fields = _form(raw)
    signature = fields.pop("sign", "")
    if fields.pop("sign_type", "") != SIGN_TYPE or not signature:
        raise refused(Malformed("headers"))
    charset = _CHARSETS[fields["charset"].lower()] if "charset" in fields else "utf-8"
    seal = verify(account, signed_text(fields).encode(charset), signature)
    sent_at = moment(fields.get("notify_time"))
    if sent_at is None:
        raise refused(Malformed("form"))
    # Only now: what is stale is truly signed, so it says something about clocks (or a replay), not about forgers.
    skew = abs((at - sent_at).total_seconds())
    if skew >= FRESH.total_seconds():
        raise refused(Stale(skew))
    return fields, seal


def _form(raw: bytes) -> dict[str, str]:
    try:
        text = raw.decode("ascii")
        named = dict(parse_qsl(text, keep_blank_values=True, encoding="latin-1", max_num_fields=_MOST_FIELDS))
        charset = _CHARSETS[named.get("charset", "utf-8").lower()]
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=True,
            encoding=charset,
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except (ValueError, KeyError):
        raise refused(Malformed("form")) from None
    if len({name for name, _ in pairs}) != len(pairs):
        raise refused(Malformed("form"))  # of two fields of one name nobody can say which was signed
    return dict(pairs)


def moment(text: object) -> datetime | None:
    """Alipay's own form, which is Beijing's clock, in UTC; anything else is none."""
    if not isinstance(text, str) or not _MOMENT.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=BEIJING).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def refused(error: NotificationRefused) -> NotificationRefused:
    UNVERIFIED.labels(error.reason).inc()
    return error


def _private(key: object) -> RSAPrivateKey:
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("not an RSA key")
    return key


def _public(key: object) -> RSAPublicKey:
    if not isinstance(key, RSAPublicKey):
        raise ValueError("not an RSA key")
    return key
