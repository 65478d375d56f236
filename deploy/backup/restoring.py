"""A local system put back to a backup, and caught up with everything that was said since.

Each database is made and caught up beside the live one, and takes its name only when all of them are complete: a restore
that fails or is broken off changes nothing. What it replaces is kept until the next restore.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
from aiokafka import TopicPartition

from deploy.backup import archive, dumping
from deploy.backup.archive import CannotRestore, Manifest
from deploy.backup.backing_up import moment_of
from deploy.backup.catching_up import CaughtUp, catch_up, refuse_while_used
from deploy.local.databases import DatabaseLogin
from deploy.replay.topics import set_offsets
from services.chassis import migrations

if TYPE_CHECKING:
    from deploy.replay.standing import Standing

_BESIDE: Final = "_restoring"
_KEPT: Final = "_replaced"
_OUTDATED: Final = "_before"


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back and what was made up for."""

    file: Path
    manifest: Manifest
    at: datetime
    services: Mapping[str, CaughtUp]
    kept: Mapping[str, str]
    """service → the name under which its replaced database is kept."""


@dataclass(frozen=True, slots=True)
class Watching:
    """Who is told how far it is."""

    say: Callable[[str], None] = lambda _: None
    begin: Callable[[str, int], Callable[[int], None]] = lambda *_: lambda _: None


async def restore(
    place: Standing, source: Path, *, only: Sequence[str] = (), watching: Watching | None = None
) -> Restored:
    """Nobody may run the services. Raises CannotRestore, and then nothing has changed."""
    watching = watching or Watching()
    file = archive.find(source)
    manifest = await asyncio.to_thread(archive.read_manifest, file)
    services = list(only or manifest.services)
    _refuse_what_does_not_fit(place, file, manifest, services)
    for service in services:
        if await place.server.has_database(place.database_of(service)):
            await refuse_while_used(service, place.databases[service])
    at = moment_of(place)
    with tempfile.TemporaryDirectory(dir=place.data, prefix=".restore-") as scratch:
        tick = watching.begin("compared with its checksums", sum(manifest.services[s].size for s in services))
        dumps = await asyncio.to_thread(archive.unpack, file, manifest, services, Path(scratch), tick)
        beside: dict[str, str] = {}
        try:
            tick = watching.begin("databases put back", len(services))
            for service in services:
                beside[service] = await _put_back_beside(place, service, dumps[service])
                tick(1)
            done = await catch_up(
                beside,
                place.cycle,
                place.bootstrap,
                backup_at=manifest.at,
                at=at,
                say=watching.say,
                begin=watching.begin,
            )
            kept = await _take_their_places(place, services)
        finally:
            for service in services:
                await place.server.drop_database(place.database_of(service) + _BESIDE)
    for service in services:
        await _read_again(place.bootstrap, service, manifest)
    return Restored(file, manifest, at, done, kept)


def _refuse_what_does_not_fit(
    place: Standing, file: Path, manifest: Manifest, services: Sequence[str]
) -> None:
    if manifest.cycle != place.cycle.id:
        raise CannotRestore(
            f"{file} is a backup of the cycle {manifest.cycle}; {place.data} holds {place.cycle.id}: choose another with --data"
        )
    if manifest.clock != place.state["clock"]:
        raise CannotRestore(
            f"{file} was made on a {manifest.clock} clock, {place.data} runs on a {place.state['clock']} one"
        )
    for service in services:
        if service not in manifest.services:
            raise CannotRestore(f"{file} holds no {service}: it has {', '.join(sorted(manifest.services))}")
        vault = place.data / "keys" / f"vault-{service}.json"
        if not vault.exists() or archive.seal_of(vault) != manifest.services[service].sealed_with:
            raise CannotRestore(
                f"{file} was sealed with other keys than {vault}: nobody could read what it holds of {service}. "
                "It is a backup of another system, or this system's keys are lost"
            )


async def _put_back_beside(place: Standing, service: str, dump: Path) -> str:
    name, role = place.database_of(service) + _BESIDE, DatabaseLogin.of(place.databases[service]).role
    await place.server.drop_database(name)
    login = await place.server.make_database(name, owner=role)
    await dumping.put_back(login, dump)
    try:
        await migrations.upgrade(login.url, service)
    except Exception as error:
        raise CannotRestore(
            f"{service}'s database cannot be brought to this version ({type(error).__name__}: {error}): "
            "is the backup of a newer version?"
        ) from error
    return login.url


async def _take_their_places(place: Standing, services: Sequence[str]) -> dict[str, str]:
    """All of them in one transaction. Returns what each replaced database is called now."""
    live = {service: place.database_of(service) for service in services}
    there = {
        name
        for database in live.values()
        for name in (database, database + _KEPT)
        if await place.server.has_database(name)
    }
    outdated = []
    try:
        async with place.server.connection() as connection, connection.transaction():
            for database in live.values():
                if database + _KEPT in there:
                    outdated.append(database + _KEPT + _OUTDATED)
                    await connection.execute(f"alter database {database}{_KEPT} rename to {outdated[-1]}")
                if database in there:
                    await connection.execute(f"alter database {database} rename to {database}{_KEPT}")
                await connection.execute(f"alter database {database}{_BESIDE} rename to {database}")
    except asyncpg.ObjectInUseError as error:
        raise CannotRestore(f"{error}: stop every process of the services first") from None
    for database in outdated:
        await place.server.drop_database(database)
    return {service: database + _KEPT for service, database in live.items() if database in there}


async def _read_again(bootstrap: str, group: str, manifest: Manifest) -> None:
    """From where its group stood at the backup: what could not be read then is parked again; the inbox drops the rest."""
    stood = {
        TopicPartition(topic, partition): offset
        for topic, partitions in manifest.offsets.get(group, {}).items()
        for partition, offset in partitions.items()
    }
    await set_offsets(bootstrap, group, stood)
