"""The simulated relay's certificate and its authority, the office's password there, and the key of its return paths."""

from __future__ import annotations

import secrets
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USERNAME = "exam@office.example.cn"
BOUNCES = "bounce@office.example.cn"
RELAY = IPv4Address("127.0.0.1")
_VALID_FROM = datetime(2015, 1, 1, tzinfo=UTC)
_VALID_FOR = timedelta(days=365 * 40)


@dataclass(frozen=True, slots=True)
class MailWorld:
    directory: Path
    username: str
    password: str

    @classmethod
    def of(cls, directory: Path) -> MailWorld:
        """Read what is in `directory`, or make it."""
        if not (directory / "complete").exists():
            _make(directory)
        return cls(directory, USERNAME, (directory / "password").read_text(encoding="ascii"))

    def tls(self) -> ssl.SSLContext:
        """The relay's end of a line."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "relay.pem", self.directory / "relay-key.pem")
        return context

    def account(self, port: int) -> dict[str, Any]:
        """What the sending service is told, in its own form."""
        return {
            "host": str(RELAY),
            "port": port,
            "security": "starttls",
            "sender": USERNAME,
            "sender_name": "乐山考点",
            "username": USERNAME,
            "password_file": "password",
            "ca_file": "authority.pem",
            "bounces": BOUNCES,
            "bounce_key_file": "bounce-key",
        }


def _make(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    authority, relay = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _name("kaowu simulated mail authority")
    root = _builder(issuer, issuer, authority, authority=True).sign(authority, hashes.SHA256())
    names = x509.SubjectAlternativeName([x509.IPAddress(RELAY), x509.DNSName("localhost")])
    leaf = (
        _builder(_name("kaowu simulated relay"), issuer, relay, authority=False)
        .add_extension(names, critical=False)
        .sign(authority, hashes.SHA256())
    )
    (directory / "authority.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    (directory / "relay.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    private = relay.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for name, content in (
        ("relay-key.pem", private),
        ("password", secrets.token_urlsafe(18).encode()),
        ("bounce-key", secrets.token_hex(16).encode()),
    ):
        (directory / name).touch(mode=0o600)
        (directory / name).write_bytes(content)
    (directory / "complete").write_text("", encoding="utf-8")


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_VALID_FROM)
        .not_valid_after(_VALID_FROM + _VALID_FOR)
        .add_extension(
            x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True
        )
    )
