"""Everybody's mailbox: keeps each delivered mail in one mbox file, finds a person's mails and shows them."""

from __future__ import annotations

import email
import email.policy
import hashlib
import html
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from deploy.simulators.agenda import Agenda
from deploy.simulators.bouncing import BOUNCING, Bouncer
from deploy.simulators.outage import Outage, Weather
from deploy.simulators.postal_manners import Manners
from services.chassis.clock import Clock

# Recipients that behave badly, by the part before the @.
UNKNOWN_LOCAL_PART = "nobody"  # 550, for good
FULL_LOCAL_PART = "full"  # 452, later
_FROM_LINE = re.compile(rb"^(>*From )", re.MULTILINE)
_QUOTED_FROM_LINE = re.compile(rb"^>(>*From )", re.MULTILINE)
_ENVELOPE = re.compile(rb"From ([^ ]*) ([^ ]+)\nX-Original-To: ([^\n]*)\n")
_MESSAGE_ID = re.compile(rb"^message-id:[ \t]*<([^>]*)>", re.IGNORECASE | re.MULTILINE)
_HEAD_END = b"\n\n"


@dataclass(slots=True)
class Mail:
    at: datetime
    recipients: tuple[str, ...]
    message_id: str
    offset: int
    length: int

    @property
    def to_hashes(self) -> list[str]:
        """SHA-256 of each address: for books that are read by others."""
        return [hashlib.sha256(address.lower().encode()).hexdigest() for address in self.recipients]


