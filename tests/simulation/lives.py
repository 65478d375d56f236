"""Processes that die, databases that fail, transactions that meet, inside one process: every task knows whose life it belongs to.

A crash is an exception that nothing catches, raised at one of the chassis' named crash points; all tasks of that life end
with it, as a process takes its threads along. A failure is the driver's own exception, in the place of a statement or after a
commit whose answer got lost. Two actions are interleaved at their statements: each waits before every one.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple
from unittest.mock import patch

import asyncpg

from services.chassis import consuming, crash, db
from services.chassis.db import UnitOfWork
from services.chassis.jobs import Jobs
from services.notification.handlers import delivery
from services.payment.handlers import recovering, refunding, settling, till

_LIFE: ContextVar[Life | None] = ContextVar("life", default=None)
_PROBABLY_WAITS = 0.002  # real seconds after which the database is asked whether a statement waits for a lock
_MOST_PATIENCE = 0.016  # and after which it is asked again
_BLOCKED = """
select count(*) from pg_stat_activity
where wait_event_type = 'Lock' and datname = any($1::text[]) and state = 'active'
"""


class Crashed(BaseException):
    """The process died here. Not an Exception: nothing in a service may catch it."""


class Fate(Enum):
    """What became of an action."""

    LIVED = "lived"
    DIED = "died"
    FAILED = "failed"
    """By the failure that was meant for it: whoever began it has to look again."""


class Failure(NamedTuple):
    """The database fails this action: its `turn`th statement, or the answer to its `turn`th commit is lost."""

    commit: bool
    turn: int


class TooLong(Exception):
    """An action did not end: a bug of the simulation or a real deadlock that the database does not see."""


@dataclass(eq=False)
class Life:
    """One action of one process, while it runs."""

    gated: bool = False
    failure: Failure | None = None
    failed: str = ""
    error: Exception | None = None
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever it comes to its gate or ends."""
    at_gate: bool = False
    statements: int = 0
    commits: int = 0
    one_by_one: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Of what its tasks do several times at once elsewhere."""

    async def turn(self) -> None:
        """Wait until it is this life's turn."""
        if self.gated:
            # Whoever lets it on says that it is there no longer: another task of it may have come here before this one wakes up.
            self.at_gate = True
            self.gate.clear()
            self.moved.set()
            await self.gate.wait()

    async def before_statement(self) -> None:
        """Its turn, at which it may fail."""
        await self.turn()
        self.statements += 1
        if self.failure == (False, self.statements):
            self._fail("statement failed", asyncpg.DeadlockDetectedError("simulated"))

    def after_commit(self) -> None:
        """The database has it, and may not be able to say so."""
        self.commits += 1
        if self.failure == (True, self.commits):
            self._fail("answer to a commit lost", asyncpg.ConnectionDoesNotExistError("simulated"))

    def _fail(self, what: str, error: Exception) -> None:
        self.failed, self.error = what, error
        raise error

    def is_meant(self, error: BaseException) -> bool:
        """Whether an exception is what this failure led to, perhaps by way of another service that could not answer."""
        if self.failed and isinstance(error, ConnectionError):
            return True
        following: BaseException | None = error
        while following is not None:
            if following is self.error:
                return True
            if isinstance(following, BaseExceptionGroup):
                return all(map(self.is_meant, following.exceptions))
            following = following.__cause__ or following.__context__
        return False


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
            await before_statement()
            return await run(uow, statement, *args)

        return passed

    locking = Jobs._lock

    async def lock(jobs: Jobs, statement: str, key: int) -> bool:
        await at_gate()
        return await locking(jobs, statement, key)

    giving_back = refunding.Refunds._one

    async def give_back(refunds: refunding.Refunds, _places: asyncio.Semaphore, refund: Any) -> None:
        async with (_LIFE.get() or Life()).one_by_one:
            await giving_back(refunds, _places, refund)

    ended = asyncpg.transaction.Transaction.__aexit__

    async def ending(transaction: Any, kind: Any, error: Any, trace: Any) -> Any:
        # The statements are done: others may still come before the commit. Who fails or dies is not held up.
        if kind is None:
            await at_gate()
        answer = await ended(transaction, kind, error, trace)
        if kind is None and not transaction._readonly and (life := _LIFE.get()) is not None:
            life.after_commit()
        return answer

    loop = asyncio.get_running_loop()
    loop.set_task_factory(_tagging)  # type: ignore[arg-type]  # the stubs want the factory of a newer Python
    with (
        patch.object(crash, "_die", raise_crashed),
        patch.object(UnitOfWork, "sql", gated(UnitOfWork.sql)),
        patch.object(UnitOfWork, "changed", gated(UnitOfWork.changed)),
        patch.object(asyncpg.transaction.Transaction, "__aexit__", ending),
        patch.object(Jobs, "_lock", lock),
        # On a busy machine a turn takes long: that nobody gets tired of waiting must not be the machine's to say.
        patch.dict(db.SESSION_SETTINGS, {"lock_timeout": "60s"}),
        patch.object(db, "_CONNECTION_WITHIN", 60.0),
        patch.object(delivery, "HELD", math.inf),
        patch.object(settling, "AT_ONCE", 1),
        patch.object(recovering, "AT_ONCE", 1),
        patch.object(refunding.Refunds, "_one", give_back),
        # Nobody waits behind another's transaction: each comes to the database by itself.
        patch.object(till, "WRITERS", 1 << 30),
        patch.object(consuming, "_BACKOFF", (0.0,) * len(consuming._BACKOFF)),
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
    death, before = Death(), (crash._name, crash._left)
    crash._name, crash._left = death if turn else "", turn  # type: ignore[assignment]  # equal to every name
    try:
        yield death
    finally:
        crash._name, crash._left = before


async def at_gate() -> None:
    """Wait for a turn: before a commit, before something outside is asked."""
    if (life := _LIFE.get()) is not None:
        await life.turn()


async def before_statement() -> None:
    """Wait for a turn; the database may fail now."""
    if (life := _LIFE.get()) is not None:
        await life.before_statement()


def is_interleaved() -> bool:
    """Whether this action takes turns with another one."""
    life = _LIFE.get()
    return life is not None and life.gated


class GatedConnection:
    """A driver's connection whose every call waits for its turn, for what works below units of work."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        async def call(*args: object) -> Any:
            await before_statement()
            return await getattr(self._connection, name)(*args)

        return call


async def live(action: Callable[[], Awaitable[None]], failure: Failure | None = None) -> tuple[Fate, str]:
    """Run it to its end: what became of it, and which failure it met."""
    life = Life(failure=failure)
    return await _end_of(life, _begin(life, action)), life.failed


def _begin(life: Life, action: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    async def lived() -> None:
        await action()

    token = _LIFE.set(life)
    try:
        return asyncio.get_running_loop().create_task(lived())
    finally:
        _LIFE.reset(token)


async def _end_of(life: Life, task: asyncio.Task[None]) -> Fate:
    if not task.done() and not (await asyncio.wait((task,), timeout=90))[0]:
        raise TooLong("an action did not end within 90 s")
    error = None if task.cancelled() else task.exception()
    if error is None and not task.cancelled():
        return Fate.LIVED
    if error is not None and not _is_crash(error):
        if life.is_meant(error):
            return Fate.FAILED
        raise error
    # A process takes all its tasks along.
    while life.tasks:
        for left in list(life.tasks):
            left.cancel()
        await asyncio.wait(set(life.tasks))
    return Fate.DIED


def _died(task: asyncio.Task[None]) -> bool:
    if not task.done() or task.cancelled():
        return False
    error = task.exception()
    return error is not None and _is_crash(error)


def _is_crash(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_is_crash(one) for one in error.exceptions)
    return isinstance(error, Crashed)


@dataclass(eq=False)
class Doing:
    """Something to be done, in which process, and how it went."""

    run: Callable[[], Awaitable[None]]
    process: object
    failure: Failure | None = None
    fate: Fate | None = None
    failed: str = ""


class _Going(NamedTuple):
    doing: Doing
    life: Life
    task: asyncio.Task[None]

    async def end(self) -> None:
        self.doing.fate, self.doing.failed = await _end_of(self.life, self.task), self.life.failed


class Interleaver:
    """Lets actions take turns, statement by statement, as chance says. `databases`: where they may wait for each other."""

    def __init__(self, observer: asyncpg.Connection[Any], databases: list[str]) -> None:
        self._observer, self._databases = observer, databases
        self._tired = False
        self.met = 0
        """How often one had to wait for a row that the other held."""

    async def together(
        self,
        turn_of: Callable[[int], int],
        first: Doing,
        others: Callable[[], Doing | None],
        *,
        between: Callable[[], Awaitable[None]],
    ) -> None:
        """The first to its end, and meanwhile others, one after the other, each to its end; `fate` says how each went.

        Those of one process die together, wherever they stand. `turn_of` says which of so many goes on, 0 being the first;
        `between` comes before every turn: what happens while all stand still.
        """
        moved = asyncio.Event()
        going = [self._start(first, moved)]
        is_open = True
        try:
            while going:
                if is_open and len(going) == 1:
                    other = others()
                    is_open = other is not None
                    if other is not None:
                        going.append(self._start(other, moved))
                await self._settle(moved, going)
                dead = {one.doing.process for one in going if _died(one.task)}
                for one in going:
                    if one.doing.process in dead and not one.task.done():
                        one.life.gated = False  # nobody gives it another turn
                        one.task.cancel()
                        await asyncio.wait({one.task})
                if done := [one for one in going if one.task.done()]:
                    for one in done:
                        going.remove(one)
                        await one.end()
                    is_open = is_open and bool(going) and going[0].doing is first
                    continue
                if waiting := [one for one in going if one.life.at_gate]:
                    await between()
                    turn = waiting[turn_of(len(waiting)) if len(waiting) > 1 else 0]
                    turn.life.at_gate = False
                    turn.life.gate.set()
        except BaseException:
            for one in going:
                one.task.cancel()
            raise
        finally:
            for one in going:
                one.life.gated = False
                one.life.gate.set()

    @staticmethod
    def _start(doing: Doing, moved: asyncio.Event) -> _Going:
        life = Life(gated=True, failure=doing.failure, moved=moved)
        task = _begin(life, doing.run)
        task.add_done_callback(lambda _: moved.set())
        return _Going(doing, life, task)

    async def _settle(self, moved: asyncio.Event, both: list[_Going]) -> None:
        """Until each is at its gate, done, or waits for the other inside the database."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 60
        patience = _PROBABLY_WAITS
        while True:
            moved.clear()
            going = [one for one in both if not one.task.done()]
            running = [one for one in going if not one.life.at_gate]
            if not running:
                return
            self._tired = False
            timer = loop.call_later(patience, self._tire, moved)
            await moved.wait()
            timer.cancel()
            if not self._tired:
                continue
            # Whoever holds what is waited for stands at its gate: it has to be let on.
            if len(running) < len(going) and await self._observer.fetchval(_BLOCKED, self._databases):
                self.met += 1
                return
            patience = min(2 * patience, _MOST_PATIENCE)  # only slow, as on a busy machine
            if loop.time() > deadline:
                raise TooLong("two interleaved actions do not move")

    def _tire(self, moved: asyncio.Event) -> None:
        self._tired = True
        moved.set()
