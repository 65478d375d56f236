"""The little HTTP that simulators need, straight on ASGI: a request read whole, an answer sent whole."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
BODY_LIMIT = 1 << 20
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    raw_path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def target(self) -> str:
        """As it stood in the request line: what signatures are made over."""
        return f"{self.raw_path}?{self.query}" if self.query else self.raw_path

    def argument(self, name: str, default: str = "") -> str:
        return parse_qs(self.query, keep_blank_values=True).get(name, [default])[0]

    def json(self) -> dict[str, Any]:
        """The body as an object; an empty body is an empty object. Raises ValueError."""
        content = json.loads(self.body) if self.body else {}
        if not isinstance(content, dict):
            raise ValueError("a JSON object is expected")
        return content


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = field(default=((b"content-type", b"application/json"),))

    @classmethod
    def of(cls, content: object, status: int = 200) -> Reply:
        return cls(status, json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode())

    @classmethod
    def html(cls, page: str) -> Reply:
        return cls(200, page.encode(), ((b"content-type", b"text/html; charset=utf-8"),))


Handler = Callable[[Request], Awaitable[Reply]]


class Application:
    """An ASGI application around one function."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return  # the caller left
            body += message.get("body", b"")
            if not message.get("more_body") or len(body) > BODY_LIMIT:
                break
        if len(body) > BODY_LIMIT:
            reply = Reply.of({"code": "PARAM_ERROR", "message": "请求过大"}, 413)
        else:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            raw_path = scope["raw_path"].decode("latin-1").partition("?")[0]
            query = scope["query_string"].decode("latin-1")
            reply = await self._handler(
                Request(scope["method"], scope["path"], raw_path, query, headers, body)
            )
        length = (b"content-length", str(len(reply.body)).encode())
        headers_out = reply.headers if reply.status == 204 else (*reply.headers, length)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers_out})
        await send({"type": "http.response.body", "body": reply.body})


@contextlib.asynccontextmanager
async def serving(handler: Handler, port: int = 0) -> AsyncIterator[str]:
    """The URL under which `handler` answers inside the block. A port of 0 is chosen by the machine.

    uvicorn's protocol on a bare asyncio server: a uvicorn.Server wants the signals and is slow to end.
    """
    listening = listen(port)
    config = uvicorn.Config(
        Application(handler),
        http=HttpToolsProtocol,
        ws="none",
        access_log=False,
        log_config=None,
        timeout_keep_alive=300,
    )
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpToolsProtocol(config, state, {}), sock=listening
    )
    try:
        yield f"http://{HOST}:{listening.getsockname()[1]}"
    finally:
        server.close()
        for task in list(state.tasks):
            task.cancel()  # an answer still owed is an answer lost: the caller sees the line cut
        for connection in list(state.connections):
            connection.shutdown()
        await asyncio.gather(*state.tasks, return_exceptions=True)


def listen(port: int) -> socket.socket:
    """A listening socket of this machine only."""
    # The protocol is named: of a socket that names none asyncio does not know that it is TCP, and leaves Nagle's algorithm on.
    # Each answer on a kept connection, sent as head and body, then waits 40 ms for an acknowledgement that is held back.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError:
        if not port:
            raise
        # A taken port is no failure: whoever asks is told where we really are.
        listening.bind((HOST, 0))
    listening.listen(512)
    listening.setblocking(False)
    return listening
