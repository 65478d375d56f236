"""How mail goes out: the relay, how the line to it is closed to others, who we are there, and where bounces return to."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal, get_args

from services.notification.adapters.lines import AccountInvalid
from services.notification.adapters.return_path import SHORTEST_KEY, ReturnPath

Security = Literal["none", "starttls", "tls"]
ADDRESS: Final = re.compile(
    r"[^\s<>\",;:()\[\]\\@\x00-\x1f\x7f]{1,64}@[^\s<>\",;:()\[\]\\@\x00-\x1f\x7f]{1,253}"
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_KNOWN: Final = frozenset(
    {
        "host", "port", "security", "sender", "sender_name", "username", "password_file", "ca_file", "bounces",
        "bounce_key_file",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SmtpAccount:
    host: str
    port: int
    security: Security
    sender: str
    sender_name: str
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None  # of an authority of our own; none: those that the machine trusts
    return_path: ReturnPath | None = None  # none: bounces go to the sender and nobody reads them here

    @classmethod
    def read(cls, path: Path) -> SmtpAccount:
        """An account file (JSON); password, authority and key are in files beside it. Raises AccountInvalid."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            unknown = sorted(set(content) - _KNOWN)
            account = cls(
                host=str(content["host"]),
                port=int(content["port"]),
                security=content["security"],
                sender=str(content["sender"]),
                sender_name=str(content["sender_name"]),
                username=content.get("username"),
                password=_secret(path, content, "password_file"),
                ca_file=path.parent / content["ca_file"] if content.get("ca_file") else None,
                return_path=_return_path(path, content),
            )
        except KeyError as error:
            raise AccountInvalid(f"{path.name}: entry {error} is missing") from None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise AccountInvalid(f"{path.name}: cannot be read ({type(error).__name__})") from None
        if unknown:
            raise AccountInvalid(f"{path.name}: {unknown} is no entry of an account")
        if wrong := _wrong(account):
            raise AccountInvalid(f"{path.name}: {wrong}")
        account.tls()
        return account

    @property
    def domain(self) -> str:
        """What is behind the sender's @: of our Message-IDs too."""
        return self.sender.rpartition("@")[2]

    def tls(self) -> ssl.SSLContext | None:
        """Checks the relay's certificate and its name, always. Raises AccountInvalid for an authority that is none."""
        if self.security == "none":
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise AccountInvalid(f"ca_file holds no certificate ({type(error).__name__})") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


def _secret(path: Path, content: Mapping[str, Any], entry: str) -> str | None:
    """What stands in a file beside the account's, which nobody else may read. Raises AccountInvalid."""
    if not (name := content.get(entry)):
        return None
    file = path.parent / str(name)
    if (mode := file.stat().st_mode) & 0o077:
        raise AccountInvalid(f"{file.name} is open to others (mode {mode & 0o777:04o}): chmod 600")
    return file.read_text("utf-8").strip()


def _return_path(path: Path, content: Mapping[str, Any]) -> ReturnPath | None:
    address, key = content.get("bounces"), _secret(path, content, "bounce_key_file")
    if address is None and key is None:
        return None
    if address is None or key is None:
        raise AccountInvalid(f"{path.name}: bounces and bounce_key_file go together")
    if not ADDRESS.fullmatch(address) or not address.isascii():
        raise AccountInvalid(f"{path.name}: bounces is no mail address")
    if len(key) < SHORTEST_KEY:
        raise AccountInvalid(f"{path.name}: the key of the bounces is shorter than {SHORTEST_KEY} characters")
    try:
        return ReturnPath(address, key.encode())
    except ValueError as error:
        raise AccountInvalid(f"{path.name}: bounces: {error}") from None


def _wrong(account: SmtpAccount) -> str | None:
    """What cannot be meant, in a sentence for whoever wrote the file."""
    host, path = account.host, account.return_path
    bare = account.security == "none"
    checks = (
        (
            not host or _CONTROL.search(host) or "/" in host,
            "host is the relay's name or address, without a scheme",
        ),
        (not 1 <= account.port <= 65_535, "port is between 1 and 65535"),
        (
            account.security not in get_args(Security),
            f"security is one of {', '.join(get_args(Security))}",
        ),
        (
            bare and (account.username or not _is_here(host)),
            "an open line is for a relay on this machine that asks for no password: use starttls or tls",
        ),
        (not ADDRESS.fullmatch(account.sender) or not account.sender.isascii(), "sender is no mail address"),
        (not account.sender_name or _CONTROL.search(account.sender_name), "sender_name is one line"),
        (bool(account.username) != bool(account.password), "username and password_file go together"),
        (
            # DMARC passes by SPF only where envelope and sender are of one domain.
            path and not f".{path.domain}".endswith(f".{account.domain}"),
            f"bounces is an address of {account.domain} or below it",
        ),
    )
    return next((sentence for wrong, sentence in checks if wrong), None)


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
