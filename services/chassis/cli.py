"""`python -m services.<name> run | migrate | parked list|replay|discard`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer
import uvloop

from contracts.cycle import CycleInvalid
from services.chassis import migrations, parked
from services.chassis.process import CannotStart, Process
from services.chassis.settings import ServiceSettings, SettingsInvalid
from services.chassis.vault import VaultError

S = TypeVar("S", bound=ServiceSettings)


def main(settings_class: type[S], create_app: Callable[[S], Process]) -> None:
    """The command line of one service. Exits 1 with a readable reason when something is wrong."""
    try:
        commands(settings_class, create_app)()
    except (SettingsInvalid, CannotStart, VaultError, CycleInvalid, ValueError, parked.CannotReplay) as error:
        print(f"services.{settings_class.service}: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def commands(settings_class: type[S], create_app: Callable[[S], Process]) -> Callable[[], Any]:
    """The typer application, without the mapping of errors to exits."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    waiting = typer.Typer(no_args_is_help=True, help="Events that failed for good: list, replay, discard.")
    app.add_typer(waiting, name="parked")
    service = settings_class.service

    def settings() -> S:
        return settings_class.of_environment()

    @app.command()
    def run() -> None:
        """Serve until SIGTERM."""
        _run(lambda: create_app(settings()).run())

    @app.command()
    def migrate() -> None:
        """Bring the database to this version's tables. Run it before a start."""
        url = settings_class.given("database_url", os.environ)
        if url is None:
            raise SettingsInvalid(f"{service.upper()}_DATABASE_URL: Field required")
        _run(lambda: migrations.upgrade(url, service))
        print(f"{service}: database is at this version")

    @waiting.command("list")
    def list_(status: Annotated[str, typer.Option(help="parked, replayed or discarded")] = "parked") -> None:
        """One JSON line per event, oldest first, without its payload."""
        for one in _run(lambda: _listed(create_app(settings()), status)):
            print(json.dumps(one.facts(), ensure_ascii=False))

    @waiting.command()
    def replay(
        ids: Annotated[
            list[int] | None, typer.Argument(help="which; none: all that wait, oldest first")
        ] = None,
    ) -> None:
        """Take parked events in again, through the same inbox. Those that fail again stay."""
        replayed, failed = _run(lambda: _replayed(create_app(settings()), ids))
        print(f"{service}: {replayed} replayed, {len(failed)} still parked")
        for reason in failed:
            print(f"  {reason}", file=sys.stderr)
        if failed:
            raise SystemExit(1)

    @waiting.command()
    def discard(parked_id: int, note: Annotated[str, typer.Option(help="why; kept with the event")]) -> None:
        """Decide that a parked event will never be taken in."""
        _run(lambda: _discarded(create_app(settings()), parked_id, note))
        print(f"{service}: parked {parked_id} discarded")

    return app


T = TypeVar("T")


def _run(work: Callable[[], Awaitable[T]]) -> T:
    async def inside() -> T:
        # Built inside the loop: jobs and relay hold events that belong to it.
        return await work()

    return uvloop.run(inside())


async def _listed(process: Process, status: str) -> list[parked.Parked]:
    try:
        async with process.plumbing.database.reading() as uow:
            return await parked.list_parked(uow, status=status, limit=10_000)
    finally:
        await process.plumbing.database.dispose()


async def _replayed(process: Process, ids: list[int] | None) -> tuple[int, list[str]]:
    database = process.plumbing.database
    try:
        if ids is None:
            async with database.reading() as uow:
                ids = [one.id for one in await parked.list_parked(uow, limit=100_000)]
        done, failed, before = 0, dict.fromkeys(ids, ""), -1
        # What came out of order waits for an earlier version that came later: round by round, as long as it helps.
        while failed and done > before:
            before = done
            for parked_id in list(failed):
                try:
                    await parked.replay(database, process.consumers, parked_id)
                    done += 1
                    del failed[parked_id]
                except parked.CannotReplay as error:
                    failed[parked_id] = str(error)
        return done, list(failed.values())
    finally:
        await database.dispose()


async def _discarded(process: Process, parked_id: int, note: str) -> None:
    try:
        await parked.discard(process.plumbing.database, parked_id, note)
    finally:
        await process.plumbing.database.dispose()
