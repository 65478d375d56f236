"""Makes what runs are played on: four migrated databases on a PostgreSQL of our own, and everything else in memory."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import asyncpg
import structlog

from contracts.cycle import Cycle
from contracts.topics import TOPICS
from deploy.local.databases import SUPERUSER, DatabaseLogin
from deploy.local.postgres import UNSYNCED, EmbeddedPostgres
from deploy.rehearsal.invariants.evidence import Booked
from services.chassis.clock import ClockControl, RehearsalClock
from services.chassis.relay import _PLANNER, Relay
from tests.simulation.broker import SimulatedBroker
from tests.simulation.gateway import SimulatedGateway
from tests.simulation.ids import Ids, drawn_from
from tests.simulation.lives import GatedConnection, Interleaver, simulated
from tests.simulation.outside import SimulatedCarriers
from tests.simulation.services import CYCLE_FILE, ORDER, Services
from tests.support.plays import directory_of_our_own
from tests.support.postgres import TestDatabases

# What a run leaves is thrown away; a deadlock is seen at once instead of after a second. Nobody else may write: a vacuum
# that comes by itself is a transaction in progress, which holds a relay's horizon in one play of a seed and not in the next.
SERVER = {**UNSYNCED, "synchronous_commit": "off", "deadlock_timeout": "20ms", "autovacuum": "off"} | {
    # What costs and is nobody's here: plans for each argument, counters, titles of processes, a log for standbys.
    "plan_cache_mode": "force_generic_plan",
    "track_counts": "off",
    "update_process_title": "off",
    "compute_query_id": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}
_SOCKET: Final = (
    "cluster"  # the folder, which is the server's own: a socket there is cheaper than one of the network
)
_KEPT = ("alembic_version", "relay_cursor")
_TABLES = """
select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'public' and c.relkind in ('r', 'p') and not c.relispartition order by 1
"""


RUNS_A_VACUUM: Final = 50


class Cleaning(NamedTuple):
    """How a database is emptied after each run, in one round trip, and how its space is freed after many."""

    wipe: str
    vacuum: str


@dataclass
class Seat:
    """A relay in one process of a service, and the connection on which it leads or waits."""

    relay: Relay
    connection: Any
    leads: bool = False

    async def may_lead(self) -> bool:
        self.leads = self.leads or await self.relay.may_lead(self.gated)
        return self.leads

    @property
    def gated(self) -> Any:
        return GatedConnection(self.connection)

    async def end(self) -> None:
        """Its process is gone, and its session with it."""
        if self.leads:
            await self.connection.execute("select pg_advisory_unlock_all()")
            self.leads = False


@dataclass
class Stage:
    """What runs are played on, made once: services, clock, broker, outside, and connections to look and to clean."""

    services: Services
    control: ClockControl
    broker: SimulatedBroker
    seats: Mapping[str, tuple[Seat, Seat]]
    """Of each service the relays of its first and its second process."""
    superuser: Mapping[str, Any]
    interleaver: Interleaver
    cleaning: Mapping[str, Cleaning]
    cycle: Cycle
    ids: Ids
    runs: int = 0

    @property
    def gateways(self) -> Mapping[str, SimulatedGateway]:
        return self.services.gateways

    def booked(self) -> list[Booked]:
        """What stands in the gateways' own books."""
        return [one for gateway in self.gateways.values() for one in gateway.booked()]

    @property
    def carriers(self) -> SimulatedCarriers:
        return self.services.carriers

    async def clean(self) -> None:
        """Nothing of an earlier run is left."""
        for name in ORDER:
            for seat in self.seats[name]:
                await seat.end()
            await self.services.let_go(name)
            await self.superuser[name].execute(self.cleaning[name].wipe)
            if self.runs % RUNS_A_VACUUM == RUNS_A_VACUUM - 1:
                await self.superuser[name].execute(self.cleaning[name].vacuum)
        self.runs += 1
        if self.runs % RUNS_A_VACUUM == 0:
            gc.collect()  # nobody else does, see plays.played_on
        self.broker.forget()
        self.services.begin()


