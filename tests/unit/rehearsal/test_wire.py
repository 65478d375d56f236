"""The small HTTP client: right answers over kept connections, and a clear NoAnswer for everything else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from deploy.rehearsal.wire import NoAnswer, Wire

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listener(talk: Talk) -> AsyncIterator[str]:
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def heard(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(
        next(line.split(":")[1] for line in head.splitlines() if line.lower().startswith("content-length"))
    )
    return head, await reader.readexactly(length)


def answer(body: bytes, extra: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode() + body


async def test_a_connection_is_kept_and_used_again() -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            head, body = await heard(reader)
            writer.write(answer(head.split(" ")[1].encode() + b" " + body))

    async with listener(talk) as url, Wire() as wire:
        first = await wire.request("POST", f"{url}/a?b=c", {"x": "y"}, b"one")
        second = await wire.request("GET", f"{url}/d", {})
    assert (first.status, first.body, second.body) == (200, b"/a?b=c one", b"/d ")
    assert connections == 1


async def test_questions_at_once_never_share_a_connection() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, body = await heard(reader)
            await asyncio.sleep(0.01 if body == b"slow" else 0)
            writer.write(answer(body))

    async with listener(talk) as url, Wire() as wire:
        bodies = [b"slow", b"quick", b"slow", b"quick"]
        replies = await asyncio.gather(*(wire.request("POST", url, {}, body) for body in bodies))
    assert [reply.body for reply in replies] == bodies


async def test_a_chunked_answer_is_whole() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await heard(reader)
        writer.write(b"HTTP/1.1 422 No\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    async with listener(talk) as url, Wire() as wire:
        assert await wire.request("GET", url, {}) == (422, b"abcde")


async def test_a_connection_that_the_other_side_ends_is_not_used_again() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await heard(reader)
        writer.write(answer(b"once", "connection: close\r\n"))
        await writer.drain()
        writer.close()

    async with listener(talk) as url, Wire() as wire:
        for _ in range(3):
            assert (await wire.request("GET", url, {})).body == b"once"


async def test_silence_is_no_answer_and_its_late_words_are_nobodys() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, body = await heard(reader)
        if body == b"hang":
            await asyncio.sleep(0.2)
        writer.write(answer(body))

    async with listener(talk) as url, Wire() as wire:
        with pytest.raises(NoAnswer, match="no answer within"):
            await wire.request("POST", url, {}, b"hang", patience=0.05)
        assert (await wire.request("POST", url, {}, b"next")).body == b"next"


@pytest.mark.parametrize(
    "said", [b"", b"SSH-2.0-nothing\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"]
)
async def test_anything_but_a_whole_answer_is_no_answer(said: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await heard(reader)
        writer.write(said)
        await writer.drain()
        writer.close()

    async with listener(talk) as url, Wire() as wire:
        with pytest.raises(NoAnswer):
            await wire.request("GET", url, {})


async def test_nobody_there_is_no_answer() -> None:
    async with listener(lambda _reader, _writer: asyncio.sleep(0)) as url:
        pass
    async with Wire() as wire:
        with pytest.raises(NoAnswer):
            await wire.request("GET", url, {})
