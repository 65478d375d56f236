"""A service whose Kafka or PostgreSQL is away at its start: bounded tries, a sentence for people, a failing exit."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.local.databases import DatabaseLogin
from deploy.local.environment import SERVICES, Address, Surroundings
from deploy.local.keys import LocalKeys
from deploy.simulators.credentials import Credentials
from tests.conftest import ServiceDatabase

ROOT = Path(__file__).resolve().parents[2]
NOBODY = "127.0.0.1:1"  # no listener is ever given this port


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Surroundings:
    keys = LocalKeys.of(tmp_path_factory.mktemp("keys"), SERVICES)
    accounts = Credentials.of(keys.directory).write_account_files(
        "http://127.0.0.1:1", "http://127.0.0.1:1", "http://127.0.0.1:1", 1
    )
    nowhere = DatabaseLogin("127.0.0.1", 1, "none", "none", "none").url
    return Surroundings(
        cycle_file=ROOT / "deploy" / "cycles" / "2024-health-leshan.toml",
        keys=keys,
        clock_file=None,
        bootstrap=NOBODY,
        databases=dict.fromkeys(SERVICES, nowhere),
        addresses={name: Address.choose({}) for name in SERVICES},
        service_tokens={name: keys.service_token_file(name, at=datetime.now(UTC)) for name in SERVICES},
        accounts={name: str(path) for name, path in accounts.items()},
        extra={"KAOWU_START_PATIENCE_SECONDS": "1.5"},
    )


async def _run(service: str, environment: Mapping[str, str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"services.{service}", "run",
        cwd=ROOT, env=dict(environment), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode()


@pytest.mark.parametrize("service", SERVICES)
async def test_without_kafka_it_tries_for_a_while_and_then_says_so(
    service: str, surroundings: Surroundings, service_database: ServiceDatabase
) -> None:
    login = await service_database(service)
    here = replace(surroundings, databases={**surroundings.databases, service: login.url})
    code, said = await _run(service, here.of(service))
    assert code == 1
    assert said.splitlines()[-1].startswith(f"services.{service}: Kafka cannot be reached after")
    assert "Traceback" not in said


async def test_without_its_database_it_tries_for_a_while_and_then_says_so(surroundings: Surroundings) -> None:
    code, said = await _run("payment", surroundings.of("payment"))
    assert code == 1
    assert said.splitlines()[-1].startswith("services.payment: PostgreSQL cannot be reached after")
    assert "Traceback" not in said


async def test_on_a_database_that_was_not_migrated_it_names_the_command(
    surroundings: Surroundings, blank_database: DatabaseLogin
) -> None:
    here = replace(surroundings, databases={**surroundings.databases, "payment": blank_database.url})
    code, said = await _run("payment", here.of("payment"))
    assert code == 1
    assert "python -m services.payment migrate" in said


async def test_a_broker_without_a_clock_is_refused_outside_the_local_system(
    surroundings: Surroundings,
) -> None:
    production = {"KAOWU_BROKER_HAS_CLOCK": "false", "KAOWU_ENVIRONMENT": "production"}
    code, said = await _run("payment", surroundings.of("payment") | production)
    assert code == 1
    assert "for the local system only" in said
