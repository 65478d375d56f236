"""`kaowu templates`: which carrier would refuse which text, and every text as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from contracts.cycle import Cycle
from deploy.templates.page import preview as page_of
from services.notification.templates.linting import SIGNATURE, Judged, judge
from services.notification.templates.rules import CARRIERS, Level
from services.notification.templates.wording import TEMPLATES, TemplatesInvalid, Wording

IN_USE: Final = ("aliyun", "tencent")  # those that the templates have codes of
_CYCLE: Final = Path(__file__).resolve().parents[1] / "cycles" / "2024-health-leshan.toml"

app = typer.Typer(help="The texts that candidates get: judge them, look at them.", no_args_is_help=True)
RootOption = Annotated[Path, typer.Option("--templates", help="Their folder.", exists=True, file_okay=False)]
SignatureOption = Annotated[
    str, typer.Option("--signature", help="What the carrier puts in front: it counts.")
]


@app.command()
def lint(
    carrier: Annotated[
        list[str] | None,
        typer.Option("--carrier", help=f"Ask only these ({', '.join(CARRIERS)}); may be repeated."),
    ] = None,
    templates: RootOption = TEMPLATES,
    signature: SignatureOption = SIGNATURE,
) -> None:
    """Which carrier would refuse which SMS, and why (docs/carrier-rules.md).

    Exit code 1 if one that is asked refuses any; without --carrier all are shown, and those in use decide.
    2: the texts do not load.
    """
    if unknown := sorted(set(carrier or ()) - set(CARRIERS)):
        typer.echo(f"no rules of {', '.join(unknown)} are known: {', '.join(CARRIERS)}", err=True)
        raise typer.Exit(2)
    judged = _judged(templates, carrier or CARRIERS, signature)
    decide = set(carrier or IN_USE)
    refused = 0
    for one in judged:
        for verdict in one.verdicts:
            rule = verdict.rule
            typer.echo(f"{one.file}: {rule.carrier} {rule.level}, {rule.id}: {rule.what}; {verdict.why}")
            refused += rule.level is Level.REFUSES and rule.carrier in decide
    for name in carrier or CARRIERS:
        no = sum(any(v.rule.level is Level.REFUSES for v in one.of(name)) for one in judged)
        typer.echo(f"{name}: takes {len(judged) - no} of {len(judged)}")
    longest = max(judged, key=lambda one: one.parts)
    typer.echo(f"longest: {longest.file}, {longest.parts} parts with its signature")
    raise typer.Exit(1 if refused else 0)


@app.command()
def preview(
    target: Annotated[Path, typer.Option("--to", help="The file to write.")] = Path("build/templates.html"),
    cycle: Annotated[
        Path, typer.Option("--cycle", help="Whose desks and days are shown.", exists=True, dir_okay=False)
    ] = _CYCLE,
    templates: RootOption = TEMPLATES,
    signature: SignatureOption = SIGNATURE,
) -> None:
    """Every text with sample data as one page without any network. Exit code 2: the texts do not load."""
    read = Cycle.read(cycle)
    judged = _judged(templates, CARRIERS, signature)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page_of(Wording.load(templates), judged, read, signature), encoding="utf-8")
    typer.echo(str(target))


def _judged(templates: Path, carriers: list[str] | tuple[str, ...], signature: str) -> list[Judged]:
    try:
        return list(judge(Wording.load(templates), carriers, signature))
    except TemplatesInvalid as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