class Mailbox:
    """A `Postmaster`. The mbox file is the only store; the index is read from it again after a restart."""

    def __init__(self, path: Path, clock: Clock, agenda: Agenda | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._end = 0
        self.mails: list[Mail] = []
        self._by_address: dict[str, list[int]] = {}
        self.weather = Weather(clock)
        self.manners = Manners(clock)
        self.bouncer = Bouncer(path.parent / "bounces", clock, agenda)
        self.refused: dict[str, int] = {}
        self._remember()

    def close(self) -> None:
        os.close(self._descriptor)

    # What the SMTP session asks

    def greet(self) -> bytes:
        if self.weather.meet() in {Outage.REFUSE, Outage.HANG}:
            return b"421 4.3.2 Service not available"
        return b"220 mailbox.kaowu.test ESMTP"

    def sender(self, address: str, size: int | None) -> bytes:
        answer = self.manners.too_big(size or 0) or self.manners.answer("mail")
        return self._refuse(answer) if answer else b"250 2.1.0 OK"

    def recipient(self, address: str) -> bytes:
        if self.weather.until is not None and self.weather.meet() is Outage.REFUSE:
            return self._refuse(b"421 4.3.2 Service not available")
        local_part = address.partition("@")[0].partition("+")[0].lower()
        if local_part == UNKNOWN_LOCAL_PART or "@" not in address:
            return self._refuse(b"550 5.1.1 No such mailbox")
        if local_part == FULL_LOCAL_PART:
            return self._refuse(b"452 4.2.2 Mailbox full")
        if answer := self.manners.answer("rcpt") or self.manners.greylisted(address.lower()):
            return self._refuse(answer)
        return b"250 2.1.5 OK"

    def deliver(self, sender: str, recipients: list[str], message: bytes) -> bytes:
        if answer := self.manners.too_big(len(message)) or self.manners.answer("data"):
            return self._refuse(answer)
        content = message.replace(b"\r\n", b"\n")
        at = self._clock.now()
        envelope = (
            f"From {sender or 'MAILER-DAEMON'} {at.isoformat()}\nX-Original-To: {', '.join(recipients)}\n"
        )
        stored = _FROM_LINE.sub(rb">\1", content)
        record = envelope.encode() + stored + (b"\n" if stored.endswith(b"\n") else b"\n\n")
        os.write(self._descriptor, record)
        self._index(at, recipients, content, self._end, len(record))
        for address in recipients:
            if how := BOUNCING.get(address.partition("@")[0].partition("+")[0].lower()):
                self.bouncer.plan(how, sender, address, content)
        if self.weather.until is not None and self.weather.meet() is Outage.LOSE:
            return b""
        return b"250 2.0.0 kept as %d" % len(self.mails)

    def _refuse(self, reply: bytes) -> bytes:
        code = reply[:3].decode()
        self.refused[code] = self.refused.get(code, 0) + 1
        return reply

    def _index(self, at: datetime, recipients: list[str], content: bytes, offset: int, length: int) -> None:
        head = content.partition(_HEAD_END)[0]
        match = _MESSAGE_ID.search(head)
        message_id = match[1].decode("ascii", "replace") if match else ""
        for address in recipients:
            self._by_address.setdefault(address.lower(), []).append(len(self.mails))
        self.mails.append(Mail(at, tuple(recipients), message_id, offset, length))
        self._end = offset + length

    def _remember(self) -> None:
        for offset, record in _records(self._descriptor):
            match = _ENVELOPE.match(record)
            if match is None:
                raise ValueError("the mailbox file is damaged: move it away to start with an empty one")
            recipients = match[3].decode().split(", ")
            at = datetime.fromisoformat(match[2].decode()).astimezone(UTC)
            self._index(at, recipients, record[match.end() :], offset, len(record))

    # What people and the rehearsal look at

    def of(self, address: str) -> list[int]:
        """Positions of the mails to this address, oldest first."""
        return self._by_address.get(address.lower(), [])

    def raw(self, position: int) -> bytes:
        mail = self.mails[position]
        record = os.pread(self._descriptor, mail.length, mail.offset)
        match = _ENVELOPE.match(record)
        assert match is not None
        return _QUOTED_FROM_LINE.sub(rb"\1", record[match.end() : -1])

    def path_of(self, position: int) -> str:
        """The return path that the envelope of this mail named."""
        mail = self.mails[position]
        match = _ENVELOPE.match(os.pread(self._descriptor, mail.length, mail.offset))
        assert match is not None
        return match[1].decode()

    def read(self, position: int) -> dict[str, Any]:
        message = email.message_from_bytes(self.raw(position), policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        body, html_body = message.get_body(("plain",)), message.get_body(("html",))
        mail = self.mails[position]
        return {
            "position": position,
            "at": mail.at.isoformat(),
            "from": str(message["From"]),
            "to": list(mail.recipients),
            "subject": str(message["Subject"]),
            "message_id": mail.message_id,
            "text": body.get_content().replace("\r\n", "\n") if body is not None else "",
            "html": html_body.get_content().replace("\r\n", "\n") if html_body is not None else None,
        }

    def list_page(self, address: str, *, last: int = 200) -> str:
        positions = self.of(address) if address else range(len(self.mails))
        rows = []
        for position in list(positions)[-last:][::-1]:
            content = self.read(position)
            rows.append(
                f"<tr><td>{html.escape(content['at'][:19])}<td>{html.escape(', '.join(content['to']))}"
                f'<td><a href="/mail/{position}">{html.escape(content["subject"])}</a>'
            )
        return _page(
            f"邮箱 · {len(self.mails)} 封",
            f'<form><input name="to" value="{html.escape(address)}" placeholder="收件地址">'
            "<button>查找</button></form>"
            f"<table><tr><th>时刻 (UTC)<th>收件人<th>主题{''.join(rows)}</table>",
        )

    def mail_page(self, position: int) -> str:
        content = self.read(position)
        facts = "".join(
            f"<tr><th>{label}<td>{html.escape(value)}"
            for label, value in (
                ("发件人", content["from"]),
                ("收件人", ", ".join(content["to"])),
                ("时刻 (UTC)", content["at"]),
                ("Message-ID", content["message_id"]),
            )
        )
        return _page(
            content["subject"],
            f'<p><a href="/mail">全部邮件</a></p><table>{facts}</table>'
            f"<pre>{html.escape(content['text'])}</pre>"
            # As a mail reader shows it: no script, no request of any kind.
            + (
                f'<iframe sandbox srcdoc="{html.escape(content["html"])}"></iframe>'
                if content["html"]
                else ""
            ),
        )


def _records(descriptor: int) -> Iterator[tuple[int, bytes]]:
    """Each mail of the file and where it begins. An empty line stands before the next From line."""
    size = os.fstat(descriptor).st_size
    offset, pending, position = 0, b"", 0
    while position < size or pending:
        chunk = os.pread(descriptor, 1 << 20, position)
        position += len(chunk)
        pending += chunk
        while (end := pending.find(b"\n\nFrom ")) >= 0:
            yield offset, pending[: end + 2]
            offset += end + 2
            pending = pending[end + 2 :]
        if not chunk:
            yield offset, pending
            return


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="zh-CN"><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>"
        "<style>body{font:16px/1.6 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:left;vertical-align:top}"
        "tr+tr{border-top:1px solid #ddd}pre{white-space:pre-wrap;background:#f6f6f4;padding:1rem}"
        "iframe{width:100%;height:40rem;border:1px solid #ddd}</style>"
        f"<h1>{html.escape(title)}</h1>{body}"
    )
