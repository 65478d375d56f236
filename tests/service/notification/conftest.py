"""Fixtures of the notification service's tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.notification.adapters import aliyun, tencent
from services.notification.ports import Sms
from tests.conftest import ServiceDatabase
from tests.service.notification.at_a_carrier import APPROVED, NAMES, Scene, client
from tests.service.notification.killing import Killed, kill_at
from tests.service.notification.system import System, running
from tests.simulators.outside import outside


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


@pytest.fixture
async def two(service_database: ServiceDatabase, tmp_path: Path, carrier_keys: Path) -> AsyncIterator[System]:
    """The service with an account at both carriers of SMS, half of the messages each."""
    async with running(await service_database("notification"), tmp_path, carrier_keys, both=True) as started:
        yield started


@pytest.fixture(params=NAMES)
async def scene(
    request: pytest.FixtureRequest, session_directory: Path, tmp_path: Path
) -> AsyncIterator[Scene]:
    async with outside(
        session_directory / "simulator-keys",
        tmp_path,
        templates=APPROVED["aliyun"],
        tencent_templates=APPROVED["tencent"],
    ) as stage:
        stage.world.tencent.receipts_url = stage.world.sms.receipts_url
        sms: Sms = client(request.param, stage)
        assert isinstance(sms, aliyun.AliyunSms | tencent.TencentSms)
        stage.listener.thanks = dict(sms.thanks)
        yield Scene(request.param, stage, sms)
        await sms.aclose()


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Crash points kill this process's coroutine instead of the whole test run."""

    def die(_code: int) -> None:
        raise Killed

    monkeypatch.setattr(os, "_exit", die)
    yield
    kill_at("")
