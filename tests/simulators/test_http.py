"""How the simulators answer on the wire."""

from __future__ import annotations

import asyncio
import socket

from deploy.simulators.http import HOST, listen


async def test_an_answer_in_two_parts_does_not_wait_for_the_first_to_be_acknowledged() -> None:
    made: asyncio.Future[asyncio.BaseTransport] = asyncio.get_running_loop().create_future()

    class Heard(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.set_result(transport)

    listening = listen(0)
    server = await asyncio.get_running_loop().create_server(Heard, sock=listening)
    async with server:
        _, writer = await asyncio.open_connection(HOST, listening.getsockname()[1])
        accepted = (await made).get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), "40 ms for each answer"
        writer.close()
        await writer.wait_closed()
        (await made).close()
