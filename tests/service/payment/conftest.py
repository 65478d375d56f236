"""Fixtures of the payment service's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.evidence.reaching import Reach, _keys
from services.chassis.clock_guard import ClockGuard, Disagreement
from services.chassis.db import Database
from services.chassis.vault import Vault
from services.payment.adapters.wechat import WeChatPay
from services.payment.ports import Answer
from tests.conftest import ServiceDatabase
from tests.service.payment.backups import Backups
from tests.service.payment.system import System, running
from tests.support.postgres import TestDatabases


@pytest.fixture(scope="session")
def gateway_keys(session_directory: Path) -> Path:
    """The simulated gateway's keys, made once: RSA keys are slow to find."""
    return session_directory / "gateway-keys"


@pytest.fixture
async def system(
    service_database: ServiceDatabase,
    tmp_path: Path,
    gateway_keys: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[System]:
    """The service on a database nobody else sees; the moment at which payment opens."""
    async with running(await service_database("payment"), tmp_path, gateway_keys) as started:

        async def check(_: ClockGuard) -> Disagreement | None:
            return await started.check_clocks()

        # Three clocks stand outside the service; its own comparison is tested with the chassis.
        monkeypatch.setattr(ClockGuard, "check", check)
        yield started


@pytest.fixture
async def backups(
    system: System, databases: TestDatabases, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Backups]:
    kept = Backups(system, databases)
    query = WeChatPay.query

    async def noted(gateway: WeChatPay, order_no: str) -> Answer:
        kept.asked.append(order_no)
        return await query(gateway, order_no)

    monkeypatch.setattr(WeChatPay, "query", noted)
    yield kept
    await kept.drop()


@pytest.fixture(params=["wechat", "alipay"])
def channel(request: pytest.FixtureRequest) -> str:
    """Each of them in turn."""
    return str(request.param)


@pytest.fixture
async def office(system: System) -> System:
    """An office with accounts at both gateways."""
    await system.with_alipay()
    return system


@pytest.fixture
async def reach(system: System, service_database: ServiceDatabase) -> AsyncIterator[Reach]:
    await system.with_alipay()
    login = await service_database("notification")
    notification = Database(login.url, clock=system.process.plumbing.clock)
    yield Reach(
        system.cycle,
        system.database,
        notification,
        Vault.open(system.settings.vault_keys_file, "local"),
        _keys({name: system.world.accounts[name] for name in ("wechat", "alipay")}),
    )
    await notification.dispose()
