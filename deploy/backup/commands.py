"""What `kaowu backup`, `kaowu restore` and `kaowu catch-up` do and say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from contracts.cycle import Cycle
from deploy.backup.archive import CannotRestore
from deploy.backup.backing_up import back_up
from deploy.backup.catching_up import CaughtUp, catch_up, refuse_while_used
from deploy.backup.restoring import Watching, restore
from deploy.local.environment import SERVICES
from deploy.replay.standing import standing
from deploy.replay.topics import offsets_at, set_offsets
from services.chassis.clock import SystemClock

_NAMED: Final = 20  # registrations
_BEFORE: Final = timedelta(hours=1)  # a consumer may have lagged at the moment of the backup


async def backup_system(data: Path, target: Path) -> int:
    """Write a backup and say what is in it."""
    console = Console(highlight=False)
    with _progress(console) as watching:
        async with standing(data, say=watching.say) as place:
            tick = watching.begin("databases written", len(SERVICES))
            done = await back_up(place, target, tick=lambda _: tick(1))
    manifest = done.manifest
    for service, dump in manifest.services.items():
        console.print(
            f"{service:<13} {dump.size / 2**20:8.1f} MiB, {dump.said} events said, {dump.heard} heard",
            markup=False,
            soft_wrap=True,
        )
    console.print(f"as of {_in_words(manifest.at)}: {done.file}", markup=False, soft_wrap=True)
    console.print(
        "without the keys it was sealed with nobody can read the people in it: keep a copy of "
        f"{data / 'keys'} somewhere else",
        markup=False,
        soft_wrap=True,
        style="dim",
    )
    return 0


async def restore_system(data: Path, source: Path, only: Sequence[str]) -> int:
    """Put a backup back, catch up, and say what was restored and what was made up for."""
    console = Console(highlight=False)
    with _progress(console) as watching:
        async with standing(data, say=watching.say, stopped=True) as place:
            done = await restore(place, source, only=only, watching=watching)
    manifest = done.manifest
    console.print(
        f"restored {', '.join(done.services)} as of {_in_words(manifest.at)}: {done.file}",
        markup=False,
        soft_wrap=True,
    )
    for service in done.services:
        dump = manifest.services[service]
        console.print(
            f"  {service}: {dump.said} events said, {dump.heard} heard were in the backup",
            markup=False,
            soft_wrap=True,
        )
    show(done.services, console)
    console.print(
        f"what was replaced is kept as {', '.join(done.kept.values())} until the next restore",
        markup=False,
        soft_wrap=True,
        style="dim",
    )
    console.print(_then(data, virtual=manifest.clock == "virtual"), markup=False, soft_wrap=True)
    return 0


async def catch_up_given(environ: Mapping[str, str], services: Sequence[str], since: datetime) -> int:
    """The same for databases that somebody else has put back. The environment says where they are, as for `check --given`."""
    console = Console(highlight=False)
    chosen = list(services or SERVICES)
    wanted = {f"{service.upper()}_DATABASE_URL": service for service in chosen}
    missing = [
        name for name in (*wanted, "KAFKA_BOOTSTRAP_SERVERS", "KAOWU_CYCLE_FILE") if not environ.get(name)
    ]
    if missing:
        raise CannotRestore(f"set {', '.join(missing)} to say which system is meant")
    at = SystemClock().now()
    if since >= at:
        raise CannotRestore(f"--since {since.isoformat()} is not past")
    databases = {service: environ[name] for name, service in wanted.items()}
    bootstrap = environ["KAFKA_BOOTSTRAP_SERVERS"]
    for service, url in databases.items():
        await refuse_while_used(service, url)
    with _progress(console) as watching:
        done = await catch_up(
            databases,
            Cycle.read(Path(environ["KAOWU_CYCLE_FILE"])),
            bootstrap,
            backup_at=since,
            at=at,
            say=watching.say,
            begin=watching.begin,
        )
        for service in done:
            # What nobody could read then is parked again; the inbox drops the rest.
            await set_offsets(bootstrap, service, await offsets_at(bootstrap, service, since - _BEFORE))
    show(done, console)
    console.print(f"start {', '.join(done)} again, then: kaowu check --given", markup=False, soft_wrap=True)
    return 0


def show(done: Mapping[str, CaughtUp], console: Console) -> None:
    """What was caught up, and what is still to be asked."""
    for service, one in done.items():
        console.print(
            f"  {service}: caught up with {one.folded} events of its own and {one.heard} of others"
            + (f", {one.parked} parked" if one.parked else "")
            + (f"; {one.to_go_out} are still to go out" if one.to_go_out else ""),
            markup=False,
            soft_wrap=True,
        )
        if service == "payment":
            console.print(
                f"    {one.to_ask} registrations will be asked about at the gateway; nobody is forfeited before that "
                "(GET /office/close: recoveries)",
                markup=False,
                soft_wrap=True,
            )
            _show_decisions(one, console)
        if service == "notification":
            console.print(
                f"    {one.to_ask} messages have no known end: an SMS waits ten minutes and is looked up at its carrier "
                "before it is sent; a mail may come twice and is counted as ambiguous",
                markup=False,
                soft_wrap=True,
            )
        if one.strangers:
            console.print(
                f"    {len(one.strangers)} registrations were made since the backup, and who made them is in no event. They "
                "have to pre-register again, or be entered at their desk:",
                markup=False,
                soft_wrap=True,
                style="yellow",
            )
            for registration_id in one.strangers[:_NAMED]:
                console.print(f"      {registration_id}", markup=False, soft_wrap=True, style="yellow")
            if len(one.strangers) > _NAMED:
                console.print(
                    f"      … and {len(one.strangers) - _NAMED} more",
                    markup=False,
                    soft_wrap=True,
                    style="yellow",
                )


def _show_decisions(done: CaughtUp, console: Console) -> None:
    """What two people of the office decided since the backup: what is left of it to do, and what cannot be known."""
    for one in done.left_behind:
        console.print(
            f"    to be decided again: the close of {one.site_id} is {_in_words(one.closes_at)}, and {one.people} of its people "
            "have an earlier one. Payment asks for it at its start (GET /office/decisions); one person of the office approves",
            markup=False,
            soft_wrap=True,
            style="yellow",
        )
    for lost in done.unrecorded:
        console.print(
            f"    decision {lost.decision_id} stands ({lost.moved} moved, {lost.reinstated} taken back), "
            + (
                "and its approval is lost: approve it again"
                if lost.asked
                else "and who made it is lost: keep the paper"
            ),
            markup=False,
            soft_wrap=True,
            style="yellow",
        )
    console.print(
        "    what the office asked for since the backup and nobody had approved is in no event: have it asked for again",
        markup=False,
        soft_wrap=True,
    )


def _then(data: Path, *, virtual: bool) -> str:
    """What to do next: a rehearsal is over, nothing starts it again."""
    checks = f"kaowu check --data {data}, kaowu replay verify --data {data}"
    if virtual:
        return f"it is a rehearsal's: look at it as it is ({checks})"
    return f"start it as before (kaowu up --data {data}), then: {checks}"


def _in_words(at: datetime) -> str:
    return at.astimezone().isoformat(sep=" ", timespec="seconds")


@contextmanager
def _progress(console: Console) -> Iterator[Watching]:
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, transient=True,
    ) as bars:  # fmt: skip

        def begin(what: str, steps: int) -> Callable[[int], None]:
            bar = bars.add_task(what, total=steps)
            return lambda count: bars.advance(bar, count)

        yield Watching(
            say=lambda line: console.print(line, markup=False, style="dim", soft_wrap=True), begin=begin
        )
