"""`kaowu bench close | streams | messages`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

app = typer.Typer(no_args_is_help=True, help="The benchmarks, ours and the peer in one run.")

DIRECTORY: Final = Path("build/bench")


class ScaleName(StrEnum):
    """A look of a few minutes, or what is recorded."""

    SMALL = "small"
    FULL = "full"


class PartName(StrEnum):
    """What `streams` is made of."""

    P4 = "P4"
    P5 = "P5"
    P6 = "P6"
    SCALE = "scale"


ScaleOption = Annotated[
    ScaleName,
    typer.Option("--scale", help="small: about six minutes; full: about 25."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead of a table.")]


@app.command()
def streams(
    scale: ScaleOption = ScaleName.SMALL,
    as_json: JsonOption = False,
    only: Annotated[list[PartName] | None, typer.Option(help="Only this part (may be repeated).")] = None,
    recorded: Annotated[
        bool | None,
        typer.Option("--record/--no-record", help="In docs/performance.md. Without a word: what is full is."),
    ] = None,
) -> None:
    """Relay, commit to handler, pipeline step and backlog. Exit code 1 if something was lost, doubled or disordered."""
    from deploy.bench import commands  # noqa: PLC0415
    from deploy.cli import run  # noqa: PLC0415

    parts = [part.value for part in only or PartName]
    keep = scale is ScaleName.FULL if recorded is None else recorded
    raise SystemExit(
        run(lambda: commands.streams(scale.value, parts, as_json=as_json, directory=DIRECTORY, recorded=keep))
    )


class CloseName(StrEnum):
    """What `close` is made of."""

    SWEEP = "sweep"
    INSTANT = "instant"
    CALLBACKS = "callbacks"


@app.command()
def close(
    scale: Annotated[
        ScaleName, typer.Option("--scale", help="small: about four minutes; full: a million rows, about 20.")
    ] = ScaleName.SMALL,
    as_json: JsonOption = False,
    only: Annotated[list[CloseName] | None, typer.Option(help="Only this part (may be repeated).")] = None,
    recorded: Annotated[
        bool | None,
        typer.Option("--record/--no-record", help="In docs/performance.md. Without a word: what is full is."),
    ] = None,
) -> None:
    """Sweep, payments meanwhile, callbacks. Exit code 1 if somebody lost a place who must not, or kept one."""
    from deploy.bench import commands  # noqa: PLC0415
    from deploy.cli import run  # noqa: PLC0415

    parts = [part.value for part in only or CloseName]
    keep = scale is ScaleName.FULL if recorded is None else recorded
    raise SystemExit(
        run(lambda: commands.close(scale.value, parts, as_json=as_json, directory=DIRECTORY, recorded=keep))
    )


class MessagesName(StrEnum):
    """What `messages` is made of."""

    CREATING = "creating"
    SENDING = "sending"
    RECEIPTS = "receipts"


@app.command()
def messages(
    scale: Annotated[
        ScaleName,
        typer.Option("--scale", help="small: about nine minutes; full: a million forfeited, about 20."),
    ] = ScaleName.SMALL,
    as_json: JsonOption = False,
    only: Annotated[list[MessagesName] | None, typer.Option(help="Only this part (may be repeated).")] = None,
    people: Annotated[
        int | None, typer.Option(min=2_000, help="So many instead of the scale's, to try its parts.")
    ] = None,
    recorded: Annotated[
        bool | None,
        typer.Option(
            "--record/--no-record", help="In docs/performance.md. Without a word: what is full and whole is."
        ),
    ] = None,
) -> None:
    """The storm of messages after a close. Exit code 1 if somebody was told twice without reason, or not at all."""
    from deploy.bench import commands  # noqa: PLC0415
    from deploy.cli import run  # noqa: PLC0415

    parts = [part.value for part in only or MessagesName]
    keep = scale is ScaleName.FULL and people is None if recorded is None else recorded
    raise SystemExit(
        run(
            lambda: commands.messages(
                scale.value, parts, as_json=as_json, directory=DIRECTORY, recorded=keep, people=people
            )
        )
    )
