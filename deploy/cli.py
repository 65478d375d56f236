"""The command line `kaowu`. Each command is a line or two over what does the work."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
import uvloop

from contracts.cycle import CycleInvalid
from deploy.bench.app import app as bench_app
from deploy.cycle_commands import app as cycle_app
from deploy.evidence.app import close_app, evidence_app
from deploy.messages_commands import messages
from deploy.reconcile_commands import app as reconcile_app
from deploy.replay.app import app as replay_app
from deploy.templates.app import app as templates_app

T = TypeVar("T")

app = typer.Typer(
    help="One exam cycle, from pre-registration to forfeiture, on Kafka and PostgreSQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cycle_app, name="cycle")
app.add_typer(bench_app, name="bench")
app.add_typer(replay_app, name="replay")
app.add_typer(reconcile_app, name="reconcile")
app.add_typer(evidence_app, name="evidence")
app.add_typer(close_app, name="close")
app.add_typer(templates_app, name="templates")
app.command("messages")(messages)

MOMENTS = ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M%z"]
REPORT = Path("build/rehearsal")
_PROBLEMS = 8  # of a cycle file; the linter shows all
LESHAN = Path(__file__).resolve().parent / "cycles" / "2024-health-leshan.toml"
DataOption = Annotated[
    Path | None, typer.Option("--data", help="The system's directory; kept between starts.")
]
LastDataOption = Annotated[
    Path | None, typer.Option("--data", help="The system's directory; default: what ran last.")
]
CycleOption = Annotated[Path, typer.Option("--cycle", help="The cycle file.", exists=True, dir_okay=False)]


def main() -> None:
    """Entry point of the console script."""
    from deploy.backup.archive import CannotBackUp, CannotRestore  # noqa: PLC0415  `kaowu --help` need not wait for them
    from deploy.local.data_directory import InUse, Mismatch  # noqa: PLC0415
    from deploy.local.keys import NoKeys  # noqa: PLC0415
    from deploy.local.processes import NotOurs, StartFailed  # noqa: PLC0415
    from deploy.replay.standing import CannotLook  # noqa: PLC0415

    # Whatever a broker's client would say of each try, over and over, is said once by what gives up.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    try:
        app()
    except (
        StartFailed, InUse, Mismatch, NoKeys, NotOurs, CannotLook, CannotBackUp, CannotRestore,
    ) as error:  # fmt: skip
        _fail(str(error))
    except CycleInvalid as invalid:
        _fail(_no_cycle(invalid))
    except OSError as error:
        # A directory that may not be written, a disk that is full: no fault of the program, and not one of its bugs.
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@app.command()
def up(cycle: CycleOption = LESHAN, data: DataOption = None) -> None:
    """The local system on the real clock, in the foreground. Ctrl-C ends it; the same data goes on."""
    from deploy.local.data_directory import remember  # noqa: PLC0415
    from deploy.local.foreground import stay_up  # noqa: PLC0415

    remember(data or default_data())
    run(lambda: stay_up(data or default_data(), cycle, say=typer.echo))


@app.command()
def rehearse(
    cycle: CycleOption = LESHAN,
    candidates: Annotated[int, typer.Option(min=1, help="How many invented people.")] = 4000,
    seed: Annotated[int, typer.Option(help="Determines them and all they do.")] = 20240208,
    people: Annotated[
        Path | None, typer.Option(help="A people file (JSON Lines) instead.", exists=True, dir_okay=False)
    ] = None,
    report: Annotated[Path, typer.Option(help="Where the report goes.")] = REPORT,
    data: Annotated[
        Path | None,
        typer.Option(help="The system's directory, made anew and kept. Default: inside the report's."),
    ] = None,
) -> None:
    """Run a whole cycle to its end with invented people on a virtual clock, and write the report."""
    from deploy.local.data_directory import remember  # noqa: PLC0415
    from deploy.rehearsal import commands  # noqa: PLC0415

    remember(data or report / "system")
    raise SystemExit(
        run(
            lambda: commands.rehearse(
                cycle=cycle,
                candidates=candidates,
                seed=seed,
                people=people,
                report=report,
                data=data or report / "system",
            )
        )
    )


@app.command()
def check(
    data: LastDataOption = None,
    given: Annotated[
        bool, typer.Option("--given", help="The system the environment names, not a local one.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of lines.")] = False,
) -> None:
    """The invariants over a system at rest; exit code 1 on a violation."""
    from deploy.rehearsal import commands  # noqa: PLC0415

    raise SystemExit(
        run(lambda: commands.check(data=data or latest_data(given=given), given=given, as_json=as_json))
    )


@app.command()
def backup(
    # As it was typed: a path forgets the slash that says "directory".
    target: Annotated[str, typer.Argument(help="The file to write, or a directory for it (ends with /).")],
    data: LastDataOption = None,
) -> None:
    """Write every database of the local system to one file, as it runs or as it was left."""
    from deploy.backup.archive import target_of  # noqa: PLC0415
    from deploy.backup.commands import backup_system  # noqa: PLC0415

    raise SystemExit(run(lambda: backup_system(data or latest_data(), target_of(target))))


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="A backup, or a directory of them: the latest.")],
    only: Annotated[list[str] | None, typer.Option(help="This service alone; may be repeated.")] = None,
    data: LastDataOption = None,
) -> None:
    """Put a backup back, and catch up with what was said since. The system must be stopped."""
    from deploy.backup.commands import restore_system  # noqa: PLC0415

    raise SystemExit(run(lambda: restore_system(data or latest_data(), source, only or ())))


@app.command("catch-up")
def catch_up(
    since: Annotated[datetime, typer.Option(help="The moment of the backup, with offset.", formats=MOMENTS)],
    service: Annotated[list[str] | None, typer.Option(help="Which was put back; all unless given.")] = None,
) -> None:
    """Databases that somebody else has put back, named by the environment: catch up with what was said since."""
    from deploy.backup.commands import catch_up_given  # noqa: PLC0415

    raise SystemExit(run(lambda: catch_up_given(os.environ, service or (), since)))


@app.command()
def token(
    roles: Annotated[
        list[str], typer.Argument(help="office, ops, desk:<site>, reviewer:<level>, candidate, …")
    ],
    subject: Annotated[str, typer.Option(help="Whose account.")] = "operator",
    days: Annotated[int, typer.Option(min=1, help="Accepted for so long.")] = 1,
    data: DataOption = None,
) -> None:
    """A bearer token that only the local system in this directory accepts."""
    from deploy.local.minting import mint_for  # noqa: PLC0415

    typer.echo(mint_for(data or latest_data(), roles, subject, days=days))


@app.command()
def fetch() -> None:
    """What a first start would fetch: Kafka's jars, by Maven, into the cache outside the checkout."""
    from deploy.local.kafka import (  # noqa: PLC0415
        Missing,
        archive_classes,
        fetch_jars,
        find_java,
        jars_are_there,
        kafka_version,
    )

    try:
        find_java()
        if not jars_are_there():
            typer.echo(f"fetching Kafka {kafka_version()} with Maven, once for this machine …")
        fetch_jars()
        run(archive_classes)
    except Missing as missing:
        # No failure: other rungs exist, and the start will say which one it takes and why.
        typer.echo(f"no local Kafka on this machine: {missing}", err=True)


