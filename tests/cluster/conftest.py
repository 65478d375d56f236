"""Clusters run where a container engine answers. Without one nothing here runs, and the run says what it needs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deploy.local.kafka import Missing
from tests.cluster.brokers import Brokers
from tests.cluster.engine import images
from tests.cluster.standby import Pair


@pytest.fixture(scope="session")
def cluster_images() -> tuple[str, str]:
    """Kafka's and PostgreSQL's. Ends the run where they cannot be had."""
    try:
        return images()
    except Missing as missing:
        pytest.exit(f"make test-cluster cannot run here: {missing}", returncode=3)


@pytest.fixture
async def brokers(cluster_images: tuple[str, str]) -> AsyncIterator[Brokers]:
    async with Brokers.of(cluster_images[0]) as brokers:
        yield brokers


@pytest.fixture
async def pair(cluster_images: tuple[str, str]) -> AsyncIterator[Pair]:
    async with Pair.of(cluster_images[1]) as pair:
        yield pair
