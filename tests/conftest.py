"""Fixtures every test may ask for. What they start is real: PostgreSQL 18 and Kafka 4.3, once a session."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest
import structlog
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import settings

from deploy.local.databases import DatabaseLogin
from deploy.local.kafka import LocalKafka
from deploy.local.postgres import UNSYNCED, EmbeddedPostgres
from services.chassis.telemetry import masking_processor
from services.payment.adapters import alipay_signatures, wechat_signatures
from tests.support import selection
from tests.support.kafka import TestKafka
from tests.support.order import longest_first
from tests.support.postgres import TestDatabases

ServiceDatabase = Callable[[str], Awaitable[DatabaseLogin]]

# An example that takes long says that the machine is busy, nothing about the product.
settings.register_profile("kaowu", deadline=None)
settings.load_profile("kaowu")


def pytest_addoption(parser: pytest.Parser) -> None:
    selection.add_options(parser)


def pytest_report_header(config: pytest.Config) -> str:
    return selection.header(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    played, left = selection.pick(items, config)
    if left:
        config.hook.pytest_deselected(items=left)
    items[:] = longest_first(played)


@pytest.fixture(autouse=True)
def _logs_as_in_production() -> Iterator[None]:
    """structlog's own default draws every frame of a traceback with its locals: half a minute for a dozen errors."""
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


@pytest.fixture(scope="session", autouse=True)
def _a_home_of_its_own(session_directory: Path) -> Iterator[None]:
    """Commands remember where a system was last started: not in the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_STATE_HOME", str(session_directory / "state"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _each_key_checked_once() -> Iterator[None]:
    """A service checks its private key when it starts, for a twentieth of a second: once is enough for all that tests start."""
    load = lru_cache(64)(load_pem_private_key)
    with pytest.MonkeyPatch.context() as patched:
        for module in (alipay_signatures, wechat_signatures):
            patched.setattr(module, "load_pem_private_key", load)
        yield


@pytest.fixture(scope="session")
def session_directory() -> Iterator[Path]:
    """A place outside the checkout for what the session starts."""
    directory = Path(tempfile.mkdtemp(prefix="kaowu-tests-"))
    directory.chmod(0o711)  # PostgreSQL runs as another account when we are root
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
async def databases(session_directory: Path) -> AsyncIterator[TestDatabases]:
    # Unsynced: tests kill servers, nobody pulls a plug, and a slow disk would otherwise be most of what is waited for.
    # What a plan is made by must not depend on when somebody last came by and counted the rows.
    server = EmbeddedPostgres(session_directory / "postgres", settings={**UNSYNCED, "autovacuum": "off"})
    await server.start()
    yield TestDatabases(server)
    await server.stop()


@pytest.fixture(scope="session")
async def kafka(session_directory: Path) -> AsyncIterator[TestKafka]:
    """The real broker. Tests share it: take topics and groups of your own."""
    broker = LocalKafka(session_directory / "kafka")
    await broker.start()
    yield TestKafka(broker)
    await broker.stop()


@pytest.fixture
async def service_database(databases: TestDatabases) -> AsyncIterator[ServiceDatabase]:
    """`await service_database("payment")`: a migrated database nobody else sees, given back after the test."""
    given: list[DatabaseLogin] = []

    async def give(service: str) -> DatabaseLogin:
        login = await databases.migrated(service)
        given.append(login)
        return login

    yield give
    for login in given:
        await databases.drop(login)


@pytest.fixture
async def blank_database(databases: TestDatabases) -> AsyncIterator[DatabaseLogin]:
    """An empty database, for tests of the chassis that bring their own tables."""
    login = await databases.blank()
    yield login
    await databases.drop(login)
