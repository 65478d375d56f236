"""One service as one process: two listeners, broker, relay and jobs, started and stopped in the right order.

The public listener is for people and gateways. The internal one is for operators and the other services, and must not be
reachable from outside: /live /ready /metrics /ops/* /internal/*.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from typing import Self
from urllib.parse import urlsplit

import structlog
import uvicorn
from fastapi import APIRouter
from faststream.kafka import KafkaBroker
from starlette.types import ASGIApp

from contracts.cycle import Cycle
from contracts.event import Event
from contracts.refusals import Refused
from services.chassis import memory, migrations, retention
from services.chassis.clock import Clock, RehearsalClock, SystemClock
from services.chassis.clock_guard import ClockGuard
from services.chassis.consuming import BATCH, Consumers, Handler, make_broker
from services.chassis.db import Database
from services.chassis.forgetting import Forgotten, require_memory
from services.chassis.giving_way import Visitors
from services.chassis.http import MAX_BODY, Doorkeeper, make_app
from services.chassis.jobs import Job, Jobs
from services.chassis.operations import operator_routes
from services.chassis.relay import Relay
from services.chassis.settings import ServiceSettings
from services.chassis.telemetry import configure_logging
from services.chassis.tokens import TokenVerifier
from services.chassis.tracing import Tracing
from services.chassis.vault import Vault

log = structlog.get_logger(__name__)


class CannotStart(Exception):
    """Why this process does not start, in one sentence for an operator."""


@dataclass(frozen=True)
class Plumbing:
    """What every composition root gets to build its service from."""

    name: str
    settings: ServiceSettings
    clock: Clock
    database: Database
    vault: Vault
    tokens: TokenVerifier
    cycle: Cycle
    guard: ClockGuard
    visitors: Visitors = field(default_factory=Visitors)

    @classmethod
    def of(cls, settings: ServiceSettings) -> Self:
        """Open keys, cycle and pools; nothing is connected yet. Raises what is wrong with them."""
        clock: Clock = RehearsalClock(settings.clock_file) if settings.clock_file else SystemClock()
        if clock.virtual:
            _refuse_real_endpoints(settings)
        if not settings.broker_has_clock and settings.environment != "local":
            raise CannotStart(
                "a broker without a clock is for the local system only: the close compares three clocks"
            )
        name = settings.service
        return cls(
            name=name,
            settings=settings,
            clock=clock,
            database=Database(
                settings.database_url, clock=clock, pool_size=settings.database_pool_size, application=name
            ),
            vault=Vault.open(settings.vault_keys_file, settings.environment),
            tokens=TokenVerifier.open(settings.token_keys_file),
            cycle=Cycle.read(settings.cycle_file),
            guard=ClockGuard(
                clock,
                settings.database_url,
                settings.kafka_bootstrap_servers,
                broker_has_clock=settings.broker_has_clock,
            ),
        )


def _refuse_real_endpoints(settings: ServiceSettings) -> None:
    """Virtual time would date real orders and messages wrongly: only this machine's simulators may be spoken to."""
    if settings.environment != "local":
        raise CannotStart("a virtual clock is for the local system only (environment = local)")
    for endpoint in settings.external_endpoints():
        host = urlsplit(endpoint).hostname if "//" in endpoint else endpoint.rpartition(":")[0] or endpoint
        with contextlib.suppress(ValueError):
            if host == "localhost" or (host and ip_address(host).is_loopback):
                continue
        raise CannotStart(f"a virtual clock refuses to start with a real gateway or carrier ({host})")


