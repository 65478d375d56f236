"""Processes that die, and transactions that meet, inside one process: every task knows whose life it belongs to.

A crash is an exception that nothing catches, raised at one of the chassis' named crash points; all tasks of that life end
with it, as a process takes its threads along. Two actions are interleaved at their statements: each waits before every one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import asyncpg

from services.chassis import crash
from services.chassis.db import UnitOfWork
from services.payment.handlers import settling
from tests.simulation.chance import Chance

_LIFE: ContextVar[Life | None] = ContextVar("life", default=None)
_PROBABLY_WAITS = 0.002  # real seconds after which the database is asked whether a statement waits for a lock
_BLOCKED = """
select count(*) from pg_stat_activity
where wait_event_type = 'Lock' and datname = any($1::text[]) and state = 'active'
"""


class Crashed(BaseException):
    """The process died here. Not an Exception: nothing in a service may catch it."""


class TooLong(Exception):
    """An action did not end: a bug of the simulation or a real deadlock that the database does not see."""


@dataclass(eq=False)
class Life:
    """One action of one process, while it runs."""

    gated: bool = False
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever it comes to its gate or ends."""
    at_gate: bool = False
    statements: int = 0

    async def before_statement(self) -> None:
        """Wait until it is this life's turn."""
        self.statements += 1
        if self.gated:
            self.at_gate = True
            self.gate.clear()
            self.moved.set()
            await self.gate.wait()
            self.at_gate = False


def _tagging(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **more: Any
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **more)
    if (life := _LIFE.get()) is not None:
        life.tasks.add(task)
        task.add_done_callback(life.tasks.discard)
    return task


@contextlib.contextmanager
def simulated() -> Iterator[None]:
    """Crash points raise, statements and ends of transactions pass a gate, tasks know their life.

    What one action does several times at once elsewhere, it does one after the other here: which of them the database answers
    first is not the seed's to say.
    """

    def raise_crashed() -> None:
        raise Crashed

    def gated(run: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def passed(uow: UnitOfWork, statement: str, *args: object) -> Any:
            await at_gate()
            return await run(uow, statement, *args)

        return passed

    ended = asyncpg.transaction.Transaction.__aexit__

    async def ending(transaction: Any, kind: Any, error: Any, trace: Any) -> Any:
        # The statements are done: others may still come before the commit. Who fails or dies is not held up.
        if kind is None:
            await at_gate()
        return await ended(transaction, kind, error, trace)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(_tagging)  # type: ignore[arg-type]  # the stubs want the factory of a newer Python
    with (
        patch.object(crash, "_die", raise_crashed),
        patch.object(UnitOfWork, "sql", gated(UnitOfWork.sql)),
        patch.object(UnitOfWork, "changed", gated(UnitOfWork.changed)),
        patch.object(asyncpg.transaction.Transaction, "__aexit__", ending),
        patch.object(settling, "AT_ONCE", 1),
    ):
        try:
            yield
        finally:
            loop.set_task_factory(None)


class Death:
    """Stands in the place of a crash point's name and is every one of them: `at` is the last that was reached."""

    def __init__(self) -> None:
        self.at = ""

    def __ne__(self, name: object) -> bool:
        self.at = str(name)
        return False

    __hash__ = None  # type: ignore[assignment]  # not to be looked up by


@contextlib.contextmanager
def armed(turn: int) -> Iterator[Death]:
    """Whoever comes to the crash point of this turn, counted over all of them, dies there. 0: nobody."""
    death = Death()
    with patch.object(crash, "_name", death if turn else ""), patch.object(crash, "_left", turn):
        yield death


async def at_gate() -> None:
    """Wait for a turn: before a statement, before a commit, before something outside is asked."""
    if (life := _LIFE.get()) is not None:
        await life.before_statement()


async def live(action: Callable[[], Awaitable[None]]) -> bool:
    """Run it to its end. False: it died on the way, with everything it had begun."""
    life = Life()
    return await _end_of(life, _begin(life, action))


def _begin(life: Life, action: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    async def lived() -> None:
        await action()

    token = _LIFE.set(life)
    try:
        return asyncio.get_running_loop().create_task(lived())
    finally:
        _LIFE.reset(token)


async def _end_of(life: Life, task: asyncio.Task[None]) -> bool:
    try:
        async with asyncio.timeout(30):
            await asyncio.wait({task})
    except TimeoutError:
        raise TooLong("an action did not end within 30 s") from None
    error = None if task.cancelled() else task.exception()
    if error is None and not task.cancelled():
        return True
    if error is not None and not _is_crash(error):
        raise error
    while life.tasks:
        for left in list(life.tasks):
            left.cancel()
        await asyncio.wait(set(life.tasks))
    return False


def _died(task: asyncio.Task[None]) -> bool:
    if not task.done() or task.cancelled():
        return False
    error = task.exception()
    return error is not None and _is_crash(error)


def _is_crash(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_is_crash(one) for one in error.exceptions)
    return isinstance(error, Crashed)


class Interleaver:
    """Lets two actions take turns, statement by statement, as chance says. `databases`: where they may wait for each other."""

    def __init__(self, observer: asyncpg.Connection[Any], databases: list[str]) -> None:
        self._observer, self._databases = observer, databases
        self.met = 0
        """How often one had to wait for a row that the other held."""

    async def both(
        self,
        chance: Chance,
        first: Callable[[], Awaitable[None]],
        second: Callable[[], Awaitable[None]],
        *,
        one_process: bool,
    ) -> tuple[bool, bool]:
        """Both to their ends; for each, whether it lived. Two of one process die together, wherever the other stands."""
        moved = asyncio.Event()
        lives = [Life(gated=True, moved=moved), Life(gated=True, moved=moved)]
        tasks = [_begin(life, action) for life, action in zip(lives, (first, second), strict=True)]
        for task in tasks:
            task.add_done_callback(lambda _: moved.set())
        try:
            while not all(task.done() for task in tasks):
                await self._settle(moved, lives, tasks)
                if one_process and any(map(_died, tasks)):
                    for task in tasks:
                        task.cancel()
                    break
                waiting = [life for life in lives if life.at_gate]
                if not waiting:
                    continue
                life = chance.pick(waiting) if len(waiting) > 1 else waiting[0]
                life.at_gate = False
                life.gate.set()
        finally:
            for life in lives:
                life.gated = False
                life.gate.set()
        one, other = [await _end_of(life, task) for life, task in zip(lives, tasks, strict=True)]
        return one, other

    async def _settle(self, moved: asyncio.Event, lives: list[Life], tasks: list[asyncio.Task[None]]) -> None:
        """Until each is at its gate, done, or waits for the other inside the database."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 20
        while True:
            moved.clear()
            going = [life for life, task in zip(lives, tasks, strict=True) if not task.done()]
            running = [life for life in going if not life.at_gate]
            if not running:
                return
            try:
                async with asyncio.timeout(_PROBABLY_WAITS):
                    await moved.wait()
            except TimeoutError:
                # Whoever holds what is waited for stands at its gate: it has to be let on.
                if len(running) < len(going) and await self._observer.fetchval(_BLOCKED, self._databases):
                    self.met += 1
                    return
            if loop.time() > deadline:
                raise TooLong("two interleaved actions do not move")
