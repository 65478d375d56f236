"""Do three clocks agree? Asked before anything irreversible happens because of the time.

Application, database and broker each have a clock of their own. If one is wrong the others outvote it, and
what was about to happen waits: nobody forfeits because a server's clock jumped. Clocks that agree still differ a little:
`ahead` says by how much this process must wait for the slowest. Compared are the real clocks, beneath any virtual one, so
that a rehearsal is guarded as production is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import structlog
from aiokafka import AIOKafkaProducer

from services.chassis.clock import Clock
from services.chassis.db import driver_url
from services.chassis.telemetry import CLOCK_DISAGREEMENT

log = structlog.get_logger(__name__)

TOLERANCE: Final = timedelta(seconds=5)
_PATIENCE: Final = 60.0  # seconds: a broker that takes five for every answer can still be asked
_TRIES: Final = 5  # of an answer that was so long on its way that it proves nothing
_MILLISECOND: Final = timedelta(milliseconds=1)
CLOCK_TOPIC: Final = "exam.clock"  # its broker stamps records with its own time (LogAppendTime)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """What each clock said, or why one could not be asked."""

    reason: str
    application: datetime
    database: datetime | None
    broker: datetime | None


@dataclass(frozen=True, slots=True)
class Told:
    """What another clock said, between two looks at our own; it leaves out what is smaller than its grain."""

    said: datetime
    asked: datetime
    heard: datetime
    grain: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Readings:
    """Three clocks at one moment of the application's: what the others would have said then."""

    application: datetime
    database: datetime
    broker: datetime


class ClockGuard:
    """Compares the clocks of application, database and broker.

    `broker_has_clock` is false only on the local last resort, whose broker stamps no times: two clocks are compared.
    """

    def __init__(
        self, clock: Clock, database_url: str, bootstrap_servers: str, *, broker_has_clock: bool = True
    ) -> None:
        self._broker_has_clock = broker_has_clock
        self._clock = clock
        self._dsn = driver_url(database_url)
        self._bootstrap = bootstrap_servers
        self.ahead = timedelta(0)
        """How far this process's clock was ahead of the slowest of the others when they were last asked, for certain."""
        self.agreed: Readings | None = None
        """What they said when they last agreed."""

    async def check(self) -> Disagreement | None:
        """None when all three agree within five seconds; otherwise what is wrong. Never raises for a clock
        that is away.
        """
        try:
            async with asyncio.timeout(_PATIENCE):
                database = await self._database_time()
                broker = await self._broker_time() if self._broker_has_clock else database
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            return self._alarm(f"a clock could not be asked: {type(error).__name__}", None, None)
        except Exception as error:  # aiokafka's errors have no common base below Exception
            return self._alarm(f"a clock could not be asked: {type(error).__name__}", None, None)
        furthest = max(
            abs(database.said - database.heard),
            abs(broker.said - broker.heard),
            abs((broker.said - broker.asked) - (database.said - database.asked)),
        )
        CLOCK_DISAGREEMENT.set(furthest.total_seconds())
        if furthest > TOLERANCE:
            return self._alarm("the clocks disagree", database.said, broker.said)
        self.agreed = Readings(
            application=database.heard,
            database=database.said,
            broker=database.heard + (broker.said - broker.heard),
        )
        self.ahead = max(timedelta(0), *(one.asked - one.said - one.grain for one in (database, broker)))
        return None

    def _alarm(self, reason: str, database: datetime | None, broker: datetime | None) -> Disagreement:
        found = Disagreement(reason, self._clock.real_now(), database, broker)
        log.error(
            "clock-guard",
            reason=reason,
            application=found.application.isoformat(),
            database=database and database.isoformat(),
            broker=broker and broker.isoformat(),
        )
        return found

    async def _database_time(self) -> Told:
        connection = await asyncpg.connect(self._dsn, timeout=5, command_timeout=5)
        try:
            asked = self._clock.real_now()
            moment: datetime = await connection.fetchval("select clock_timestamp()")
            return Told(moment, asked, self._clock.real_now())
        finally:
            await connection.close(timeout=2)

    async def _broker_time(self) -> Told:
        producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all")
        await producer.start()
        try:
            told = await self._stamp(producer)
            for _ in range(_TRIES - 1):
                if told.heard - told.asked <= TOLERANCE:
                    break
                told = min(told, await self._stamp(producer), key=lambda one: one.heard - one.asked)
            return told
        finally:
            await producer.stop()

    async def _stamp(self, producer: AIOKafkaProducer) -> Told:
        asked = self._clock.real_now()
        stamped = await producer.send_and_wait(CLOCK_TOPIC, b"{}", partition=0)
        if stamped.timestamp_type != 1:
            raise RuntimeError(f"{CLOCK_TOPIC} is not stamped by the broker: set LogAppendTime")
        moment = datetime.fromtimestamp(stamped.timestamp / 1000, UTC)
        return Told(moment, asked, self._clock.real_now(), grain=_MILLISECOND)
