"""What mail servers send back: read from the office's maildir, as reports (RFC 3464) or in a provider's own words.

A bounce counts only for the message whose return path it came to, and only if it says that a recipient failed.
Anybody may send mail here: what is too big, broken, about nothing of ours or no bounce at all is named and left alone.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import html
import re
from collections.abc import Iterator
from email.header import decode_header
from email.message import Message
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from services.notification.adapters.return_path import Forged, ReturnPath
from services.notification.domain.returned import Bounce, Found, Left

log = structlog.get_logger(__name__)

LARGEST: Final = 1 << 20  # of a mail that is looked at; ours are a hundredth of it
_TEXT: Final = 64 * 1024  # of a plain bounce's words
_NAMES_US: Final = ("Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "To")
_STATUS: Final = re.compile(r"\b([245])\.(\d{1,3})\.(\d{1,3})\b")
_MAILER: Final = re.compile(
    r"mailer-?daemon|postmaster|mail delivery (?:sub)?system|邮件系统|系统退信|10000@qq", re.IGNORECASE
)
_ANSWERS: Final = re.compile(r"自动回复|out of office|automatic reply|auto-?reply|vacation", re.IGNORECASE)
_RETURNED: Final = re.compile(
    r"退信|退回|undeliver|returned mail|failure notice|delivery (?:has )?fail|could ?n[o']t be delivered",
    re.IGNORECASE,
)
_NOT_YET: Final = re.compile(
    r"will (?:keep|continue) trying|继续尝试|延迟|temporar(?:y|ily) (?:failure|deferred)|delayed",
    re.IGNORECASE,
)
_NOBODY: Final = (
    r"用户不存在|邮件?地址(?:（[^）]*）|\([^)]*\))?不存在|帐号不存在|账号不存在|未开通|"
    r"mailbox (?:not found|unavailable|does not exist)|user (?:unknown|not found|not exist|doesn't exist)|"
    r"unknown user|no such (?:user|mailbox|recipient)|recipient (?:is not exist|rejected)|account does not exist"
)
# What providers say in words of their own, and the status it means (RFC 3463). The first that fits.
_SAID: Final = tuple(
    (re.compile(words, re.IGNORECASE), status)
    for words, status in (
        (r"空间不足|容量满|邮箱已满|已满|quota exceeded|mailbox (?:is )?full|over quota", "5.2.2"),
        (_NOBODY, "5.1.1"),
        (r"停用|禁用|冻结|disabled|suspended|inactive", "5.2.1"),
        (r"域名不存在|host not found|domain not found|dns query error|unrouteable", "5.1.2"),
        (r"邮件过大|exceed(?:s|ed)? (?:mail)?size|message too (?:big|large)", "5.3.4"),
        (r"垃圾邮件|拒收|黑名单|content reject|spam|blocked|denied", "5.7.1"),
        (r"timed? ?out|connection refused|lost connection", "4.4.1"),
    )
)


class BounceBox:
    """The maildir that bounces are delivered to. Nothing is taken out before it is `done`."""

    def __init__(self, directory: Path, path: ReturnPath) -> None:
        self._directory, self._path = directory, path

    def has_new(self) -> bool:
        """Whether there is a mail that was not looked at."""
        return any((self._directory / "new").iterdir())

    async def waiting(self, most: int) -> list[Found]:
        """The oldest mails in the box, read."""
        return await asyncio.to_thread(self._waiting, most)

    async def done(self, found: list[Found]) -> None:
        """A bounce that is recorded is not kept: it holds somebody's address. The rest lies there as seen, for people."""
        await asyncio.to_thread(self._done, found)

    def _waiting(self, most: int) -> list[Found]:
        found = []
        for file in sorted((self._directory / "new").iterdir())[:most]:
            if file.stat().st_size > LARGEST:
                found.append(Found(file.name, Left.HUGE))
            else:
                found.append(Found(file.name, read_bounce(file.read_bytes(), self._path)))
        return found

    def _done(self, found: list[Found]) -> None:
        for one in found:
            file = self._directory / "new" / one.name
            if isinstance(one.what, Bounce):
                file.unlink(missing_ok=True)
            elif file.exists():
                file.rename(self._directory / "cur" / f"{one.name.partition(':')[0]}:2,S")


