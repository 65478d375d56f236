"""`kaowu evidence REGISTRATION`, `kaowu evidence verify FILE`, `kaowu close preview`, `kaowu close show`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from typer.core import TyperGroup

Data = Annotated[Path | None, typer.Option("--data", help="The system's directory; default: what ran last.")]
Given = Annotated[bool, typer.Option("--given", help="The system the environment names, not a local one.")]
_MOMENTS = ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M%z"]


def _place(data: Path | None, *, given: bool) -> Path:
    from deploy.cli import latest_data  # noqa: PLC0415  it registers this module

    if given and data is not None:
        raise typer.BadParameter("names the system by the environment: without --data", param_hint="--given")
    return data or latest_data(given=given)


class _WriteUnlessNamed(TyperGroup):
    """`kaowu evidence REGISTRATION` is `kaowu evidence write REGISTRATION`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in {"--help", "-h"}:
            args = ["write", *args]
        return super().parse_args(ctx, args)


evidence_app = typer.Typer(
    no_args_is_help=True,
    cls=_WriteUnlessNamed,
    help="Prove one forfeiture: write its evidence file (kaowu evidence REGISTRATION -o FILE), or check one.",
)
close_app = typer.Typer(no_args_is_help=True, help="The close of the payment window.")


@evidence_app.command()
def write(
    registration: Annotated[UUID, typer.Argument(help="Of a registration that was forfeited.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.", dir_okay=False)],
    data: Data = None,
    given: Given = False,
) -> None:
    """Write everything that proves this forfeiture to one file that needs nothing else."""
    from deploy.cli import run  # noqa: PLC0415  it registers this module
    from deploy.evidence import commands  # noqa: PLC0415

    raise SystemExit(
        run(lambda: commands.write(_place(data, given=given), registration, output, use_given=given))
    )


@evidence_app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="An evidence file.")],
    root: Annotated[
        str | None,
        typer.Option(help="The root that the close published, from the topic or the office's notice (hex)."),
    ] = None,
) -> None:
    """Check a file without database, services or network. 0: it holds; 1: it does not, and where; 2: it cannot be read."""
    from deploy.evidence import commands  # noqa: PLC0415

    raise SystemExit(commands.check(file, root))


@close_app.command()
def preview(
    data: Data = None,
    given: Given = False,
    closes_at: Annotated[
        datetime | None,
        typer.Option("--closes-at", help="Only of the window that closes then.", formats=_MOMENTS),
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="Only of this desk: what it can look at each morning.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many people by name.")] = 50,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document instead of tables, with everybody.")
    ] = False,
) -> None:
    """Who would be forfeited if the window closed now, why, and how much money is under way. Nothing is changed."""
    from deploy.cli import run  # noqa: PLC0415
    from deploy.evidence import commands  # noqa: PLC0415

    raise SystemExit(
        run(
            lambda: commands.preview(
                _place(data, given=given),
                closes_at,
                site_id=site,
                use_given=given,
                as_json=as_json,
                limit=limit,
            )
        )
    )


@close_app.command()
def show(
    data: Data = None,
    given: Given = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of lines.")] = False,
) -> None:
    """Where the close stands, what stops it, who is held, and the roots to publish. Nothing is changed."""
    from deploy import close_commands  # noqa: PLC0415
    from deploy.cli import run  # noqa: PLC0415

    raise SystemExit(
        run(lambda: close_commands.show(_place(data, given=given), use_given=given, as_json=as_json))
    )
