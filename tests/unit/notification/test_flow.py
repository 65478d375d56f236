"""Messages on their way: none is left waiting by chance, none goes on after the run was left."""

from __future__ import annotations

import asyncio

from services.notification.handlers.flow import Flow


async def test_what_is_put_between_a_senders_end_and_its_being_noticed_goes_too() -> None:
    sent: list[int] = []

    async def send(message: int) -> int:
        sent.append(message)
        return message

    async with Flow(send, 2) as flow:
        flow.put([1, 2])
        # One turn of the loop: both senders have ended, nobody has noticed.
        await asyncio.sleep(0)
        flow.put([3, 4, 5])
        async with asyncio.timeout(5):
            while not flow.idle:
                await flow.moves()
    assert sent == [1, 2, 3, 4, 5]


async def test_after_it_was_left_nothing_goes_on() -> None:
    sent: list[int] = []
    gate = asyncio.Event()

    async def send(message: int) -> int:
        await gate.wait()
        sent.append(message)
        return message

    async with Flow(send, 2) as flow:
        flow.put(range(6))
        await asyncio.sleep(0)
    gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert sent == []
