"""Mail that is taken and comes back: to some addresses, later, in the forms in which servers and providers say it.

Each bounce is a file in a maildir, as an office's mail server would put it there.
"""

from __future__ import annotations

import base64
import itertools
from collections import Counter
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Final

from deploy.simulators.agenda import Agenda
from services.chassis.clock import Clock

# The part before the @ → how mail to it comes back.
BOUNCING: Final = {
    "gone": "report",
    "gone-full": "report-full",
    "gone-late": "report-delayed",
    "gone-qq": "qq",
    "gone-163": "netease",
}
_HEAD_END: Final = b"\n\n"
_AFTER: Final = timedelta(minutes=1)
_REPORTS: Final = {
    "report": ("failed", "5.1.1", "smtp; 550 5.1.1 User unknown"),
    "report-full": ("failed", "5.2.2", "smtp; 552 5.2.2 Mailbox full"),
    "report-delayed": ("delayed", "4.4.1", "smtp; 421 connection timed out"),
}
_PLAIN: Final = {
    "qq": (
        "PostMaster <PostMaster@qq.example.cn>",
        "来自qq.example.cn的退信",
        "很抱歉您发送的邮件被退回。\n无法发送到 {recipient}\n退信原因：该用户不存在\n550 Mailbox not found.",
    ),
    "netease": (
        "Postmaster <Postmaster@163.example.cn>",
        "系统退信",
        "抱歉，您的邮件被退回来了……\n收件人：{recipient}\n退信原因：收件人邮箱空间不足（552 Quota exceeded）。",
    ),
}


class Bouncer:
    """`directory`: the maildir. `bounced`: how many went there, by form. Without an agenda nothing comes back."""

    def __init__(self, directory: Path, clock: Clock, agenda: Agenda | None) -> None:
        self.directory = directory
        for name in ("tmp", "new", "cur"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        self._clock, self._agenda = clock, agenda
        self._number = itertools.count()
        self.bounced: Counter[str] = Counter()

    def plan(self, how: str, sender: str, recipient: str, original: bytes) -> None:
        if self._agenda is None or not sender:
            return  # nothing is ever returned to the empty sender

        async def bounce() -> None:
            self.put(bounce_of(how, sender, recipient, original, self._clock.now()))
            self.bounced[how] += 1

        self._agenda.add(self._clock.now() + _AFTER, bounce)

    def put(self, content: bytes) -> Path:
        """A mail into the maildir: written whole before anybody sees it."""
        name = f"{int(self._clock.now().timestamp())}.{next(self._number)}.simulated"
        (self.directory / "tmp" / name).write_bytes(content)
        return (self.directory / "tmp" / name).rename(self.directory / "new" / name)

    def unread(self) -> int:
        """How many nobody has looked at yet."""
        return sum(1 for _ in (self.directory / "new").iterdir())


def bounce_of(how: str, sender: str, recipient: str, original: bytes, at: datetime) -> bytes:
    """What comes back to the return path `sender`."""
    top = f"Return-Path: <>\nDelivered-To: {sender}\nDate: {format_datetime(at)}\nTo: {sender}\nMIME-Version: 1.0\n"
    if how in _REPORTS:
        action, status, diagnostic = _REPORTS[how]
        headers = original.partition(_HEAD_END)[0].decode("ascii", "replace")
        return f"""{top}From: Mail Delivery System <MAILER-DAEMON@mx.example.cn>
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
Content-Type: multipart/report; report-type=delivery-status; boundary="b0"

--b0
Content-Type: text/plain; charset=us-ascii

This is the mail system at host mx.example.cn.

--b0
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.cn

Final-Recipient: rfc822; {recipient}
Action: {action}
Status: {status}
Diagnostic-Code: {diagnostic}

--b0
Content-Type: text/rfc822-headers

{headers}

--b0--
""".encode()
    author, subject, text = _PLAIN[how]
    body = base64.encodebytes(text.format(recipient=recipient).encode("gb18030")).decode()
    encoded = base64.b64encode(subject.encode()).decode()
    return (
        f"{top}From: {author}\nSubject: =?utf-8?B?{encoded}?=\nContent-Type: text/plain; charset=gb18030\n"
        f"Content-Transfer-Encoding: base64\n\n{body}"
    ).encode()
