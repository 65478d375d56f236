"""Clusters run where a container engine answers. Without one nothing here runs, and the run says what it needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.kafka import Missing
from deploy.rehearsal import streams
from tests.cluster.brokers import Brokers
from tests.cluster.engine import images
from tests.cluster.standby import Pair


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """These are played when somebody names this folder or a file in it, as make test-cluster does, and never otherwise."""
    here = Path(__file__).parent
    named = [(config.invocation_params.dir / one.partition("::")[0]).resolve() for one in config.args]
    if any(path == here or here in path.parents for path in named):
        return
    if ours := [item for item in items if here in item.path.parents]:
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]


@pytest.fixture(scope="session")
def cluster_images() -> tuple[str, str]:
    """Kafka's and PostgreSQL's. Ends the run where they cannot be had."""
    try:
        return images()
    except Missing as missing:
        pytest.exit(f"make test-cluster cannot run here: {missing}", returncode=3)


@pytest.fixture(scope="session")
async def three_brokers(cluster_images: tuple[str, str]) -> AsyncIterator[Brokers]:
    async with Brokers.of(cluster_images[0]) as brokers:
        yield brokers


@pytest.fixture
async def brokers(three_brokers: Brokers) -> Brokers:
    """The same three for every test, each with topics and groups of its own."""
    await three_brokers.as_new()
    return three_brokers


@pytest.fixture
async def pair(cluster_images: tuple[str, str]) -> AsyncIterator[Pair]:
    async with Pair.of(cluster_images[1]) as pair:
        yield pair


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut link is noticed when a request has gone unanswered for forty seconds, some of them one after the other."""
    monkeypatch.setattr(streams, "TOO_LONG", 240.0)