def default_data() -> Path:
    """Where `kaowu up` keeps its system unless told otherwise."""
    from deploy.local.data_directory import default_directory  # noqa: PLC0415

    return default_directory()


def latest_data(*, given: bool = False) -> Path:
    """The system that ran last, of `kaowu up` or of a rehearsal, wherever it lies. Says which, since nobody named it.

    `given`: it is the environment's that is meant, and this one is nobody's matter.
    """
    from deploy.local.data_directory import last_used, remembered  # noqa: PLC0415

    found = last_used(default_data(), REPORT / "system", *remembered())
    if not given:
        typer.echo(f"of the system in {found} (--data names another)", err=True)
    return found


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it. Ctrl-C, SIGTERM and SIGHUP cancel it, so that what it started is always ended in order."""
    received: list[signal.Signals] = []

    async def inside() -> T:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()

        def end(number: signal.Signals) -> None:
            received.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, end, number)
        return await work()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(inside())
    except asyncio.CancelledError:
        by = received[0] if received else signal.SIGTERM
        typer.echo(f"kaowu: stopped by {by.name} before it was done; what it had started was ended", err=True)
        raise SystemExit(128 + by) from None


def _no_cycle(invalid: CycleInvalid) -> str:
    """A line for each problem, at most some: `kaowu cycle lint` has them all."""
    file = invalid.file or "the cycle file"
    lines = [f"{file} is no cycle:", *(f"  {problem}" for problem in invalid.problems[:_PROBLEMS])]
    if (more := len(invalid.problems) - _PROBLEMS) > 0:
        lines.append(f"  … and {more} more: kaowu cycle lint {file}")
    return "\n".join(lines)


def _fail(message: str) -> NoReturn:
    typer.echo(f"kaowu: {message}", err=True)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
