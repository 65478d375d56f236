"""A mail server for one machine: ESMTP as RFC 5321 says it, STARTTLS (3207) and AUTH (4954) included, and quick."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

_SIZE_LIMIT = 1 << 20
_LINE_LIMIT = 4096
_MAIL = re.compile(rb"MAIL FROM:\s*<([^<>\s]*)>((?: [^ ]+)*)", re.IGNORECASE)
_RCPT = re.compile(rb"RCPT TO:\s*<([^<>\s]+)>((?: [^ ]+)*)", re.IGNORECASE)
_EXTENSIONS = (b"PIPELINING", b"SIZE %d" % _SIZE_LIMIT, b"8BITMIME", b"SMTPUTF8", b"ENHANCEDSTATUSCODES")
_LAST = (b"221", b"421")  # replies after which the line is closed
_END = b"\r\n.\r\n"
_READY = b"220 2.0.0 Go on in secret"
_CANCELLED = b"501 5.7.0 Cancelled"


@dataclass(frozen=True, slots=True)
class Door:
    """Who may send: only whoever closed the line to others and knows the password."""

    tls: ssl.SSLContext
    username: str
    password: str


class Postmaster(Protocol):
    """Who decides about recipients and keeps what is delivered. Replies are lines without their end."""

    def greet(self) -> bytes: ...
    def sender(self, address: str, size: int | None) -> bytes: ...
    def recipient(self, address: str) -> bytes: ...
    def deliver(self, sender: str, recipients: list[str], message: bytes) -> bytes:
        """An empty reply: the line is cut before one is given."""
        ...


class SmtpSession(asyncio.Protocol):
    """One client. Without a door it is an open relay."""

    def __init__(self, postmaster: Postmaster, sessions: set[SmtpSession], door: Door | None = None) -> None:
        self._postmaster = postmaster
        self._sessions = sessions
        self._door = door
        self._secret = self._known = False
        self._asking: Callable[[bytes], bytes] | None = None
        self._upgrade: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._helo = False
        self._in_data = False
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._commands: dict[bytes, Callable[[bytes], bytes]] = {
            b"EHLO": self._ehlo,
            b"HELO": self._hello,
            b"MAIL": self._mail,
            b"RCPT": self._rcpt,
            b"DATA": self._data,
            b"RSET": self._rset,
            b"AUTH": self._auth,
            b"NOOP": lambda _: b"250 2.0.0 OK",
            b"VRFY": lambda _: b"252 2.5.0 Send some mail and see",
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio.Transport, they only behave so.
        self._transport = transport = cast("asyncio.Transport", transport)
        self._sessions.add(self)
        greeting = self._postmaster.greet()
        transport.write(greeting + b"\r\n")
        if not greeting.startswith(b"220"):
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._sessions.discard(self)
        self._transport = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.write(b"421 4.3.2 Shutting down\r\n")
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._upgrade is None:
            self._answer()

    def _answer(self) -> None:
        """To all that is in the buffer. Not while TLS begins: an answer would go out in the open."""
        replies: list[bytes] = []
        # One write for a pipelined group: the client reads all its answers at once.
        while (reply := self._take()) is not None:
            replies.append(reply)
            if not reply:
                break
            if reply.startswith(_LAST) or reply == _READY:
                break
        transport = self._transport
        if transport is None or not replies:
            return
        if replies[-1] == _READY:
            # What came behind the command came in the open: it was never said. The next byte is for TLS.
            self._buffer.clear()
            transport.pause_reading()
            self._upgrade = asyncio.get_running_loop().create_task(self._close_to_others(transport))
        transport.write(b"".join(reply + b"\r\n" for reply in replies if reply))
        if not replies[-1] or replies[-1].startswith(_LAST):
            transport.close()

    def _take(self) -> bytes | None:
        """Handle one line or one message from the buffer; None when more must be read."""
        if self._in_data:
            return self._take_message()
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return b"421 4.5.2 Line too long" if len(self._buffer) > _LINE_LIMIT else None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return self._obey(line)

    def _obey(self, line: bytes) -> bytes:
        if self._asking is not None:
            asking, self._asking = self._asking, None
            return asking(line)
        if line.upper() == b"STARTTLS" and self._door is not None:
            return b"503 5.5.1 It is secret already" if self._secret else _READY
        verb = line[:4].upper()
        if verb == b"QUIT":
            return b"221 2.0.0 Bye"
        command = self._commands.get(verb)
        if command is None or line[4:5] not in {b"", b" "}:
            return b"500 5.5.1 Unknown command"
        return command(line)

    def _take_message(self) -> bytes | None:
        if self._buffer[:3] == b".\r\n":
            content, length = b"", 3
        else:
            end = self._buffer.find(_END)
            if end < 0:
                return b"421 5.3.4 Message too big" if len(self._buffer) > _SIZE_LIMIT else None
            content, length = bytes(self._buffer[: end + 2]), end + len(_END)
        del self._buffer[:length]
        self._in_data = False
        sender, recipients = self._sender or "", self._recipients
        self._reset()
        if len(content) > _SIZE_LIMIT:
            return b"552 5.3.4 Message too big"
        # Dot-unstuffing: a dot that opens a line was doubled by the client.
        if content.startswith(b"."):
            content = content[1:]
        return self._postmaster.deliver(sender, recipients, content.replace(b"\r\n.", b"\r\n"))

    def _ehlo(self, line: bytes) -> bytes:
        if not line[5:].strip():
            return b"501 5.5.4 Who are you?"
        self._helo = True
        self._reset()
        lines = [b"mailbox.kaowu.test", *_EXTENSIONS]
        if self._door is not None:
            lines.append(b"AUTH PLAIN LOGIN" if self._secret else b"STARTTLS")
        return b"\r\n".join(
            b"250" + (b" " if n == len(lines) - 1 else b"-") + text for n, text in enumerate(lines)
        )

    def _hello(self, line: bytes) -> bytes:
        reply = self._ehlo(line)
        return b"250 mailbox.kaowu.test" if reply.startswith(b"250") else reply

    def _mail(self, line: bytes) -> bytes:
        match = _MAIL.fullmatch(line)
        if match is None:
            return b"501 5.5.4 MAIL FROM:<address>"
        if refused := self._not_yet():
            return refused
        size = None
        for parameter in match[2].upper().split():
            name, _, value = parameter.partition(b"=")
            if name == b"SIZE" and value.isdigit():
                size = int(value)
                if size > _SIZE_LIMIT:
                    return b"552 5.3.4 Message too big"
            elif parameter not in {b"BODY=8BITMIME", b"BODY=7BIT", b"SMTPUTF8"}:
                return b"555 5.5.4 Unknown parameter"
        sender = match[1].decode("utf-8", "replace")
        reply = self._postmaster.sender(sender, size)
        if reply.startswith(b"250"):
            self._sender = sender
        return reply

    def _not_yet(self) -> bytes | None:
        """Why no mail may begin now."""
        if not self._helo:
            return b"503 5.5.1 Say EHLO first"
        if self._door is not None and not self._secret:
            return b"530 5.7.0 Must issue a STARTTLS command first"
        if self._door is not None and not self._known:
            return b"530 5.7.0 Authentication required"
        return None if self._sender is None else b"503 5.5.1 One mail at a time"

    def _rcpt(self, line: bytes) -> bytes:
        match = _RCPT.fullmatch(line)
        if match is None:
            return b"501 5.5.4 RCPT TO:<address>"
        if self._sender is None:
            return b"503 5.5.1 MAIL first"
        address = match[1].decode("utf-8", "replace")
        reply = self._postmaster.recipient(address)
        if reply.startswith(b"250"):
            self._recipients.append(address)
        return reply

    def _data(self, _: bytes) -> bytes:
        if self._sender is None or not self._recipients:
            return b"503 5.5.1 No valid recipients"
        self._in_data = True
        return b"354 End with <CR><LF>.<CR><LF>"

    # STARTTLS and AUTH

    async def _close_to_others(self, transport: asyncio.Transport) -> None:
        assert self._door is not None
        loop = asyncio.get_running_loop()
        try:
            secret = await loop.start_tls(transport, self, self._door.tls, server_side=True)
        except (OSError, ssl.SSLError):
            transport.abort()
            return
        if secret is None:
            return
        self._transport = secret
        self._secret, self._helo = True, False  # RFC 3207: what was said before is forgotten
        self._reset()
        self._upgrade = None
        self._answer()

    def _auth(self, line: bytes) -> bytes:
        if self._door is None:
            return b"502 5.5.1 Nobody is asked here"
        if not self._secret or self._known:
            return b"503 5.5.1 You are known already" if self._known else b"538 5.7.11 Encryption required"
        _, mechanism, word = (*line.split(b" ", 2), b"", b"")[:3]
        asks = {b"PLAIN": (b"334 ", self._plain), b"LOGIN": (b"334 VXNlcm5hbWU6", self._login_name)}
        if mechanism.upper() not in asks:
            return b"504 5.5.4 Unknown mechanism"
        question, self._asking = asks[mechanism.upper()]
        # What is asked may be said at once.
        return self._obey(word) if word else question

    def _login_name(self, name: bytes) -> bytes:
        if name == b"*":
            return _CANCELLED
        self._asking = lambda word: self._judge(_decoded(name), _decoded(word))
        return b"334 UGFzc3dvcmQ6"

    def _plain(self, word: bytes) -> bytes:
        if word == b"*":
            return _CANCELLED
        parts = _decoded(word).split(b"\0")
        return self._judge(parts[1], parts[2]) if len(parts) == 3 else b"501 5.5.2 Not that form"

    def _judge(self, name: bytes, password: bytes) -> bytes:
        assert self._door is not None
        right = hmac.compare_digest(name, self._door.username.encode()) & hmac.compare_digest(
            password, self._door.password.encode()
        )
        self._known = right
        return b"235 2.7.0 Welcome" if right else b"535 5.7.8 Wrong name or password"

    def _rset(self, _: bytes) -> bytes:
        self._reset()
        return b"250 2.0.0 OK"

    def _reset(self) -> None:
        self._sender = None
        self._recipients = []


def _decoded(word: bytes) -> bytes:
    try:
        return base64.b64decode(word, validate=True)
    except binascii.Error:
        return b""
