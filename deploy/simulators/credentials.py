"""Keys of the simulated world, made once per keys directory, and the account files that the services read.

Everything is for this machine only: the private keys of gateway *and* merchant lie side by side.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from deploy.simulators.mail_credentials import MailWorld

APP_ID = "wx0000000000000000"
MERCHANT_ID = "1900000001"
ALIPAY_APP_ID = "2021000000000000"
ALIPAY_SELLER_ID = "2088000000000000"
ACCESS_KEY_ID = "LTAIlocalsimulator00"
TENCENT_KEY_ID = "AKIDsimulated"
SDK_APP_ID = "1400000000"
SIGN_NAME = "本地模拟考点"
# Long enough for any virtual time a rehearsal may set.
_VALID_FROM = datetime(2015, 1, 1, tzinfo=UTC)
_VALID_FOR = timedelta(days=365 * 40)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One of the gateway's keys. `serial`: a certificate's serial or a public key's id, as on the wire."""

    serial: str
    private_key: rsa.RSAPrivateKey
    certificate_pem: bytes | None


@dataclass(frozen=True, slots=True)
class WeChatWorld:
    app_id: str
    merchant_id: str
    merchant_serial: str
    merchant_key: rsa.RSAPublicKey
    api_v3_key: bytes
    signing_keys: tuple[SigningKey, ...]
    """The first signs unless told otherwise; the last is in no account file: merchants do not know it."""


@dataclass(frozen=True, slots=True)
class AlipayWorld:
    app_id: str
    seller_id: str
    merchant_key: rsa.RSAPublicKey
    signing_keys: tuple[SigningKey, ...]
    """The first signs unless told otherwise; the last is in no account file: merchants do not know it."""


@dataclass(frozen=True, slots=True)
class AliyunWorld:
    access_key_id: str
    access_key_secret: str
    sign_name: str


@dataclass(frozen=True, slots=True)
class TencentWorld:
    secret_id: str
    secret_key: str
    sdk_app_id: str
    sign_name: str


@dataclass(frozen=True, slots=True)
class Credentials:
    directory: Path
    wechat: WeChatWorld
    alipay: AlipayWorld
    aliyun: AliyunWorld
    tencent: TencentWorld
    mail: MailWorld

    @classmethod
    def of(cls, directory: Path) -> Credentials:
        """Read the keys of `directory`, or make them."""
        wechat, alipay, aliyun = directory / "wechat", directory / "alipay", directory / "aliyun"
        if not (wechat / "complete").exists():
            _make_wechat(wechat)
        if not (alipay / "complete").exists():
            _make_alipay(alipay)
        if not (aliyun / "access-key-secret").exists():
            aliyun.mkdir(parents=True, exist_ok=True)
            _write_private(aliyun / "access-key-secret", secrets.token_hex(16).encode())
        tencent = directory / "tencent"
        if not (tencent / "secret-key").exists():
            tencent.mkdir(parents=True, exist_ok=True)
            _write_private(tencent / "secret-key", secrets.token_hex(16).encode())
        key = (tencent / "secret-key").read_text(encoding="ascii")
        return cls(
            directory,
            _read_wechat(wechat),
            _read_alipay(alipay),
            _read_aliyun(aliyun),
            TencentWorld(TENCENT_KEY_ID, key, SDK_APP_ID, SIGN_NAME),
            MailWorld.of(directory / "smtp"),
        )

    def write_account_files(
        self, gateway_url: str, alipay_url: str, sms_endpoint: str, smtp_port: int, tencent_endpoint: str = ""
    ) -> dict[str, Path]:
        """What each service is told: where the outside is, and with which keys. Written anew at every start."""
        known = self.wechat.signing_keys[:-1]
        accounts: dict[str, tuple[Path, dict[str, Any]]] = {
            "wechat": (
                self.directory / "wechat" / "account.json",
                {
                    "gateway_url": gateway_url,
                    "app_id": self.wechat.app_id,
                    "merchant_id": self.wechat.merchant_id,
                    "certificate_serial": self.wechat.merchant_serial,
                    "private_key_file": "merchant-key.pem",
                    "api_v3_key_file": "api-v3-key",
                    "platform_keys": {key.serial: f"platform-{n}-public.pem" for n, key in enumerate(known)},
                },
            ),
            "alipay": (
                self.directory / "alipay" / "account.json",
                {
                    "gateway_url": f"{alipay_url}/gateway.do",
                    "app_id": self.alipay.app_id,
                    "seller_id": self.alipay.seller_id,
                    "private_key_file": "merchant-key.pem",
                    "gateway_keys": {
                        key.serial: f"{key.serial}-public.pem" for key in self.alipay.signing_keys[:-1]
                    },
                    "bill_origins": [alipay_url],
                },
            ),
            "aliyun": (
                self.directory / "aliyun" / "account.json",
                {
                    "endpoint": sms_endpoint,
                    "access_key_id": self.aliyun.access_key_id,
                    "access_key_secret_file": "access-key-secret",
                    "sign_name": self.aliyun.sign_name,
                },
            ),
            "tencent": (
                self.directory / "tencent" / "account.json",
                {
                    "endpoint": tencent_endpoint,
                    "secret_id": self.tencent.secret_id,
                    "secret_key_file": "secret-key",
                    "sdk_app_id": self.tencent.sdk_app_id,
                    "sign_name": self.tencent.sign_name,
                    "region": "ap-guangzhou",
                },
            ),
            "smtp": (
                self.directory / "smtp" / "account.json",
                self.mail.account(smtp_port),
            ),
        }
        if not tencent_endpoint:
            del accounts["tencent"]  # one carrier is enough
        for path, content in accounts.values():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        return {name: path for name, (path, _) in accounts.items()}


