"""Fixtures of the notification service's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import ServiceDatabase
from tests.service.notification.system import System, running


@pytest.fixture(scope="session")
def carrier_keys(session_directory: Path) -> Path:
    """The simulated carriers' accounts, made once."""
    return session_directory / "carrier-keys"


@pytest.fixture
async def system(
    service_database: ServiceDatabase, tmp_path: Path, carrier_keys: Path
) -> AsyncIterator[System]:
    """The service on a database nobody else sees, before simulated carriers; a Tuesday noon before any desk closed."""
    async with running(await service_database("notification"), tmp_path, carrier_keys) as started:
        yield started
