"""The whole local system: one start for what can be looked at side by side."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import httpx2
import psutil
import pytest
from typer.testing import CliRunner

from contracts.topics import TOPICS
from deploy.cli import app
from deploy.local.data_directory import DataDirectory, InUse, Mismatch
from deploy.local.databases import DatabaseLogin
from deploy.local.environment import SERVICES, SIMULATORS
from deploy.local.kafka import LocalKafka
from deploy.local.processes import StartFailed
from deploy.local.system import LocalSystem
from deploy.rehearsal import commands
from tests.support.eventually import eventually
from tests.support.kafka import TestKafka

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
CYCLE = ROOT / "deploy" / "cycles" / "2024-health-leshan.toml"


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalSystem]:
    async with LocalSystem(tmp_path_factory.mktemp("system") / "data", CYCLE) as running:
        yield running


async def _status(url: str, token: str | None = None) -> int:
    async with httpx2.AsyncClient(timeout=10) as client:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return (await client.get(url, headers=headers)).status_code


async def _ready(system: LocalSystem, *names: str) -> bool:
    statuses = [await _status(f"{system.services[name].internal_url}/ready") for name in names]
    return statuses == [200] * len(names)


async def test_every_part_is_up_and_every_topic_is_there(system: LocalSystem) -> None:
    assert set(system.services) == set(SERVICES)
    assert await _ready(system, *SERVICES)
    kafka = LocalKafka(system.data / "unused")
    kafka.port = int(system.kafka_bootstrap.rpartition(":")[2])
    async with TestKafka(kafka).admin() as admin:
        assert set(TOPICS) <= set(await admin.list_topics())


async def test_operator_routes_are_not_reachable_from_the_public_listener(system: LocalSystem) -> None:
    ops = system.mint("ops", "operator")
    for service in system.services.values():
        assert await _status(f"{service.public_url}/ops/rest", ops) == 404
        assert await _status(f"{service.internal_url}/ops/rest") == 401
        assert await _status(f"{service.internal_url}/ops/rest", system.mint("office", "clerk")) == 403
        assert await _status(f"{service.internal_url}/ops/rest", ops) == 200


async def test_it_fits_into_the_memory_it_promises(system: LocalSystem) -> None:
    held = system.memory()
    assert set(held) == {*SERVICES, SIMULATORS, "postgres", "kafka", "driver"}
    assert all(mib > 5 for mib in held.values())
    assert sum(held.values()) < 1600


async def test_no_secret_stands_on_a_command_line(system: LocalSystem) -> None:
    secrets = [system.keys.receipts_secret]
    secrets += [DatabaseLogin.of(url).password for url in system.surroundings.databases.values()]
    lines = [" ".join(psutil.Process(child.pid).cmdline()) for child in system.processes().values()]
    assert len(lines) == len(SERVICES) + 3
    assert not [line for line in lines for secret in secrets if secret in line]


async def test_a_second_system_on_the_same_directory_is_refused_and_the_first_goes_on(
    system: LocalSystem,
) -> None:
    with pytest.raises(InUse, match="choose another directory"):
        await LocalSystem(system.data, CYCLE).start()
    assert await _ready(system, *SERVICES)
    assert DataDirectory(system.data).state()["running"] is True


async def test_a_killed_service_comes_back_without_the_others_noticing(system: LocalSystem) -> None:
    others = {name: child.pid for name, child in system.processes().items() if name != "payment"}
    await system.kill("payment")
    assert not system.services["payment"].process.alive
    await system.restart("payment")
    assert await _ready(system, "payment")
    assert {name: child.pid for name, child in system.processes().items() if name != "payment"} == others


async def test_a_frozen_service_goes_on_when_it_is_let(system: LocalSystem) -> None:
    freezing = asyncio.create_task(system.freeze("notification", 0.6))
    await asyncio.sleep(0.2)
    pid = system.services["notification"].process.pid
    assert pid is not None
    assert psutil.Process(pid).status() == psutil.STATUS_STOPPED
    await freezing
    assert await eventually(lambda: _ready(system, "notification"))


async def test_the_services_outlive_broker_and_database(system: LocalSystem) -> None:
    pids = {name: service.process.pid for name, service in system.services.items()}
    await system.stop_broker()
    assert not await _ready(system, "registration")
    await system.start_broker()
    await system.restart_database()
    assert await eventually(lambda: _ready(system, *SERVICES), within=60)
    assert {name: service.process.pid for name, service in system.services.items()} == pids


async def _checked(
    capsys: pytest.CaptureFixture[str], *, data: Path | None = None
) -> tuple[int, dict[str, list[str]]]:
    """Exit code, and the violations of each invariant that was looked at."""
    code = await commands.check(data=data or Path("none"), given=data is None, as_json=True)
    said = json.loads(capsys.readouterr().out)
    return code, {one["id"]: one["violations"] for one in said["invariants"]}


@pytest.mark.parametrize("given", [False, True], ids=["running", "given"])
async def test_check_looks_at_a_system_that_runs_and_at_one_that_is_given(
    system: LocalSystem, given: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    databases = {name: DatabaseLogin.of(url) for name, url in system.surroundings.databases.items()}
    for name, login in databases.items():
        monkeypatch.setenv(f"{name.upper()}_DATABASE_URL", login.dsn)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", system.kafka_bootstrap)
    monkeypatch.setenv("KAOWU_CYCLE_FILE", str(CYCLE))
    data = None if given else system.data
    assert await eventually(lambda: _ready(system, *SERVICES))
    code, violations = await _checked(capsys, data=data)
    assert (code, {name: found for name, found in violations.items() if found}) == (0, {})

    nobody = "11111111-1111-4111-8111-111111111111"
    connection = await asyncpg.connect(databases["confirmation"].dsn)
    try:
        await connection.execute(
            "insert into cases (registration_id, cycle_id, site_id, specialty_code, level, subjects, form_version, "
            "is_returning, state, passed, version, opened_at, changed_at) values "
            "($1, $2, 'shawan', '203', 'junior', '{1,2,3,4}', 1, false, 'approved', 3, 3, now(), now())",
            nobody,
            system.cycle.id,
        )
        code, violations = await _checked(capsys, data=data)
        assert code == 1
        assert any(nobody in violation for violation in violations["I13"])
    finally:
        await connection.execute("delete from cases where registration_id = $1", nobody)
        await connection.close()


async def test_messages_of_a_system_that_runs_are_shown_by_its_service(system: LocalSystem) -> None:
    assert await eventually(lambda: _ready(system, "notification"))
    shown = await asyncio.to_thread(
        CliRunner().invoke, app, ["messages", "--data", str(system.data), "--json"]
    )
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert found["undelivered"] == {"items": [], "next": None}
    assert {item["circuit"] for item in found["providers"]["items"]} == {"well"}


@pytest.mark.parametrize("missing", ["PAYMENT_DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS", "KAOWU_CYCLE_FILE"])
async def test_check_says_what_it_needs_to_know_of_a_given_system(
    missing: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SERVICES:
        monkeypatch.setenv(f"{name.upper()}_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/nothing")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    monkeypatch.setenv("KAOWU_CYCLE_FILE", str(CYCLE))
    assert await commands.check(data=Path("none"), given=True, as_json=False) == 1
    assert "cannot be read" in capsys.readouterr().out
    monkeypatch.delenv(missing)
    assert await commands.check(data=Path("none"), given=True, as_json=False) == 1
    assert f"set {missing}" in capsys.readouterr().out.replace("\n", " ")


async def test_a_second_start_goes_on_with_what_was_there(tmp_path: Path) -> None:
    said: list[str] = []
    at = datetime(2023, 12, 1, tzinfo=UTC)
    data = tmp_path / "data"
    first = LocalSystem(data, CYCLE, "virtual", only=["registration"], starts_at=at, say=said.append)
    async with first:
        assert first.clock.now() == at
        assert first.clock_control is not None
        first.clock_control.jump(datetime(2024, 1, 1, tzinfo=UTC))
        await _keep(
            first,
            "insert into audit (at, actor_kind, actor, action, outcome) values (now(), 'ops', 'a', 'b', 'c')",
        )
    assert [line.split(":")[0] for line in said] == ["postgres", "kafka"]
    assert all("local rung" in line and "because" in line for line in said)
    with pytest.raises(Mismatch, match="cannot go on with the real clock"):
        await LocalSystem(data, CYCLE, "system").start()
    again = LocalSystem.of(data)
    async with again:
        assert again.clock.now() == datetime(2024, 1, 1, tzinfo=UTC)
        assert await _keep(again, "select action from audit") == "b"
        assert again.services.keys() == set(SERVICES)
        assert again.services["registration"].address == first.services["registration"].address


async def test_a_start_that_fails_says_why_and_leaves_nothing_running(tmp_path: Path) -> None:
    broken = LocalSystem(
        tmp_path / "data",
        CYCLE,
        only=["registration"],
        extra={"REGISTRATION_VAULT_KEYS_FILE": str(tmp_path / "nothing")},
    )
    with pytest.raises(StartFailed, match=r"(?s)registration did not start.*vault keys"):
        await broken.start()
    assert not [name for name, child in broken.processes().items() if child.alive]
    async with LocalSystem(tmp_path / "data", CYCLE, only=["registration"]):
        pass  # and the directory is not in the way of the next start


async def _keep(system: LocalSystem, statement: str) -> object:
    connection = await asyncpg.connect(DatabaseLogin.of(system.surroundings.databases["registration"]).dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()