def _make_wechat(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    merchant = _new_key()
    _write_private(directory / "merchant-key.pem", _private_pem(merchant))
    (directory / "merchant-certificate.pem").write_bytes(_certificate(merchant, f"merchant {MERCHANT_ID}"))
    _write_private(directory / "api-v3-key", secrets.token_hex(16).encode())
    # Two certificates and a public key side by side, as during a change of keys; and one nobody knows.
    serials: list[str] = []
    for n in range(4):
        key = _new_key()
        _write_private(directory / f"platform-{n}-key.pem", _private_pem(key))
        (directory / f"platform-{n}-public.pem").write_bytes(_public_pem(key.public_key()))
        if n == 1:
            serials.append(f"PUB_KEY_ID_0119000000012024{secrets.randbelow(10**12):012d}")
        else:
            certificate = _certificate(key, "Tenpay.com simulated")
            (directory / f"platform-{n}-certificate.pem").write_bytes(certificate)
            serials.append(_serial(x509.load_pem_x509_certificate(certificate)))
    (directory / "platform-serials.json").write_text(json.dumps(serials), encoding="utf-8")
    (directory / "complete").write_text("", encoding="utf-8")


def _make_alipay(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    _write_private(directory / "merchant-key.pem", _private_pem(_new_key()))
    # Two side by side, as during a change of keys; and one nobody knows.
    for n in range(3):
        key = _new_key()
        _write_private(directory / f"gateway-{n}-key.pem", _private_pem(key))
        (directory / f"gateway-{n}-public.pem").write_bytes(_public_pem(key.public_key()))
    (directory / "complete").write_text("", encoding="utf-8")


def _read_alipay(directory: Path) -> AlipayWorld:
    return AlipayWorld(
        app_id=ALIPAY_APP_ID,
        seller_id=ALIPAY_SELLER_ID,
        merchant_key=_read_private(directory / "merchant-key.pem").public_key(),
        signing_keys=tuple(
            SigningKey(f"gateway-{n}", _read_private(directory / f"gateway-{n}-key.pem"), None)
            for n in range(3)
        ),
    )


def _read_wechat(directory: Path) -> WeChatWorld:
    certificate = x509.load_pem_x509_certificate((directory / "merchant-certificate.pem").read_bytes())
    merchant_key = certificate.public_key()
    assert isinstance(merchant_key, rsa.RSAPublicKey)
    keys = []
    serials = json.loads((directory / "platform-serials.json").read_text(encoding="utf-8"))
    for n, serial in enumerate(serials):
        private = _read_private(directory / f"platform-{n}-key.pem")
        pem = directory / f"platform-{n}-certificate.pem"
        keys.append(SigningKey(serial, private, pem.read_bytes() if pem.exists() else None))
    return WeChatWorld(
        app_id=APP_ID,
        merchant_id=MERCHANT_ID,
        merchant_serial=_serial(certificate),
        merchant_key=merchant_key,
        api_v3_key=(directory / "api-v3-key").read_bytes(),
        signing_keys=tuple(keys),
    )


def _read_aliyun(directory: Path) -> AliyunWorld:
    secret = (directory / "access-key-secret").read_text(encoding="ascii")
    return AliyunWorld(ACCESS_KEY_ID, secret, SIGN_NAME)


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _certificate(key: rsa.RSAPrivateKey, common_name: str) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_VALID_FROM)
        .not_valid_after(_VALID_FROM + _VALID_FOR)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _serial(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:X}"


def _read_private(path: Path) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(
        path.read_bytes(),
        password=None,
        unsafe_skip_rsa_key_validation=True,  # made above; validating each takes a twentieth of a second
    )
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def _public_pem(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _private_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
