"""Fixtures of the payment service's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.chassis.clock_guard import ClockGuard, Disagreement
from tests.conftest import ServiceDatabase
from tests.service.payment.system import System, running


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