def read_bounce(raw: bytes, path: ReturnPath) -> Bounce | Left:
    """What a mail to the return path says. Never raises: it may hold anything."""
    try:
        message = email.message_from_bytes(raw, policy=email.policy.compat32)
        of = _message_of(message, path)
        if isinstance(of, Left):
            return of
        said = _reported(message) or _in_words(message)
    except Exception as error:
        # Anybody can write here, and the standard library's parser has a long tail.
        log.warning("bounce-unreadable", error=type(error).__name__)
        return Left.UNREADABLE
    return said if isinstance(said, Left) else Bounce(of, said)


def _message_of(message: Message, path: ReturnPath) -> UUID | Left:
    found: set[UUID] = set()
    forged = False
    for name in _NAMES_US:
        for value in message.get_all(name, []):
            for address in path.addresses_in(str(value)):
                try:
                    known = path.message_of(address)
                except Forged:
                    forged = True
                else:
                    found |= {known} if known else set()
    if len(found) == 1:
        return found.pop()
    return Left.FORGED if forged and not found else Left.FOREIGN


def _reported(message: Message) -> str | Left | None:
    """The status of the first recipient that failed, as the report says it; None: this is no report."""
    groups = [part for part in message.walk() if part.get_content_type() == "message/delivery-status"]
    if not groups:
        return None
    actions: set[str] = set()
    for group in groups:
        payload = group.get_payload()
        for recipient in payload if isinstance(payload, list) else []:
            if not isinstance(recipient, Message):
                continue
            action = str(recipient.get("Action", "")).strip().lower()
            actions.add(action)
            if action == "failed":
                said = f"{recipient.get('Status', '')} {recipient.get('Diagnostic-Code', '')}"
                match = _STATUS.search(said)
                return match[0] if match else "5.0.0"
    return Left.DELAYED if "delayed" in actions else Left.OTHER


def _in_words(message: Message) -> str | Left:
    """The status that a provider's own words mean."""
    sender, subject = _header(message, "from"), _header(message, "subject")
    if _ANSWERS.search(subject) or not _MAILER.search(sender):
        return Left.OTHER
    words = " ".join((subject, *_texts(message)))[:_TEXT]
    if _NOT_YET.search(words):
        return Left.DELAYED
    for pattern, status in _SAID:
        if pattern.search(words):
            return status
    if not _RETURNED.search(words):
        return Left.OTHER
    match = _STATUS.search(words)
    return match[0] if match and match[1] != "2" else "5.0.0"


def _texts(message: Message) -> Iterator[str]:
    for part in message.walk():
        if part.get_content_maintype() == "text":
            content = part.get_payload(decode=True)
            text = _decoded(content if isinstance(content, bytes) else b"", part.get_content_charset())
            yield (
                html.unescape(re.sub(r"<[^<>]*>", " ", text))
                if part.get_content_subtype() == "html"
                else text
            )
            return


def _header(message: Message, name: str) -> str:
    """One header in letters; providers here also write it in bytes, as no standard allows."""
    value = next((value for key, value in message.raw_items() if key.lower() == name), "")
    raw = str(value).encode("ascii", "surrogateescape")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("gb18030", "replace")
    parts = decode_header(text)
    return "".join(_decoded(p, c) if isinstance(p, bytes) else p for p, c in parts)


def _decoded(content: bytes, charset: str | None) -> str:
    # What calls itself gb2312 is gb18030 more often than not.
    name = "gb18030" if (charset or "").lower() in {"gb2312", "gbk", "x-gbk"} else charset or "utf-8"
    try:
        return content[:_TEXT].decode(name, "replace")
    except LookupError:
        return content[:_TEXT].decode("utf-8", "replace")
