"""Fixtures of the notification service's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from tests.conftest import ServiceDatabase
from tests.service.notification.system import System, running


@pytest.fixture(scope="session")
def carrier_keys(session_directory: Path) -> Path:
    """The simulated carriers' accounts, made once."""
    return session_directory / "carrier-keys"


@pytest.fixture(autouse=True)
def plain_log() -> Iterator[None]:
    """structlog's default draws tracebacks with all their variables: seconds for each error that a test provokes."""
    structlog.configure(processors=[structlog.processors.KeyValueRenderer(sort_keys=True)])
    yield
    structlog.reset_defaults()


@pytest.fixture
async def system(
    service_database: ServiceDatabase, tmp_path: Path, carrier_keys: Path
) -> AsyncIterator[System]:
    """The service on a database nobody else sees, before simulated carriers; a Tuesday noon before any desk closed."""
    async with running(await service_database("notification"), tmp_path, carrier_keys) as started:
        yield started