class Process:
    """A service, put together by its app.py and run by the chassis' command line."""

    def __init__(
        self,
        plumbing: Plumbing,
        *,
        public: Sequence[APIRouter] = (),
        internal: Sequence[APIRouter] = (),
        handlers: Mapping[type[Event], Handler] | None = None,
        deps: Mapping[str, object] | None = None,
        batch: int = BATCH,
        jobs: Sequence[Job] = (),
        resources: Sequence[AbstractAsyncContextManager[object]] = (),
        max_body: int = MAX_BODY,
        too_large: Refused | None = None,
    ) -> None:
        self.plumbing = plumbing
        settings = plumbing.settings
        self.tracing = Tracing(plumbing.name, settings.otlp_endpoint)
        self.consumers = Consumers(
            handlers or {},
            database=plumbing.database,
            service=plumbing.name,
            deps=deps,
            tracing=self.tracing,
            pace=settings.pace_seconds,
            batch=batch,
        )
        self.relay = Relay(
            settings.database_url,
            settings.kafka_bootstrap_servers,
            service=plumbing.name,
            pace=settings.pace_seconds,
            before_leading=self._require_memory,
        )
        plumbing.database.on_events = self.relay.wake
        self.jobs = Jobs(jobs, clock=plumbing.clock, database_url=settings.database_url)
        old = retention.make_job(plumbing.database, plumbing.clock, plumbing.cycle, settings.outbox_days)
        # Apart from the service's own: whether a service is at rest does not depend on it.
        self.housekeeping = Jobs([old], clock=plumbing.clock, database_url=settings.database_url)
        self.broker: KafkaBroker = make_broker(settings.kafka_bootstrap_servers, service=plumbing.name)
        self.consumers.subscribe(self.broker, group_instance_id=settings.group_instance_id)
        self.resources = tuple(resources)
        self._forgotten: Forgotten | None = None
        self._end: Callable[[], None] = lambda: None
        doorkeeper = Doorkeeper(plumbing.tokens, plumbing.clock)
        self.public = make_app(
            plumbing.name,
            public,
            doorkeeper,
            max_body=max_body,
            too_large=too_large,
            tracing=self.tracing,
            visitors=plumbing.visitors,
        )
        self.internal = make_app(
            f"{plumbing.name} (internal)",
            [operator_routes(self), *internal],
            doorkeeper,
            tracing=self.tracing,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything but the listeners. Started in the order of need, stopped in reverse."""
        await self._patiently("PostgreSQL", self._check_database)
        async with AsyncExitStack() as stack:
            stack.callback(self.tracing.close)
            stack.push_async_callback(self.plumbing.database.dispose)
            for resource in self.resources:
                await stack.enter_async_context(resource)
            await self._patiently("Kafka", self._require_memory)
            await self._patiently("Kafka", self.broker.start)
            relay = asyncio.create_task(self.relay.run(), name="relay")
            relay.add_done_callback(self._relay_ended)
            stack.push_async_callback(_ended, relay, self.relay.stop)
            # Handlers under way still need the database, so the broker goes first on the way down.
            stack.push_async_callback(self.broker.stop)
            for jobs in (self.housekeeping, self.jobs):
                stack.push_async_callback(_ended, asyncio.create_task(jobs.run(), name="jobs"), jobs.stop)
            log.info("started", fingerprint=self.plumbing.cycle.fingerprint, cycle_id=self.plumbing.cycle.id)
            yield
        log.info("stopped")

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises CannotStart."""
        configure_logging(self.plumbing.name, self.plumbing.settings.log_format, self.plumbing.clock.now)
        memory.settle()
        settings = self.plumbing.settings
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with self.running():
            servers = [
                _server(self.public, settings.host, settings.public_port),
                _server(self.internal, settings.host, settings.internal_port),
            ]
            serving = [asyncio.create_task(server.serve()) for server in servers]
            ending = asyncio.create_task(stop.wait())
            self._end = stop.set
            done, _ = await asyncio.wait({*serving, ending}, return_when=asyncio.FIRST_COMPLETED)
            for server in servers:
                server.should_exit = True
            await asyncio.gather(*serving, return_exceptions=True)
            ending.cancel()
            if ending not in done:
                raise CannotStart("a listener ended: is its port taken?")
        if self._forgotten is not None:
            raise CannotStart(str(self._forgotten))

    async def _require_memory(self) -> None:
        """Raises Forgotten. Asked before anything is done, and again whenever the relay has found its database anew."""
        settings = self.plumbing.settings
        if settings.broker_has_clock:  # the last resort's broker forgets as well
            await require_memory(
                self.plumbing.name,
                settings.database_url,
                settings.kafka_bootstrap_servers,
                now=self.plumbing.clock.real_now(),
                kept=timedelta(days=settings.outbox_days),
            )

    def _relay_ended(self, relay: asyncio.Task[None]) -> None:
        error = None if relay.cancelled() else relay.exception()
        if isinstance(error, Forgotten):
            log.critical("forgotten", reason=str(error))
            self._forgotten = error
            self._end()

    async def _check_database(self) -> None:
        await migrations.require_current(self.plumbing.database.url, self.plumbing.name)

    async def _patiently(self, what: str, start: Callable[[], Awaitable[object]]) -> None:
        """Try for a bounded time; then end, so that whoever supervises this process sees it and starts it again."""
        patience = self.plumbing.settings.start_patience_seconds
        deadline = asyncio.get_running_loop().time() + patience
        pause = 0.2
        while True:
            try:
                await start()
                return
            except (migrations.NotMigrated, Forgotten) as error:
                raise CannotStart(str(error)) from None
            except Exception as error:
                if asyncio.get_running_loop().time() + pause > deadline:
                    raise CannotStart(
                        f"{what} cannot be reached after {patience:.0f} s ({type(error).__name__}): "
                        "check its address in the environment, and that it runs"
                    ) from None
                log.warning("waiting", what=what, error=type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 3.0)


async def _ended(task: asyncio.Task[None], stop: Callable[[], None]) -> None:
    stop()
    with contextlib.suppress(TimeoutError, asyncio.CancelledError, Forgotten):
        await asyncio.wait_for(task, 15)


class _Server(uvicorn.Server):
    """Two of them share a process: signals are the process's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: ASGIApp, host: str, port: int) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=10,
        )
    )
