"""A backup of a local system, as it runs or as it was left."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from deploy.backup import archive, dumping
from deploy.backup.archive import FORMAT, CannotBackUp, Dump, Manifest
from deploy.local.databases import DatabaseLogin
from deploy.replay.topics import read_offsets
from services.chassis.clock import RehearsalClock
from services.chassis.db import driver_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from deploy.replay.standing import Standing

_COUNTS: Final = """
select (select version_num from alembic_version) as revision, (select count(*) from outbox) as said,
       (select count(*) from inbox) as heard, current_setting('server_version') as postgres
"""


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What was written, and where."""

    file: Path
    manifest: Manifest


def moment_of(place: Standing) -> datetime:
    """What the system's own clock says."""
    clock_file = place.data / "clock"
    return RehearsalClock(clock_file).now() if place.state["clock"] == "virtual" else datetime.now(UTC)


async def back_up(place: Standing, target: Path, *, tick: Callable[[str], None] = lambda _: None) -> BackedUp:
    """Every service's database as of one moment each, into one file. Raises CannotBackUp."""
    # First of all: whatever a group had taken in by now is in its database when that is read.
    offsets = await read_offsets(place.bootstrap)
    at, made_at = moment_of(place), datetime.now(UTC)
    file = archive.place_for(target, place.cycle.id, made_at)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".backup-") as scratch:
        dumps, parts, postgres = {}, {}, ""
        for service, url in place.databases.items():
            dumps[service] = Path(scratch) / f"{service}.dump"
            async with _snapshot(service, url) as (snapshot, counts):
                await dumping.dump(DatabaseLogin.of(url), snapshot, dumps[service])
            postgres = counts["postgres"]
            parts[service] = Dump(
                file=dumps[service].name,
                size=dumps[service].stat().st_size,
                sha256=await asyncio.to_thread(archive.digest_of, dumps[service]),
                revision=counts["revision"],
                said=counts["said"],
                heard=counts["heard"],
                sealed_with=archive.seal_of(place.data / "keys" / f"vault-{service}.json"),
            )
            tick(service)
        manifest = Manifest(
            format=FORMAT,
            cycle=place.cycle.id,
            fingerprint=place.cycle.fingerprint,
            clock=str(place.state["clock"]),
            at=at,
            made_at=made_at,
            postgres=postgres,
            services=parts,
            offsets={group: _by_topic(committed) for group, committed in offsets.items()},
        )
        try:
            await asyncio.to_thread(archive.pack, file, manifest, dumps)
        except OSError as error:
            raise CannotBackUp(f"{file} cannot be written: {error.strerror}") from None
    return BackedUp(file, manifest)


@asynccontextmanager
async def _snapshot(service: str, url: str) -> AsyncIterator[tuple[str, Any]]:
    """A moment of this database that others may look at while the block lasts, and what it counts."""
    try:
        connection = await asyncpg.connect(driver_url(url), timeout=10)
    except (OSError, asyncpg.PostgresError) as error:
        raise CannotBackUp(f"{service}'s database cannot be reached: {type(error).__name__}") from None
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            snapshot = await connection.fetchval("select pg_export_snapshot()")
            yield snapshot, await connection.fetchrow(_COUNTS)
    finally:
        await connection.close()


def _by_topic(committed: Any) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for partition, offset in committed.items():
        found.setdefault(partition.topic, {})[partition.partition] = offset
    return found
