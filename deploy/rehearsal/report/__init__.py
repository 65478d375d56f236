"""What a rehearsal came to, as data: one dictionary for machines; the same for people is drawn from it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contracts.cycle import Cycle
from deploy.rehearsal.invariants.evidence import Evidence, Finding
from deploy.rehearsal.outcomes import STATES, Lists, Outcome
from deploy.rehearsal.people import People
from deploy.rehearsal.report import told
from deploy.rehearsal.standing import Standing
from deploy.rehearsal.world import World


@dataclass(slots=True)
class Run:
    """Everything learnt in one rehearsal."""

    cycle: Cycle
    seed: int
    people: People
    standings: Mapping[str, Standing]
    outcomes: Sequence[Outcome]
    lists: Lists
    evidence: Evidence
    world: World
    runtime: Mapping[str, Any]
    timing: dict[str, Any]
    proof: str | None = None
    """The evidence file of one forfeiture, beside the report."""

    @property
    def person_of(self) -> dict[str, str]:
        """registration → person of the file"""
        return {one: name for name, standing in self.standings.items() for one in standing.registrations}


def summary(run: Run, findings: Sequence[Finding]) -> dict[str, Any]:
    """`report.json`."""
    return {
        "cycle": {"id": run.cycle.id, "fingerprint": run.cycle.fingerprint},
        "seed": run.seed,
        "runtime": run.runtime,
        "funnel": funnel(run),
        "by_site": by_site(run),
        "money": money(run),
        "messages": messages(run),
        "message_funnel": [way.facts() for way in told.ways(run.evidence.messages)],
        "undelivered": told.missed(run.evidence.messages, run.person_of),
        "calls": told.calls(run.lists.calls, run.person_of),
        "invariants": [finding.facts() for finding in findings],
        "faults": dict(sorted(run.world.faults.items())),
        "world": [
            {"at": one.at.isoformat(), "do": one.verb, **one.fields, "outcome": one.outcome}
            for one in run.world.happened
        ],
        "streams": {topic: len(records) for topic, records in sorted(run.evidence.records.items())},
        "close": {
            key: run.lists.close.get(key)
            for key in ("state", "closed_at", "counts", "sums_fen", "proofs", "published")
        },
        "refusals": dict(Counter(code for one in run.outcomes for _, code in one.refused).most_common()),
        "timing": run.timing,
    }


def funnel(run: Run) -> dict[str, int]:
    counts = Counter(outcome.state for outcome in run.outcomes)
    return {state: counts.get(state, 0) for state in STATES}


def by_site(run: Run) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {site.id: Counter() for site in run.cycle.sites}
    for outcome in run.outcomes:
        found.setdefault(outcome.site, Counter())[outcome.state] += 1
    return {
        site: {state: counts[state] for state in STATES if counts[state]} for site, counts in found.items()
    }


def money(run: Run) -> dict[str, int]:
    """In fen, from the ledger of the payment service."""
    return {key: int(run.lists.money.get(key) or 0) for key in ("received", "refunded", "due", "held")}


def messages(run: Run) -> dict[str, dict[str, dict[str, int]]]:
    """occasion → channel → state → how many."""
    found: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for several in run.lists.messages.values():
        for message in several:
            found[message["occasion"]][message["channel"]][message["state"]] += 1
    return {
        occasion: {channel: dict(sorted(states.items())) for channel, states in sorted(channels.items())}
        for occasion, channels in sorted(found.items())
    }
