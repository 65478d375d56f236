"""A mail as it goes over the wire: RFC 5322, made by hand, because the standard library's composer costs more than the delivery.

The relay signs it (DKIM): every line is ASCII and short, nothing is left for a relay to rewrite. There is no
List-Unsubscribe: these are notices of one person's own registration, and nobody can be let off the forfeiture notice.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from services.notification.adapters.mail_account import SmtpAccount
from services.notification.ports import Letter

_REFERENCE: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_ENCODED_WORD: Final = 42  # bytes of UTF-8 in one encoded word: 56 of Base64 and 12 around them stay below 75
_BOUNDARY: Final = "=_two-forms-of-one-text"  # no line of Base64 holds an underscore
_LANGUAGES: Final = {"zh": "zh-CN"}


def message_id(reference: str, domain: str) -> str:
    """Ours, and the same at every try: a mailbox shows a second copy once."""
    if not _REFERENCE.fullmatch(reference):
        raise ValueError("a reference has letters, digits, dots, hyphens and underscores")
    return f"{reference}@{domain}"


def compose(account: SmtpAccount, to: str, letter: Letter, identity: str, at: datetime) -> bytes:
    """Head and Base64 bodies, in lines of 76, no dots at their start."""
    head = (
        f"From: {_encoded(account.sender_name)} <{account.sender}>\r\n"
        f"To: {to}\r\n"
        f"Subject: {_encoded(letter.subject)}\r\n"
        f"Date: {format_datetime(at.astimezone(UTC))}\r\n"
        f"Message-ID: <{identity}>\r\n"
        "Auto-Submitted: auto-generated\r\n"
        f"Content-Language: {_LANGUAGES.get(letter.language, letter.language)}\r\n"
        "MIME-Version: 1.0\r\n"
    )
    plain = _part("text/plain", letter.text)
    if letter.html is None:
        return head.encode("ascii") + plain
    return b"".join(
        (
            head.encode("ascii"),
            f'Content-Type: multipart/alternative; boundary="{_BOUNDARY}"\r\n\r\n'.encode("ascii"),
            f"--{_BOUNDARY}\r\n".encode("ascii"),
            plain,
            # The last one is what a reader that knows both shows.
            f"--{_BOUNDARY}\r\n".encode("ascii"),
            _part("text/html", letter.html),
            f"--{_BOUNDARY}--\r\n".encode("ascii"),
        )
    )


def _part(content_type: str, text: str) -> bytes:
    lines = text.replace("\r\n", "\n").replace("\n", "\r\n").encode()
    return (
        f'Content-Type: {content_type}; charset="utf-8"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
    ).encode("ascii") + base64.encodebytes(lines).replace(b"\n", b"\r\n")


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
