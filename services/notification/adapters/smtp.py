"""Mail through a relay, over a few SMTP connections that are kept open.

A mail is composed here by hand, plain text in UTF-8: the standard library's composer costs more than the delivery.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Literal, get_args

from aiosmtplib import SMTP, SMTPException, SMTPResponseException

from services.chassis.clock import Clock
from services.notification.ports import Accepted, NoAnswer, Rejected

PATIENCE = 20.0  # real seconds for one mail, connecting included; relays may scan before they answer
_ADDRESS = re.compile(r"[^\s<>\",;:()\[\]\\@\x00-\x1f\x7f]{1,64}@[^\s<>\",;:()\[\]\\@\x00-\x1f\x7f]{1,253}")
_REFERENCE = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CLOSING = 421
_ENCODED_WORD = 42  # bytes of UTF-8 in one encoded word: 56 of Base64 and 12 around them stay below 75

Security = Literal["none", "starttls", "tls"]


class AccountInvalid(Exception):
    """The account file cannot be used; says which entry and why, never a value."""


@dataclass(frozen=True, slots=True)
class SmtpAccount:
    host: str
    port: int
    security: Security
    sender: str
    sender_name: str
    username: str | None = None
    password: str | None = None

    @classmethod
    def read(cls, path: Path) -> SmtpAccount:
        """An account file (JSON); a password is in a file beside it."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            password_file = content.get("password_file")
            account = cls(
                host=str(content["host"]),
                port=int(content["port"]),
                security=content["security"],
                sender=str(content["sender"]),
                sender_name=str(content["sender_name"]),
                username=content.get("username"),
                password=(path.parent / password_file).read_text("utf-8").strip() if password_file else None,
            )
        except KeyError as error:
            raise AccountInvalid(f"{path.name}: entry {error} is missing") from None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise AccountInvalid(f"{path.name}: cannot be read ({type(error).__name__})") from None
        if account.security not in get_args(Security):
            raise AccountInvalid(f"{path.name}: security is one of {', '.join(get_args(Security))}")
        if not _ADDRESS.fullmatch(account.sender):
            raise AccountInvalid(f"{path.name}: sender is no mail address")
        if account.username and account.security == "none":
            raise AccountInvalid(f"{path.name}: a password is not sent over an open line")
        return account


class SmtpMail:
    """`connections` at most at one time; those at rest are used again. Close with `aclose`."""

    def __init__(
        self, account: SmtpAccount, *, clock: Clock, connections: int = 4, patience: float = PATIENCE
    ) -> None:
        self._account = account
        self._clock = clock
        self._patience = patience
        self._domain = account.sender.rpartition("@")[2]
        self._slots = asyncio.Semaphore(connections)
        self._resting: list[SMTP] = []

    async def aclose(self) -> None:
        while self._resting:
            client = self._resting.pop()
            try:
                async with asyncio.timeout(1):
                    await client.quit()
            except (SMTPException, OSError, TimeoutError):
                client.close()

    async def send(self, to: str, subject: str, text: str, reference: str) -> Accepted:
        if not _ADDRESS.fullmatch(to):
            raise Rejected("address", permanent=True)
        if not to.isascii():
            # Delivered only where every relay on the way speaks SMTPUTF8; nobody could be told that it failed.
            raise Rejected("address-not-ascii", permanent=True)
        message = compose(
            self._account, to, subject, text, message_id(reference, self._domain), self._clock.now()
        )
        async with self._slots:
            return await self._deliver(to, message)

    async def _deliver(self, to: str, message: bytes) -> Accepted:
        """A connection at rest may have died unseen: then, before any content went out, a new one is tried."""
        while self._resting:
            try:
                return await self._deliver_by(self._resting.pop(), to, message)
            except NoAnswer as error:
                if error.maybe_accepted:
                    raise
        return await self._deliver_by(await self._connect(), to, message)

    async def _deliver_by(self, client: SMTP, to: str, message: bytes) -> Accepted:
        content_sent = False
        try:
            async with asyncio.timeout(self._patience):
                await client.mail(self._account.sender)
                await client.rcpt(to)
                content_sent = True
                response = await client.data(message)
        except SMTPResponseException as error:
            if error.code == _CLOSING and not content_sent:
                # The relay ends a connection that rested too long: it says nothing about this mail.
                client.close()
                raise NoAnswer(str(error.code), maybe_accepted=False) from None
            await self._put_back(client)
            raise Rejected(str(error.code), permanent=error.code >= 500) from None
        except (SMTPException, OSError, TimeoutError) as error:
            client.close()
            raise NoAnswer(type(error).__name__, maybe_accepted=content_sent) from None
        except BaseException:
            # Cancelled in the middle of a dialogue: nobody may go on with it.
            client.close()
            raise
        self._resting.append(client)
        return Accepted(response.message[:200])

    async def _put_back(self, client: SMTP) -> None:
        """After a refusal: forget the mail begun, keep the connection if it still stands."""
        try:
            async with asyncio.timeout(self._patience):
                await client.rset()
        except (SMTPException, OSError, TimeoutError):
            client.close()
        else:
            self._resting.append(client)

    async def _connect(self) -> SMTP:
        account = self._account
        client = SMTP(
            hostname=account.host,
            port=account.port,
            use_tls=account.security == "tls",
            start_tls=account.security == "starttls",
            username=account.username,
            password=account.password,
            local_hostname=self._domain,
            timeout=self._patience,
        )
        try:
            async with asyncio.timeout(self._patience):
                await client.connect()
                await client.ehlo()
        except SMTPResponseException as error:
            client.close()
            # A relay that refuses us altogether says nothing about this mail.
            raise Rejected(str(error.code), permanent=False) from None
        except (SMTPException, OSError, TimeoutError) as error:
            client.close()
            raise NoAnswer(type(error).__name__, maybe_accepted=False) from None
        return client


def message_id(reference: str, domain: str) -> str:
    """Ours, and the same at every try: a mailbox shows a second copy once."""
    if not _REFERENCE.fullmatch(reference):
        raise ValueError("a reference has letters, digits, dots, hyphens and underscores")
    return f"{reference}@{domain}"


def compose(account: SmtpAccount, to: str, subject: str, text: str, identity: str, at: datetime) -> bytes:
    """RFC 5322 with a Base64 body: lines of 76, no dots at their start, nothing a relay would re-write."""
    body = base64.encodebytes(text.replace("\r\n", "\n").replace("\n", "\r\n").encode()).replace(
        b"\n", b"\r\n"
    )
    head = (
        f"From: {_encoded(account.sender_name)} <{account.sender}>\r\n"
        f"To: {to}\r\n"
        f"Subject: {_encoded(subject)}\r\n"
        f"Date: {format_datetime(at.astimezone(UTC))}\r\n"
        f"Message-ID: <{identity}>\r\n"
        "Auto-Submitted: auto-generated\r\n"
        "MIME-Version: 1.0\r\n"
        'Content-Type: text/plain; charset="utf-8"\r\n'
        "Content-Transfer-Encoding: base64\r\n"
        "\r\n"
    )
    return head.encode("ascii") + body


def _encoded(text: str) -> str:
    """RFC 2047 words, folded; a line break in a subject would begin another header."""
    if _CONTROL.search(text):
        raise ValueError("a header is one line")
    words, word = [], b""
    for character in text:
        encoded = character.encode()
        if len(word) + len(encoded) > _ENCODED_WORD:
            words.append(word)
            word = b""
        word += encoded
    words.append(word)
    return "\r\n ".join(f"=?utf-8?B?{base64.b64encode(part).decode()}?=" for part in words)
