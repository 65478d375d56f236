"""`kaowu replay verify` and `kaowu replay topics`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, help="Rebuild from events: compare with what is live, or fill topics again."
)

Data = Annotated[Path | None, typer.Option("--data", help="The system's directory; default: what ran last.")]


@app.command()
def verify(
    source: Annotated[
        str | None,
        typer.Option("--from", help="topics or outbox; default: the topics if they hold everything."),
    ] = None,
    data: Data = None,
) -> None:
    """Rebuild every service beside its live database and compare, row by row; exit code 1 on a difference."""
    from deploy.cli import latest_data, run  # noqa: PLC0415
    from deploy.replay.commands import verify_system  # noqa: PLC0415
    from deploy.replay.verify import source_of  # noqa: PLC0415

    raise SystemExit(run(lambda: verify_system(data or latest_data(), source_of(source))))


@app.command()
def topics(
    yes: Annotated[
        bool, typer.Option("--yes", help="Every event goes out once more: say that you mean it.")
    ] = False,
    data: Data = None,
) -> None:
    """Fill lost topics again from every service's log. The system must be stopped."""
    from deploy.cli import latest_data, run  # noqa: PLC0415
    from deploy.replay.commands import republish_topics  # noqa: PLC0415

    if not yes:
        typer.echo(
            "every event of every service would go out once more: say --yes if that is meant", err=True
        )
        raise SystemExit(1)
    raise SystemExit(run(lambda: republish_topics(data or latest_data())))
