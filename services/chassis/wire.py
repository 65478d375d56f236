"""HTTP/1.1 to a gateway, a carrier or another service over a few kept connections: requests of ours, answers of a known kind.

A general client spends ten times as much processor time on a request as this does (1.1 ms against 0.1 ms for an SMS),
and a storm is nothing but requests. What it leaves out: redirects, proxies, cookies, compression, HTTP/2.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections.abc import Mapping
from functools import partial
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

import httptools

# A connection that rested longer may be closed by the other side at any moment, and a request that meets the closing
# is one whose outcome nobody knows.
FRESH: Final = 4.0
_FINAL: Final = 200  # below: interim answers, another follows
_FRAMING: Final = frozenset({"content-length", "transfer-encoding"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class NoAnswer(OSError):
    """Nothing usable came back: Unreached or Lost."""


class Unreached(NoAnswer):
    """No connection could be made: the request surely was not taken."""


class Lost(NoAnswer):
    """The request may have been taken, its answer did not come or is not HTTP."""


class Answer(NamedTuple):
    """What came back, whatever its status. Names of headers are in lower case; of a repeated one the last counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Connection(asyncio.Protocol):
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._transport: asyncio.BaseTransport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._headers: dict[str, str] = {}
        self._headed = self._framed = False
        self.idle_since = 0.0

    @property
    def answered(self) -> bool:
        """Whether the last request has its answer."""
        answer = self._answer
        return answer is not None and answer.done() and not answer.cancelled() and not answer.exception()

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> Answer:
        """One request and its answer. Raises Lost."""
        if not self.open:
            raise Lost("closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)  # type: ignore[union-attr]  # open: it is a transport that writes
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()  # type: ignore[attr-defined]  # of every transport of a connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.close()  # nobody asked: whatever this is, it must not be taken for the next answer
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(type(error).__name__)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if exc is None and self._headed and not self._framed:
            self._complete()  # an answer without a length ends with its connection
        self._fail("closed before the answer")

    def _fail(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Lost(why))
        self.close()

    def _complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer(self._parser.get_status_code(), self._headers, bytes(self._body)))

    # What the parser calls

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer.done():
            self.close()  # a second answer to one request: nothing here can be trusted any more

    def on_header(self, name: bytes, value: bytes) -> None:
        field = name.decode("latin-1").lower()
        self._headers[field] = value.decode("latin-1")
        self._framed = self._framed or field in _FRAMING

    def on_headers_complete(self) -> None:
        self._headed = self._parser.get_status_code() >= _FINAL

    def on_body(self, body: bytes) -> None:
        if not self.open:
            return
        self._body += body
        if len(self._body) > self._limit:
            self._fail("too large")

    def on_message_complete(self) -> None:
        if not self._headed:
            self._framed, self._headers = False, {}
            return
        self._complete()
        keep = self._parser.should_keep_alive()
        self._headed = self._framed = False
        self._body, self._headers = bytearray(), {}
        self._parser = httptools.HttpResponseParser(self)
        if not keep:
            self.close()


class Wire:
    """At most `connections` requests at one time; one that takes longer than `patience` seconds is lost."""

    def __init__(self, origin: str, *, connections: int, patience: float, limit: int) -> None:
        parts = urlsplit(origin)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.path.strip("/"):
            raise ValueError("an origin is a scheme, a host and perhaps a port")
        self.host = parts.netloc.rpartition("@")[2]
        self._name = parts.hostname
        self._port = parts.port or _DEFAULT_PORTS[parts.scheme]
        self._tls = _trust() if parts.scheme == "https" else None
        self._patience, self._limit = patience, limit
        self._slots = asyncio.Semaphore(connections)
        self._resting: list[_Connection] = []

    async def aclose(self) -> None:
        while self._resting:
            self._resting.pop().close()

    async def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        content: bytes = b"",
        patience: float | None = None,
    ) -> Answer:
        """The answer, whatever its status. Raises Unreached or Lost."""
        head = [f"{method} {target} HTTP/1.1"]
        if "host" not in headers:
            head.append(f"host: {self.host}")
        head += [f"{name}: {value}" for name, value in headers.items()]
        head.append(f"content-length: {len(content)}")
        if any("\r" in line or "\n" in line for line in head):
            raise ValueError("a header is one line")
        request = "\r\n".join([*head, "", ""]).encode("ascii") + content
        async with self._slots:
            connection = self._rested()
            try:
                async with asyncio.timeout(self._patience if patience is None else patience):
                    if connection is None:
                        connection = await self._connect()
                    answer = await connection.ask(request)
            except TimeoutError:
                raise (Lost if connection is not None else Unreached)("no answer in time") from None
            finally:
                self._put_back(connection)
        return answer

    def _rested(self) -> _Connection | None:
        now = time.monotonic()
        while self._resting:
            connection = self._resting.pop()
            if connection.open and now - connection.idle_since < FRESH:
                return connection
            connection.close()
        return None

    def _put_back(self, connection: _Connection | None) -> None:
        if connection is None or not connection.open:
            return
        if not connection.answered:
            connection.close()  # given up half way: its late answer must not be taken for the next one's
            return
        connection.idle_since = time.monotonic()
        self._resting.append(connection)

    async def _connect(self) -> _Connection:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self._limit),
                self._name,
                self._port,
                ssl=self._tls,
                server_hostname=self._name if self._tls else None,
            )
        except OSError as error:
            raise Unreached(type(error).__name__) from None
        return connection


class Wires:
    """The same to any number of origins, for callers that are told whole addresses."""

    def __init__(self, *, connections: int, patience: float, limit: int) -> None:
        self._make = partial(Wire, connections=connections, patience=patience, limit=limit)
        self._origins: dict[str, Wire] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        for wire in self._origins.values():
            await wire.aclose()
        self._origins.clear()

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes = b"",
        patience: float | None = None,
    ) -> Answer:
        """The answer, whatever its status. Raises Unreached, Lost, or ValueError for what is no address."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if (wire := self._origins.get(origin)) is None:
            wire = self._origins[origin] = self._make(origin)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        return await wire.request(method, target, headers, content, patience)


@functools.cache
def _trust() -> ssl.SSLContext:
    """Who may vouch for the other side: the public authorities. One for the process, they take long to read."""
    return ssl.create_default_context()
