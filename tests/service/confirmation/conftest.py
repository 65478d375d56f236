"""Fixtures of the confirmation service's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from tests.conftest import ServiceDatabase
from tests.service.confirmation.system import System


@pytest.fixture(scope="module", autouse=True)
def plain_log() -> Iterator[None]:
    """structlog's own default draws every frame of a traceback with its locals: half a minute for a dozen errors."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    )
    yield
    structlog.reset_defaults()


@pytest.fixture
async def system(service_database: ServiceDatabase, tmp_path: Path) -> AsyncIterator[System]:
    """The service on a database nobody else sees; 2023-12-03 10:00 in Leshan."""
    started = System(await service_database("confirmation"), tmp_path)
    yield started
    await started.end()
