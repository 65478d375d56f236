"""What each toxic of the proxy does to a link, and that it counts it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from tests.support.eventually import eventually
from tests.support.proxy import (
    DOWN,
    UP,
    Bandwidth,
    Latency,
    LimitData,
    LimitTo,
    Proxy,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that gives every line back, in capitals, and remembers what it got."""

    def __init__(self) -> None:
        self.got = b""
        self.pieces: list[bytes] = []
        self.ended: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.got += data
                self.pieces.append(data)
                writer.write(data.upper())
                await writer.drain()
            self.ended.append("closed")
        except ConnectionResetError:
            self.ended.append("reset")
        writer.close()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@asynccontextmanager
async def through(echo: Echo) -> AsyncIterator[tuple[Proxy, Callable[[], Awaitable[Streams]]]]:
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        opened: list[asyncio.StreamWriter] = []

        async def connect() -> Streams:
            streams = await asyncio.open_connection("127.0.0.1", proxy.port)
            opened.append(streams[1])
            return streams

        try:
            yield proxy, connect
        finally:
            for writer in opened:
                writer.transport.abort()
            server.close()


async def ask(streams: Streams, text: bytes, within: float = 10.0) -> bytes:
    """The answer to `text`, all of it; shorter when the link ended."""
    reader, writer = streams
    writer.write(text)
    answer = b""
    with suppress(ConnectionError):
        async with asyncio.timeout(within):
            while len(answer) < len(text) and (data := await reader.read(65536)):
                answer += data
    return answer


async def test_without_a_toxic_everything_passes_as_it_is(echo: Echo) -> None:
    async with through(echo) as (proxy, connect):
        streams = await connect()
        text = bytes(range(97, 123)) * 20_000  # more than any buffer in between
        assert await ask(streams, text) == text.upper()
        streams[1].write_eof()
        assert await streams[0].read() == b""
        assert echo.ended == ["closed"]
        assert (proxy.accepted, proxy.refused) == (1, 0)


async def test_a_server_that_is_away_ends_the_connection_and_is_counted(echo: Echo) -> None:
    async with through(echo) as (proxy, connect):
        proxy.upstream = 1  # nobody listens there
        assert await ask(await connect(), b"hello") == b""
        assert proxy.refused == 1


async def test_latency_holds_bytes_up_once_and_not_one_after_the_other(echo: Echo) -> None:
    async with through(echo) as (proxy, connect):
        streams = await connect()
        with proxy.poisoned(DOWN, Latency(0.3, jitter=0.1)) as late:
            started = time.monotonic()
            assert await ask(streams, b"one ") == b"ONE "
            assert time.monotonic() - started >= 0.3
        assert late.done >= 1
        before = late.done
        assert await ask(streams, b"two") == b"TWO"
        assert late.done == before, "it is off"


async def test_bandwidth_lets_so_many_bytes_through_in_a_second(echo: Echo) -> None:
    async with through(echo) as (proxy, connect):
        streams = await connect()
        with proxy.poisoned(UP, Bandwidth(20_000)) as slow:
            started = time.monotonic()
            assert await ask(streams, b"x" * 8_000) == b"X" * 8_000
            assert time.monotonic() - started >= 0.4
        assert slow.done == 8_000


async def test_slow_close_lets_the_other_side_hear_late_that_one_has_closed(echo: Echo) -> None:
    async with through(echo) as (proxy, connect):
        streams = await connect()
        with proxy.poisoned(UP, SlowClose(0.3)) as slow:
            assert await ask(streams, b"a") == b"A"
            started = time.monotonic()
            streams[1].write_eof()
            assert await streams[0].read() == b""
            assert time.monotonic() - started >= 0.3
        assert slow.done == 1


async def test_timeout_lets_nothing_through_and_cuts_the_link_when_it_goes(echo: Echo) -> None:
    async with through(echo) as (proxy, connect):
        streams = await connect()
        assert await ask(streams, b"a") == b"A"
        with proxy.poisoned(UP, Timeout()) as silent:
            streams[1].write(b"b")
            streams[1].write_eof()
            await eventually(lambda: yes(silent.done >= 2))
            await asyncio.sleep(0.1)
            assert (echo.got, echo.ended) == (b"a", []), "not even the closing comes through"
            assert len(proxy.links) == 1
        await eventually(lambda: yes(not proxy.links))
        assert await ask(await connect(), b"c") == b"C"


