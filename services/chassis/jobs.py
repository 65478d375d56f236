"""Door 3: what happens because a moment passed. The only loop and the only wait outside the relay.

A job asks the clock, then the state: is it time, and is it still true? It does what is due and answers when it
must run next. So a moment that was missed while the process was down is made up for at its start.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zlib import crc32

import asyncpg
import structlog

from services.chassis.cause import Cause, bind_cause
from services.chassis.clock import Clock
from services.chassis.db import driver_url
from services.chassis.telemetry import JOB_ELSEWHERE, JOB_FAILURES, JOB_SECONDS

log = structlog.get_logger(__name__)

_LOCK_SPACE = 0x6B77  # keeps job locks apart from any other advisory lock of the database
_LONGEST_WAIT = 60.0  # real seconds
# A virtual clock may be moved between our reading it and falling asleep: look again soon.
_LONGEST_VIRTUAL_WAIT = 0.25
_AFTER_FAILURE = (0.5, 1.0, 2.0, 5.0, 15.0)  # real seconds, the last for ever


@dataclass(eq=False)
class Job:
    """Something that time does.

    `run` does what is due now and returns the moment of its next turn, or None: only when woken, or after
    `every` at the latest (a safety net for what another process left behind). An exclusive job runs in one
    process of the service at a time. `pace` is the least real time between the starts of two runs: wake-ups that
    come sooner are gathered into one. Who `looks` is woken by nobody: it finds new moments when `every` has passed.
    `finds`: whether something lies there that nobody tells it of; asked only when somebody waits for rest.
    """

    name: str
    run: Callable[[], Awaitable[datetime | None]]
    every: timedelta
    exclusive: bool = True
    pace: timedelta = timedelta(0)
    looks: bool = False
    finds: Callable[[], bool] | None = None
    due_at: datetime | None = field(default=None, init=False)
    running: bool = field(default=False, init=False)
    runs: int = field(default=0, init=False)
    ending: bool = field(default=False, init=False)
    """The process wants to end: a long run comes to an end as soon as it can."""
    _awake: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _hurried: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def wake(self) -> None:
        """Something may be due: run soon. Use as `uow.after_commit(job.wake)`."""
        self._awake.set()

    def wake_for(self, at: datetime) -> None:
        """Something is due then: run soon, unless it runs by then anyway. Whoever asks when this is due must not miss it."""
        if self.due_at is None or at < self.due_at:
            self._awake.set()

    def hurry(self) -> None:
        """Somebody waits for what is gathered: do not wait out the pace."""
        self._hurried.set()

    async def keep_pace(self, seconds: float) -> None:
        """Gather wake-ups for so long, or until hurried."""
        self._hurried.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurried.wait(), seconds)

    @property
    def awake(self) -> asyncio.Event:
        """Set while a run is asked for."""
        return self._awake

    def moves(self, now: datetime) -> bool:
        """Whether it runs, is asked to, or is due."""
        return self.running or self._awake.is_set() or (self.due_at is not None and self.due_at <= now)


class Jobs:
    """Runs a service's jobs until it is stopped."""

    def __init__(self, jobs: Sequence[Job], *, clock: Clock, database_url: str) -> None:
        self.jobs = tuple(jobs)
        self._clock = clock
        self._dsn = driver_url(database_url)
        self._stopping = asyncio.Event()
        self._locks: asyncpg.Connection[asyncpg.Record] | None = None
        self._locking = asyncio.Lock()
        self._looked_at: object = None

    def hurry(self, progress: object | None = None) -> bool:
        """Somebody waits for rest: no pace is waited out, and who only looks does so once for each progress of the service.

        Returns whether anybody was woken for it."""
        for job in self.jobs:
            job.hurry()
            if job.finds is not None and not job.running and job.finds():
                job.wake()
        if progress is None or progress == self._looked_at:
            return False
        self._looked_at = progress
        lookers = [job for job in self.jobs if job.looks]
        for job in lookers:
            job.wake()
        return bool(lookers)

    def stop(self) -> None:
        """Let every job finish its run, then end."""
        self._stopping.set()
        for job in self.jobs:
            job.ending = True
            job.hurry()
            job.wake()

    async def run(self) -> None:
        """Run them all."""
        try:
            await asyncio.gather(*(self._keep(job) for job in self.jobs))
        finally:
            if self._locks is not None:
                with contextlib.suppress(Exception):
                    await self._locks.close(timeout=2)

    async def _keep(self, job: Job) -> None:
        failures = 0
        job.wake()
        while not self._stopping.is_set():
            await self._wait(job)
            if self._stopping.is_set():
                return
            job.running = True
            job.awake.clear()
            started = time.monotonic()
            try:
                job.due_at = await self._once(job)
                failures = 0
                if (early := started + job.pace.total_seconds() - time.monotonic()) > 0:
                    job.running = False
                    await job.keep_pace(early)
            except Exception as error:
                JOB_FAILURES.labels(job.name).inc()
                log.exception("job-failed", job=job.name, error=type(error).__name__)
                pause = _AFTER_FAILURE[min(failures, len(_AFTER_FAILURE) - 1)]
                failures += 1
                job.due_at = self._clock.now()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)
            finally:
                job.running = False

    async def _wait(self, job: Job) -> None:
        """Until woken, or due by the clock, or `every` has passed on the real clock."""
        latest = time.monotonic() + job.every.total_seconds()
        longest = _LONGEST_VIRTUAL_WAIT if self._clock.virtual else _LONGEST_WAIT
        while not job.awake.is_set():
            left = latest - time.monotonic()
            if job.due_at is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(job.awake.wait(), max(left, 0))
                return
            left = min(left, (job.due_at - self._clock.now()).total_seconds())
            if left <= 0:
                return
            sleeper = asyncio.ensure_future(self._clock.sleep(min(left, longest)))
            waker = asyncio.ensure_future(job.awake.wait())
            await asyncio.wait({sleeper, waker}, return_when=asyncio.FIRST_COMPLETED)
            for task in (sleeper, waker):
                task.cancel()
            await asyncio.gather(sleeper, waker, return_exceptions=True)

    async def _once(self, job: Job) -> datetime | None:
        cause = Cause.fresh(causation_id=f"job:{job.name}")
        bind_cause(cause)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(job=job.name, correlation_id=cause.correlation_id)
        if not job.exclusive:
            return await self._timed(job)
        key = crc32(job.name.encode()) & 0x7FFFFFFF
        if not await self._lock("select pg_try_advisory_lock($1, $2)", key):
            # Another process of this service has it; look again when the safety net says so.
            JOB_ELSEWHERE.labels(job.name).inc()
            return None
        try:
            return await self._timed(job)
        finally:
            await self._lock("select pg_advisory_unlock($1, $2)", key)

    async def _timed(self, job: Job) -> datetime | None:
        with JOB_SECONDS.labels(job.name).time():
            due = await job.run()
        job.runs += 1
        return due

    async def _lock(self, statement: str, key: int) -> bool:
        """Session locks on a connection of their own: they die with the process, not with a transaction."""
        async with self._locking:
            try:
                if self._locks is None or self._locks.is_closed():
                    self._locks = await asyncpg.connect(self._dsn, timeout=5, command_timeout=10)
                return bool(await self._locks.fetchval(statement, _LOCK_SPACE, key))
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                if self._locks is not None:
                    self._locks.terminate()
                self._locks = None
                raise
