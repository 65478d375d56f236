"""HTTP/1.1 to this machine, as little of it as a rehearsal needs: pooled connections, one request at a time on each.

A rehearsal asks tens of thousands of questions on the same two cores as the system it asks; a general client spends
five times as much processor time on each as this does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final, NamedTuple, Self, cast
from urllib.parse import urlsplit

import httptools

# Below the five seconds after which a listener closes an idle connection: a request must not meet the closing.
FRESH: Final = 3.0


class NoAnswer(OSError):
    """Nobody there, hung up, or silent for too long."""


class Reply(NamedTuple):
    status: int
    body: bytes


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[Reply] | None = None
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []

    @property
    def closed(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not by isinstance: uvloop's transports are of no class of asyncio.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"an answer that is not HTTP ({error})")

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._fail("the connection was closed before the answer")

    def _fail(self, why: str) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(NoAnswer(why))
        if self.transport is not None:
            self.transport.abort()

    # What the parser calls

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        reply = Reply(self._parser.get_status_code(), b"".join(self._body))
        if not self._parser.should_keep_alive() and self.transport is not None:
            self.transport.close()
        self._body = []
        self._parser = httptools.HttpResponseParser(self)
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(reply)


class Wire:
    """Use as an async context manager; closing it closes every connection."""

    def __init__(self, patience: float = 30.0) -> None:
        self._patience = patience
        self._idle: dict[tuple[str, int], list[_Connection]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connections in self._idle.values():
            for connection in connections:
                if connection.transport is not None:
                    connection.transport.close()
        self._idle.clear()

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | None = None,
        patience: float | None = None,
    ) -> Reply:
        """The answer, whatever its status. Raises NoAnswer."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        where = (parts.hostname, parts.port or 80)
        target = parts.path or "/"
        target = f"{target}?{parts.query}" if parts.query else target
        lines = [f"{method} {target} HTTP/1.1", f"host: {where[0]}:{where[1]}"]
        lines.extend(f"{name}: {value}" for name, value in headers.items())
        lines.append(f"content-length: {len(content or b'')}\r\n\r\n")
        connection = self._reuse(where)
        try:
            async with asyncio.timeout(self._patience if patience is None else patience):
                if connection is None:
                    _, connection = await asyncio.get_running_loop().create_connection(_Connection, *where)
                assert connection.transport is not None
                connection.answer = asyncio.get_running_loop().create_future()
                connection.transport.write("\r\n".join(lines).encode("latin-1") + (content or b""))
                reply = await connection.answer
        except TimeoutError:
            raise NoAnswer(f"no answer within {patience or self._patience:.0f} s") from None
        except ConnectionError as error:
            raise NoAnswer(f"{type(error).__name__}: {error}") from error
        finally:
            self._give_back(where, connection)
        return reply

    def _reuse(self, where: tuple[str, int]) -> _Connection | None:
        idle, now = self._idle.get(where, []), time.monotonic()
        while idle:
            connection = idle.pop()
            if not connection.closed and now - connection.idle_since < FRESH:
                return connection
            if connection.transport is not None:
                connection.transport.close()
        return None

    def _give_back(self, where: tuple[str, int], connection: _Connection | None) -> None:
        if connection is None or connection.closed:
            return
        if connection.answer is None or not connection.answer.done() or connection.answer.cancelled():
            # Given up half way: the late answer must not be taken for that of the next question.
            assert connection.transport is not None
            connection.transport.abort()
            return
        connection.idle_since = time.monotonic()
        self._idle.setdefault(where, []).append(connection)