async def test_timeout_with_a_time_cuts_the_link_by_itself(echo: Echo) -> None:
    async with through(echo) as (proxy, connect):
        streams = await connect()
        with proxy.poisoned(UP, Timeout(0.1)) as silent:
            assert await ask(streams, b"b") == b""
            assert silent.done == 1
        assert echo.got == b""


async def test_reset_peer_resets_both_sides(echo: Echo) -> None:
    async with through(echo) as (proxy, connect):
        streams = await connect()
        assert await ask(streams, b"a") == b"A"
        with proxy.poisoned(DOWN, ResetPeer()) as reset:
            streams[1].write(b"b")
            with pytest.raises(ConnectionResetError):
                await streams[0].read(1)
            await eventually(lambda: yes(echo.ended == ["reset"]))
        assert reset.done == 1


async def test_reset_peer_after_a_time_lets_bytes_through_until_then(echo: Echo) -> None:
    async with through(echo) as (proxy, connect):
        streams = await connect()
        with proxy.poisoned(UP, ResetPeer(0.2)) as reset:
            assert await ask(streams, b"a") == b"A"
            with pytest.raises(ConnectionResetError):
                await streams[0].read(1)
        assert reset.done == 1


async def test_slicer_cuts_bytes_into_slices(echo: Echo) -> None:
    async with through(echo) as (proxy, connect):
        streams = await connect()
        with proxy.poisoned(UP, Slicer(3, pause=0.05)) as slicer:
            assert await ask(streams, b"abcdefgh") == b"ABCDEFGH"
        assert slicer.done == 3
        assert max(map(len, echo.pieces)) == 3


async def test_limit_data_cuts_the_link_after_so_many_bytes_which_still_arrive(echo: Echo) -> None:
    async with through(echo) as (proxy, connect):
        streams = await connect()
        with proxy.poisoned(DOWN, LimitData(5)) as limit:
            assert await ask(streams, b"abc") == b"ABC"
            assert await ask(streams, b"defg") == b"DE"
        assert limit.done == 1
        with proxy.poisoned(UP, LimitData(4)) as limit:
            assert await ask(await connect(), b"12345") == b""
            await eventually(lambda: yes(echo.got.endswith(b"1234")))
        assert limit.done == 1


async def test_down_refuses_new_connections_and_cuts_old_ones(echo: Echo) -> None:
    async with through(echo) as (proxy, connect):
        streams = await connect()
        assert await ask(streams, b"a") == b"A"
        await proxy.shut()
        assert await ask(streams, b"b") == b""
        with pytest.raises(ConnectionRefusedError):
            await connect()
        assert proxy.downs == 1
        await proxy.open()
        assert await ask(await connect(), b"c") == b"C"


async def test_words_reach_the_server_and_their_answer_is_lost(echo: Echo) -> None:
    async with through(echo) as (proxy, connect):
        with proxy.poisoned(UP, LimitTo(b"COMMIT;")) as cut:
            streams = await connect()
            assert await ask(streams, b"BEGIN;") == b"BEGIN;"
            assert await ask(streams, b"COM") == b"COM"
            assert await ask(streams, b"MIT;") == b"", "the words came in two pieces"
            assert echo.got.endswith(b"COMMIT;")
            assert cut.done == 1
            assert await ask(await connect(), b"COMMIT;") == b"COMMIT;", "once was asked for"
        assert cut.done == 1


async def test_words_can_be_kept_from_the_server(echo: Echo) -> None:
    async with through(echo) as (proxy, connect):
        with proxy.poisoned(UP, LimitTo(b"COMMIT;", passes=False)) as cut:
            assert await ask(await connect(), b"COMMIT;") == b""
            await eventually(lambda: yes(cut.done == 1))
        assert echo.got == b""


async def test_words_count_only_in_the_transaction_that_said_something_else_before(echo: Echo) -> None:
    async with through(echo) as (proxy, connect):
        with proxy.poisoned(UP, LimitTo(b"COMMIT;", after=b"key-7", resets=b"BEGIN;")) as cut:
            streams = await connect()
            for text in (b"BEGIN;", b"key-1", b"COMMIT;", b"BEGIN;", b"key-7", b"ROLLBACK;", b"BEGIN;"):
                assert await ask(streams, text) == text.upper()
            assert await ask(streams, b"COMMIT;") == b"COMMIT;", "it was rolled back before"
            assert await ask(streams, b"BEGIN;key-7") == b"BEGIN;KEY-7"
            assert await ask(streams, b"COMMIT;") == b""
        assert cut.done == 1


async def yes(answer: bool) -> bool:
    return answer
