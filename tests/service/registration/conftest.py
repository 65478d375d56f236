"""Fixtures of the registration service's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from services.chassis.telemetry import masking_processor
from tests.conftest import ServiceDatabase
from tests.service.registration.system import System


@pytest.fixture(autouse=True)
def _logs_as_in_production() -> Iterator[None]:
    """structlog's own default draws every local variable beside a traceback: slow, and unlike what a service writes."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            masking_processor,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    )
    yield
    structlog.reset_defaults()


@pytest.fixture
async def system(service_database: ServiceDatabase, tmp_path: Path) -> AsyncIterator[System]:
    """The service on a database nobody else sees; 2023-12-05 10:00 in Leshan."""
    started = System(await service_database("registration"), tmp_path)
    yield started
    await started.end()
