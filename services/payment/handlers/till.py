"""Payments that are told of at the same time are taken in together: one transaction for all that wait, none waits for more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import asyncpg

from services.payment.repository.receipts import Receipt

WRITERS: Final = 2  # transactions at a time: while one is written to the disk another is made
TOGETHER: Final = 64

Write = Callable[[Sequence[Receipt]], Awaitable[frozenset[int]]]


@dataclass(eq=False)
class _Waiting:
    receipt: Receipt
    # True or False: whether it was taken. None: it is this one's turn to write, for all who wait.
    told: asyncio.Future[bool | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Till:
    """Whoever comes and finds nobody writing writes at once; whoever comes meanwhile is in the next transaction."""

    def __init__(self, write: Write) -> None:
        """`write` takes in what is plain of several, no two of one order, and says which; after its commit."""
        self._write = write
        self._waiting: list[_Waiting] = []
        self._writing = 0

    async def take(self, receipt: Receipt) -> bool:
        """Whether it was plain and is now in the book. False: nothing was written of it, it has to be considered alone."""
        mine = _Waiting(receipt)
        self._waiting.append(mine)
        if self._writing < WRITERS:
            self._writing += 1
        else:
            try:
                told = await mine.told
            except asyncio.CancelledError:
                self._gone(mine)
                raise
            if told is not None:
                return told
        return await self._write_for_all(mine)

    async def _write_for_all(self, mine: _Waiting) -> bool:
        together = self._next(mine)
        taken: frozenset[int] = frozenset()
        failure: Exception | None = None
        try:
            taken = await self._write([one.receipt for one in together])
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
            # Something of one of them cannot be stored: each alone, so that only that one fails.
            pass
        except Exception as error:
            failure = error
            raise
        finally:
            # Who writes may have been cancelled: then the others consider theirs alone, which does everything once.
            for place, one in enumerate(together):
                if one.told.done():
                    continue
                if failure is not None and one is not mine:
                    one.told.set_exception(failure)
                else:
                    one.told.set_result(place in taken)
            self._pass_on()
        return 0 in taken

    def _next(self, mine: _Waiting) -> list[_Waiting]:
        """Mine first, then whoever waits longest; of one order only one."""
        found = {mine.receipt.success.order_no: mine}
        for one in self._waiting:
            if len(found) == TOGETHER:
                break
            if not one.told.done():  # else it is about to write itself
                found.setdefault(one.receipt.success.order_no, one)
        together = list(found.values())
        left = set(map(id, together))
        self._waiting = [one for one in self._waiting if id(one) not in left]
        return together

    def _pass_on(self) -> None:
        for one in self._waiting:
            if not one.told.done():
                one.told.set_result(None)
                return
        self._writing -= 1

    def _gone(self, mine: _Waiting) -> None:
        if mine in self._waiting:
            self._waiting.remove(mine)
        told = mine.told
        if told.done() and not told.cancelled() and told.exception() is None and told.result() is None:
            self._pass_on()  # it was its turn
