"""The end of a rehearsal in a terminal: funnel, money, messages and invariants as tables, and what to open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.rehearsal.invariants.evidence import Finding
from deploy.rehearsal.report import Run, funnel, messages, money, told
from deploy.rehearsal.report.words import MONEY, OCCASIONS, STATES

SHOWN = 5  # violations of one invariant; the report has them all


def show(run: Run, findings: Sequence[Finding], report: Path, console: Console) -> None:
    people = Table("结果", "人数", title="漏斗", title_justify="left")
    for state, count in funnel(run).items():
        people.add_row(f"{STATES[state]} {state}", f"{count:,}")
    sums = Table("资金", "元", title="资金", title_justify="left")
    for what, fen in money(run).items():
        sums.add_row(MONEY[what], f"{fen / 100:,.2f}")
    heard = Table("场合", "短信送达", "邮件送达", "未送达", "不再需要", title="消息", title_justify="left")
    sent = messages(run)
    # In the order of a registration's life, as the page has them.
    for occasion in (*(one for one in OCCASIONS if one in sent), *sorted(sent.keys() - OCCASIONS.keys())):
        channels = sent[occasion]
        other: Counter[str] = Counter()
        for states in channels.values():
            other.update(states)
        heard.add_row(
            OCCASIONS.get(occasion, occasion),
            f"{channels.get('sms', {}).get('delivered', 0):,}",
            f"{channels.get('email', {}).get('delivered', 0):,}",
            f"{sum(other[state] for state in told.MISSED):,}",
            f"{other['superseded']:,}",
        )
    for table in (people, sums, heard):
        console.print(table)
    waiting = sum(call["closed_at"] is None for call in run.lists.calls)
    say(console, f"电话名单 calls: {len(run.lists.calls)}, 待致电 to be called {waiting}")
    show_findings(findings, console)
    for one in run.world.happened:
        if not one.outcome.startswith("done"):
            say(console, (f"{one.at.isoformat()} {one.verb}: {one.outcome}", "yellow"))
    memory = run.runtime.get("memory_mib", {})
    timing = run.timing
    say(
        console,
        f"{len(run.outcomes):,} people, {timing['steps']:,} steps, "
        f"{sum(len(records) for records in run.evidence.records.values()):,} events: "
        f"{timing['rehearsal']:.1f} s after set-up ({run.runtime['started_in_seconds']:.1f} s); "
        f"{sum(memory.values()):,.0f} MiB in all",
    )
    say(console, f"open {report / 'report.html'}")
    if run.proof:
        say(console, f"the proof of one forfeiture: kaowu evidence verify {report / run.proof}")


def show_findings(findings: Sequence[Finding], console: Console) -> None:
    for finding in findings:
        mark = ("ok  ", "green") if finding.ok else ("FAIL", "red")
        say(console, mark, f" {finding.id:<4} {finding.title}: {finding.checked}")
        for violation in finding.violations[:SHOWN]:
            say(console, f"          {violation}")
        if len(finding.violations) > SHOWN:
            say(console, f"          … and {len(finding.violations) - SHOWN} more")


def say(console: Console, *parts: str | tuple[str, str]) -> None:
    """One line, however long: whoever reads it in a file or through a filter finds all of a finding in it.

    A part is what it says, or (what, style); brackets in it are brackets."""
    console.print(Text.assemble(*parts), soft_wrap=True)
