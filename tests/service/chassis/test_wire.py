"""Our few lines of HTTP against sockets that behave well, badly, and not at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from services.chassis import wire
from services.chassis.wire import Lost, Unreached, Wire, Wires

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@contextlib.asynccontextmanager
async def peer(talk: Talk) -> AsyncIterator[tuple[str, list[int]]]:
    """A socket that answers as `talk` says; gives its origin and the list of connections it got."""
    connections: list[int] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(len(connections))
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await talk(reader, writer, connections[-1])
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections
    finally:
        server.close()


def always(*pieces: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)

    return talk


@contextlib.asynccontextmanager
async def client(origin: str, *, connections: int = 4, patience: float = 2.0) -> AsyncIterator[Wire]:
    one = Wire(origin, connections=connections, patience=patience, limit=1000)
    yield one
    await one.aclose()


async def told(one: Wire, content: bytes = b"") -> tuple[int, bytes]:
    answer = await one.request("POST", "/", {}, content)
    return answer.status, answer.body


@pytest.mark.parametrize(
    "pieces",
    [
        (OK,),
        tuple(bytes([byte]) for byte in OK),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n", b"1\r\nk\r\n0\r\n\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", OK),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OK,),
    ],
)
async def test_an_answer_is_read_however_it_is_cut(pieces: tuple[bytes, ...]) -> None:
    async with peer(always(*pieces)) as (origin, connections), client(origin) as one:
        for _ in range(3):
            assert await told(one, b"x") == (200, b"ok")
        assert len(connections) == 1


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 500 Broken\r\n\r\nhalf a page")

    async with peer(talk) as (origin, connections), client(origin) as one:
        for _ in range(2):
            assert await told(one) == (500, b"half a page")
        assert len(connections) == 2


async def test_a_connection_the_carrier_says_it_closes_is_not_used_again() -> None:
    closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
    async with peer(always(closing)) as (origin, connections), client(origin) as one:
        for _ in range(3):
            assert (await told(one))[1] == b"ok"
        assert len(connections) == 3


async def test_a_connection_that_rested_too_long_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with peer(always(OK)) as (origin, connections), client(origin) as one:
        await told(one)
        monkeypatch.setattr(wire, "FRESH", 0.0)
        await told(one)
        assert len(connections) == 2


async def test_a_connection_closed_while_it_rested_costs_nothing() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()

    async with peer(talk) as (origin, connections), client(origin) as one:
        for _ in range(3):
            assert await told(one) == (200, b"ok")
            await asyncio.sleep(0.05)
        assert len(connections) == 3


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n" + b"x" * 2000,
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    ],
)
async def test_half_an_answer_leaves_the_outcome_open(said: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()

    async with peer(talk) as (origin, _), client(origin) as one:
        with pytest.raises(Lost):
            await told(one)


async def test_silence_is_an_open_outcome_and_its_late_answer_is_nobodys() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if number == 0:
            await asyncio.sleep(0.3)
        writer.write(OK.replace(b"ok", b"%02d" % number))
        await writer.drain()
        await reader.read()

    async with peer(talk) as (origin, _), client(origin, connections=1, patience=0.1) as one:
        with pytest.raises(Lost):
            await told(one)
        assert await told(one) == (200, b"01")


async def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_one() -> None:
    async with peer(always(OK + OK.replace(b"ok", b"no"))) as (origin, _), client(origin) as one:
        for _ in range(3):
            assert await told(one) == (200, b"ok")
            await asyncio.sleep(0.02)


async def test_without_a_listener_the_request_surely_was_not_taken() -> None:
    async with peer(always(OK)) as (origin, _):
        pass
    async with client(origin) as one:
        with pytest.raises(Unreached):
            await told(one)


async def test_no_more_than_so_many_at_one_time() -> None:
    async with peer(always(OK)) as (origin, connections), client(origin, connections=3) as one:
        answers = await asyncio.gather(*(told(one) for _ in range(50)))
        assert set(answers) == {(200, b"ok")}
        assert len(connections) <= 3


async def test_a_header_cannot_begin_another() -> None:
    async with client("http://127.0.0.1:9") as one:
        with pytest.raises(ValueError, match="one line"):
            await one.request("POST", "/", {"host": "x\r\nauthorization: me"})
        with pytest.raises(ValueError, match="one line"):
            await one.request("POST", "/?a\r\nb", {})


@pytest.mark.parametrize("origin", ["ftp://x", "http://", "carrier.test", "http://x/path"])
def test_an_origin_is_a_scheme_and_a_host(origin: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        Wire(origin, connections=1, patience=1, limit=1)


async def test_another_machines_certificate_is_not_believed() -> None:
    async with peer(always(OK)) as (origin, _):
        one = Wire(origin.replace("http", "https"), connections=1, patience=2, limit=10)
        with pytest.raises(Unreached):
            await told(one)


async def test_a_request_is_written_as_it_is_asked_for() -> None:
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        for length in (0, 3):
            heard.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(length))
            writer.write(OK)

    async with peer(talk) as (origin, connections), client(origin) as one:
        await one.request("GET", "/a?b=c", {"x": "y"})
        await one.request("PUT", "/d", {"host": "signed.test"}, b"abc")
        here = one.host.encode()
    assert heard == [
        b"GET /a?b=c HTTP/1.1\r\nhost: " + here + b"\r\nx: y\r\ncontent-length: 0\r\n\r\n",
        b"PUT /d HTTP/1.1\r\nhost: signed.test\r\ncontent-length: 3\r\n\r\nabc",
    ]
    assert len(connections) == 1


async def test_an_answers_headers_are_its_own() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 103 Early\r\nHint: x\r\n\r\nHTTP/1.1 200 OK\r\nSeal: One\r\ncontent-length: 0\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 None\r\nSeal: Two\r\n\r\n")
        await reader.read()

    async with peer(talk) as (origin, connections), client(origin) as one:
        first, second = [await one.request("GET", "/", {}) for _ in range(2)]
    assert first.headers == {"seal": "One", "content-length": "0"}
    assert (second.status, second.headers) == (204, {"seal": "Two"})
    assert len(connections) == 1


async def test_one_request_may_have_a_patience_of_its_own() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.2)
        writer.write(OK)

    async with peer(talk) as (origin, _), client(origin, patience=0.05) as one:
        assert (await one.request("GET", "/", {}, patience=2.0)).body == b"ok"


async def test_every_origin_has_connections_of_its_own() -> None:
    async with (
        peer(always(OK)) as (first, ones),
        peer(always(OK.replace(b"ok", b"no"))) as (second, twos),
        Wires(connections=4, patience=2.0, limit=10) as wires,
    ):
        for _ in range(3):
            assert (await wires.request("GET", f"{first}/x", {})).body == b"ok"
            assert (await wires.request("GET", second, {})).body == b"no"
        with pytest.raises(ValueError, match="origin"):
            await wires.request("GET", "no address", {})
    assert (len(ones), len(twos)) == (1, 1)
