"""A mail server for one machine: ESMTP as RFC 5321 says it, and quick."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Protocol, cast

_SIZE_LIMIT = 1 << 20
_LINE_LIMIT = 4096
_MAIL = re.compile(rb"MAIL FROM:\s*<([^<>\s]*)>((?: [^ ]+)*)", re.IGNORECASE)
_RCPT = re.compile(rb"RCPT TO:\s*<([^<>\s]+)>((?: [^ ]+)*)", re.IGNORECASE)
_EXTENSIONS = (b"PIPELINING", b"SIZE %d" % _SIZE_LIMIT, b"8BITMIME", b"SMTPUTF8", b"ENHANCEDSTATUSCODES")
_LAST = (b"221", b"421")  # replies after which the line is closed
_END = b"\r\n.\r\n"


class Postmaster(Protocol):
    """Who decides about recipients and keeps what is delivered. Replies are lines without their end."""

    def greet(self) -> bytes: ...
    def recipient(self, address: str) -> bytes: ...
    def deliver(self, sender: str, recipients: list[str], message: bytes) -> bytes:
        """An empty reply: the line is cut before one is given."""
        ...


class SmtpSession(asyncio.Protocol):
    def __init__(self, postmaster: Postmaster, sessions: set[SmtpSession]) -> None:
        self._postmaster = postmaster
        self._sessions = sessions
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
        replies: list[bytes] = []
        # One write for a pipelined group: the client reads all its answers at once.
        while (reply := self._take()) is not None:
            replies.append(reply)
            if not reply:
                break
            if reply.startswith(_LAST):
                break
        transport = self._transport
        if transport is None or not replies:
            return
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
        if not self._helo:
            return b"503 5.5.1 Say EHLO first"
        if self._sender is not None:
            return b"503 5.5.1 One mail at a time"
        for parameter in match[2].upper().split():
            name, _, value = parameter.partition(b"=")
            if name == b"SIZE" and value.isdigit():
                if int(value) > _SIZE_LIMIT:
                    return b"552 5.3.4 Message too big"
            elif parameter not in {b"BODY=8BITMIME", b"BODY=7BIT", b"SMTPUTF8"}:
                return b"555 5.5.4 Unknown parameter"
        self._sender = match[1].decode("utf-8", "replace")
        return b"250 2.1.0 OK"

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

    def _rset(self, _: bytes) -> bytes:
        self._reset()
        return b"250 2.0.0 OK"

    def _reset(self) -> None:
        self._sender = None
        self._recipients = []