@contextlib.asynccontextmanager
async def server(directory: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A PostgreSQL for simulations only."""
    found = EmbeddedPostgres(
        directory, settings={**SERVER, "unix_socket_directories": str(directory / _SOCKET)}
    )
    await found.start()
    try:
        yield found
    finally:
        await found.stop()


@contextlib.asynccontextmanager
async def stage_of_its_own() -> AsyncIterator[Stage]:
    """With a server and a directory of its own."""
    with directory_of_our_own("simulation") as directory:
        async with (
            server(directory / "postgres") as found,
            stage(TestDatabases(found), directory / "stage") as one,
        ):
            yield one


@contextlib.asynccontextmanager
async def stage(databases: TestDatabases, directory: Path) -> AsyncIterator[Stage]:
    """Use it for any number of runs, one after the other."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    directory.mkdir(parents=True, exist_ok=True)
    control = ClockControl(directory / "clock", datetime(2023, 11, 1, tzinfo=UTC))
    clock = RehearsalClock(directory / "clock")
    logins = {name: by_socket(databases.server, await databases.migrated(name)) for name in ORDER}
    gateways = {
        "wechat": SimulatedGateway(clock.now),
        "alipay": SimulatedGateway(clock.now, "alipay", remembers=False),
    }
    services = Services(directory, logins, clock, gateways, SimulatedCarriers(clock.now))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(services.end)
        superuser: dict[str, Any] = {}
        seats: dict[str, tuple[Seat, Seat]] = {}
        for name, login in logins.items():
            superuser[name] = await connected(stack, databases.server, login)
            seats[name] = (await _seated(stack, name, login), await _seated(stack, name, login))
        watching = await connected(stack, databases.server, logins["payment"])
        stack.enter_context(simulated())
        ids = Ids()
        stack.enter_context(drawn_from(ids))
        yield Stage(
            services,
            control,
            SimulatedBroker({topic.name: topic.partitions for topic in TOPICS.values()}),
            seats,
            superuser,
            Interleaver(watching, [login.database for login in logins.values()]),
            {name: await _cleaning(superuser[name]) for name in ORDER},
            Cycle.read(CYCLE_FILE),
            ids,
        )


def by_socket(found: EmbeddedPostgres, login: DatabaseLogin) -> DatabaseLogin:
    return replace(login, host=quote(str(found.directory / _SOCKET), safe=""))


async def _seated(stack: contextlib.AsyncExitStack, name: str, login: DatabaseLogin) -> Seat:
    connection = await asyncpg.connect(login.dsn)
    stack.push_async_callback(connection.close)
    await connection.execute(_PLANNER)
    return Seat(Relay(login.url, "127.0.0.1:9", service=name), connection)


async def connected(
    stack: contextlib.AsyncExitStack, found: EmbeddedPostgres, login: DatabaseLogin
) -> asyncpg.Connection[Any]:
    connection = await asyncpg.connect(by_socket(found, found.login(login.database, SUPERUSER)).dsn)
    stack.push_async_callback(connection.close)
    return connection


async def _cleaning(connection: asyncpg.Connection[Any]) -> Cleaning:
    """Deleting a few rows is much quicker than truncating, for as long as their space is freed now and then.

    A function keeps its plans, and most tables are empty after most runs.
    """
    names = [f'"{row[0]}"' for row in await connection.fetch(_TABLES) if row[0] not in _KEPT]
    deletes = " ".join(f"if exists (select from {name}) then delete from {name}; end if;" for name in names)
    await connection.execute(
        f"""
        create schema simulation;
        create function simulation.wipe() returns void language plpgsql
        set session_replication_role = replica as $$ begin {deletes}
        update public.relay_cursor
        set lower = pg_snapshot_xmin(pg_current_snapshot())::text::xid8, upper = null, last_id = 0;
        end $$
        """
    )
    return Cleaning("select simulation.wipe()", f"vacuum (analyze) {', '.join((*names, 'relay_cursor'))}")
