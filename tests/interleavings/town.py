"""What many registrations are played on side by side: payment's own handlers on PostgreSQL, two gateways, one clock."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import structlog

from contracts.cycle import Cycle
from deploy.local.keys import LocalKeys
from services.chassis.clock import ClockControl, RehearsalClock
from services.chassis.clock_guard import ClockGuard, Disagreement, Readings
from services.chassis.db import Database
from services.chassis.vault import Vault
from services.payment.handlers.receiving import open_till
from services.payment.handlers.refunding import Refunds
from services.payment.handlers.settling import Gateways
from services.payment.handlers.till import Till
from services.payment.jobs import Turns
from tests.interleavings.gateway import TownGateway
from tests.simulation.chance import Chance
from tests.simulation.gateway import Manners
from tests.simulation.lives import Interleaver, simulated
from tests.simulation.services import CYCLE_FILE
from tests.simulation.stage import by_socket, connected, server
from tests.support.plays import directory_of_our_own
from tests.support.postgres import TestDatabases

WECHAT: Final = "wechat"
ALIPAY: Final = "alipay"
_TABLES: Final = """
select string_agg(format('%I', c.relname), ', ') from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'public' and c.relkind in ('r', 'p') and not c.relispartition
  and c.relname not in ('alembic_version', 'relay_cursor')
"""


@dataclass
class _Guard:
    """Three clocks that agree: how they are compared is tested where it is done."""

    clock: RehearsalClock
    agreed: Readings | None = None
    ahead: timedelta = timedelta(0)

    async def check(self) -> Disagreement | None:
        at = self.clock.now()
        self.agreed = Readings(at, at, at)
        return None


@dataclass
class Town:
    """Made once for many batches."""

    control: ClockControl
    clock: RehearsalClock
    database: Database
    cycle: Cycle
    vault: Vault
    wechat: TownGateway
    alipay: TownGateway
    superuser: Any
    interleaver: Interleaver
    given: dict[str, str] = field(default_factory=dict)
    """Order number → channel whose code somebody was given last."""
    _wipe: str = ""
    gateways: Gateways = None  # type: ignore[assignment]  # made anew with every batch, see begin
    till: Till = None  # type: ignore[assignment]
    turns: Turns = None  # type: ignore[assignment]

    @property
    def now(self) -> datetime:
        return self.control.now()

    def move_to(self, moment: datetime) -> None:
        if moment > self.now:
            self.control.jump(moment)

    def gateway(self, channel: str) -> TownGateway:
        return self.wechat if channel == WECHAT else self.alipay

    def gateway_of(self, order_no: str) -> TownGateway:
        """A number that one gateway never heard of may be another's since."""
        return self.gateway(self.given[order_no])

    async def begin(self, opens: datetime, earlier_may_cost_per_mille: int) -> None:
        """An empty database, empty books, another moment."""
        if not self._wipe:
            self._wipe = f"truncate {await self.superuser.fetchval(_TABLES)} restart identity"
        await self.superuser.execute(self._wipe)
        gc.collect()  # nobody else does, see plays.played_on
        self.given.clear()
        for gateway in (self.wechat, self.alipay):
            gateway.begin(Chance(0), Manners())
            gateway.forget()
        self.control._write(opens, 0.0)
        payment = self.cycle.windows.payment.model_copy(
            update={"earlier_close_may_cost_per_mille": earlier_may_cost_per_mille}
        )
        windows = self.cycle.windows.model_copy(update={"payment": payment})
        self.cycle = self.cycle.model_copy(update={"windows": windows})
        channels = {WECHAT: self.wechat, ALIPAY: self.alipay}
        self.gateways = Gateways(channels, self.database, self.cycle, self.vault, lambda: None)
        self.till = open_till(self.database, self.cycle, self.vault)
        refunds = Refunds(channels, self.database, self.cycle, self.vault)
        guard = cast("ClockGuard", _Guard(self.clock))
        self.turns = Turns(self.gateways, refunds, self.clock, guard)


@contextlib.asynccontextmanager
async def town() -> AsyncIterator[Town]:
    """A PostgreSQL of its own, and payment's migrations in it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(structlog.reset_defaults)
        directory = stack.enter_context(directory_of_our_own("interleavings"))
        found = await stack.enter_async_context(server(directory / "postgres"))
        login = await TestDatabases(found).migrated("payment")
        control = ClockControl(directory / "clock", datetime(2024, 1, 1, tzinfo=UTC))
        clock = RehearsalClock(directory / "clock")
        keys = LocalKeys.of(directory / "keys", ["payment"])
        database = Database(by_socket(found, login).url, clock=clock, pool_size=6)
        stack.push_async_callback(database.dispose)
        superuser = await connected(stack, found, login)
        watching = await connected(stack, found, login)
        stack.enter_context(simulated())
        yield Town(
            control,
            clock,
            database,
            Cycle.read(CYCLE_FILE),
            Vault.open(keys.vault_file("payment"), "local"),
            TownGateway(clock.now, WECHAT),
            TownGateway(clock.now, ALIPAY, remembers=False),
            superuser,
            Interleaver(watching, [login.database]),
        )
