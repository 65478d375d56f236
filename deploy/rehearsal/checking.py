"""Where the evidence for `kaowu check` comes from: a local system that runs, one that was left, or a given one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg
from aiokafka.errors import KafkaError

from contracts.cycle import Cycle
from deploy.local.data_directory import DataDirectory, InUse
from deploy.local.databases import DatabaseLogin
from deploy.local.environment import SERVICES
from deploy.local.keys import Tokens
from deploy.local.system import LocalSystem
from deploy.rehearsal import people_file
from deploy.rehearsal.doors import Doors, on_this_machine
from deploy.rehearsal.identity import Identity, invent_all
from deploy.rehearsal.invariants.evidence import Evidence
from deploy.rehearsal.invariants.privacy import Canaries
from deploy.rehearsal.invariants.reading import gather, subscriptions_of
from deploy.rehearsal.people import People
from deploy.rehearsal.streams import Streams
from services.chassis.clock import RehearsalClock, SystemClock

SECRETS: Final = ("name", "id_number", "phone", "email")


class CannotCheck(Exception):
    """What is missing for a look, and where to get it."""


def canaries_of(people: People, identities: Mapping[str, Identity]) -> Canaries:
    """Everybody's secrets, and what people gave at a step instead of what was invented for them."""
    more = []
    for person in people.persons:
        for step in person.steps:
            for key in SECRETS:
                value = step.fields.get(key)
                if isinstance(value, str):
                    more.append((value, f"{key} of {person.name}, step {step.index}"))
    return Canaries(identities, more)


async def evidence_of(system: LocalSystem, canaries: Canaries) -> Evidence:
    """Of a system that this process runs."""
    outside = system.outside
    return await gather(
        system.cycle,
        system.surroundings.databases,
        system.kafka_bootstrap,
        simulators=None if outside is None else outside.control_url,
        canaries=canaries,
        metrics={name: service.internal_url for name, service in system.services.items()},
        files=sorted(system.logs.glob("*.log")),
        subscriptions=subscriptions_of(SERVICES),
        now=system.clock.now(),
    )


async def local(data: Path) -> Evidence:
    """Of the system in this directory: as it runs, or started for the look and stopped again."""
    system = LocalSystem.of(data)
    canaries = _known_people(data)
    try:
        await system.start()
    except InUse:
        return await _running(data, canaries)
    try:
        outside = system.outside
        internals = {name: service.internal_url for name, service in system.services.items()}
        control = None if outside is None else outside.control_url
        await _rest(internals, control, system.kafka_bootstrap, system.keys.tokens, system.clock.now())
        return await evidence_of(system, canaries)
    finally:
        await system.stop()


async def _running(data: Path, canaries: Canaries) -> Evidence:
    state = DataDirectory(data).state()
    clock = RehearsalClock(data / "clock") if state["clock"] == "virtual" else SystemClock()
    internals = {name: service["internal_url"] for name, service in state["services"].items()}
    control = state["simulators"]["control"] if state.get("simulators") else None
    await _rest(internals, control, state["kafka"], Tokens.of(data / "keys"), clock.now())
    return await gather(
        Cycle.read(Path(state["cycle_file"])),
        _databases(data),
        state["kafka"],
        simulators=control,
        canaries=canaries,
        metrics=internals,
        files=sorted((data / "logs").glob("*.log")),
        subscriptions=subscriptions_of(SERVICES),
        now=clock.now(),
    )


async def _rest(
    internals: Mapping[str, str], control: str | None, bootstrap: str, tokens: Tokens, at: datetime
) -> None:
    """The invariants are of a system at rest: wait for it, as a rehearsal does."""
    async with on_this_machine() as wire:
        doors = Doors(wire, tokens, at)
        streams = Streams(doors, internals, control, bootstrap, doors.headers("ops", "check"))
        await streams.start()
        try:
            await streams.rest()
        finally:
            await streams.stop()


def _databases(data: Path) -> dict[str, str]:
    """How the services of a running local system reach their databases: the embedded server's port, or DATABASE_URL's."""
    directory = data / "postgres"
    passwords: dict[str, str] = json.loads((directory / "passwords.json").read_text(encoding="utf-8"))
    pid_file = directory / "cluster" / "postmaster.pid"
    if not pid_file.exists():
        raise CannotCheck(
            "this system stands on a PostgreSQL of somebody else: check it with --given and <SERVICE>_DATABASE_URL"
        )
    port = int(pid_file.read_text(encoding="utf-8").splitlines()[3])
    return {
        service: DatabaseLogin("127.0.0.1", port, service, service, passwords[service]).dsn
        for service in SERVICES
    }


def _known_people(data: Path) -> Canaries:
    """Whoever was invented for the rehearsal that left this directory inside its report's."""
    report, people = data.parent / "report.json", data.parent / "people.jsonl"
    if not (report.exists() and people.exists()):
        return Canaries({})
    known = people_file.read(people)
    seed = int(json.loads(report.read_text(encoding="utf-8"))["seed"])
    return canaries_of(known, invent_all(known, seed))


async def given(environ: Mapping[str, str]) -> Evidence:
    """Of the system that the environment names: its databases and topics. Logs, metrics and gateway books are elsewhere."""
    urls = {service: environ.get(f"{service.upper()}_DATABASE_URL", "") for service in SERVICES}
    wanted = {f"{service.upper()}_DATABASE_URL": url for service, url in urls.items()}
    wanted |= {name: environ.get(name, "") for name in ("KAFKA_BOOTSTRAP_SERVERS", "KAOWU_CYCLE_FILE")}
    missing = [name for name, value in wanted.items() if not value]
    if missing:
        raise CannotCheck(f"set {', '.join(missing)} to say which system is meant")
    try:
        return await gather(
            Cycle.read(Path(wanted["KAOWU_CYCLE_FILE"])),
            urls,
            wanted["KAFKA_BOOTSTRAP_SERVERS"],
            simulators=None,
            canaries=Canaries({}),
            metrics={},
            files=(),
            subscriptions=subscriptions_of(SERVICES),
            now=SystemClock().now(),
        )
    except (OSError, KafkaError, asyncpg.PostgresError) as error:
        hosts = ", ".join(sorted({str(urlsplit(url).hostname) for url in urls.values()}))
        raise CannotCheck(f"the system at {hosts} cannot be read: {type(error).__name__}: {error}") from error
