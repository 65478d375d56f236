"""Fixtures of the confirmation service's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import ServiceDatabase
from tests.service.confirmation.system import System


@pytest.fixture
async def system(service_database: ServiceDatabase, tmp_path: Path) -> AsyncIterator[System]:
    """The service on a database nobody else sees; 2023-12-03 10:00 in Leshan."""
    started = System(await service_database("confirmation"), tmp_path)
    yield started
    await started.end()
