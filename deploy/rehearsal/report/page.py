"""report.html: one file with everything in it, for people who decide whether a cycle may open."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from deploy.rehearsal.invariants.evidence import Finding
from deploy.rehearsal.report import Run, charts, figures, funnel, messages, money, story, told, words


def page(run: Run, findings: Sequence[Finding]) -> str:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["yuan"] = lambda fen: f"{fen / 100:,.2f}"
    environment.filters["n"] = lambda count: f"{count:,}"
    template = environment.from_string(
        (files("deploy.rehearsal.report") / "template.html").read_text(encoding="utf-8")
    )
    return template.render(_content(run, findings))


def _content(run: Run, findings: Sequence[Finding]) -> dict[str, Any]:
    cycle, windows = run.cycle, run.cycle.windows
    counts = funnel(run)
    chosen = story.choose(run)
    life = None if chosen is None else story.tell(run, chosen)
    sent = messages(run)
    desks = figures.desks(run)
    states = Counter[str]()
    for channels in sent.values():
        for several in channels.values():
            states.update(several)
    daily_windows = {
        "预报名": (windows.pre_registration.opens, windows.pre_registration.closes),
        "现场确认": (windows.confirmation.opens, windows.confirmation.closes),
        "缴费": (windows.payment.opens, windows.payment.closes),
    }
    steps = [refusal.code for standing in run.standings.values() for refusal in standing.refused]
    return {
        "cycle": cycle,
        "seed": run.seed,
        "proof": run.proof,
        "counts": counts,
        "words": words,
        "people": len(run.outcomes),
        "steps": run.timing.get("steps", 0),
        "events": sum(len(records) for records in run.evidence.records.values()),
        "money": money(run),
        "told": told.lines(told.ways(run.evidence.messages), list(words.OCCASIONS), list(words.CHANNELS)),
        "ends": told.ENDS,
        "ended_badly": told.MISSED,
        "missed": told.by_person(told.missed(run.evidence.messages, run.person_of)),
        "calls": told.calls(run.lists.calls, run.person_of),
        "sites": {site.id: site.name for site in cycle.sites},
        "moment": lambda at: f"{datetime.fromisoformat(at).astimezone(cycle.zone):%-m月%-d日 %H:%M}",
        "delivered": states["delivered"],
        "not_delivered": sum(states[state] for state in told.MISSED),
        "findings": findings,
        "ok": sum(finding.ok for finding in findings),
        "funnel_chart": Markup(charts.funnel(figures.stages(run))),  # noqa: S704  drawn here, every text escaped
        "days_chart": Markup(charts.days(figures.daily(run), daily_windows, cycle.zone)),  # noqa: S704
        "close_chart": Markup(  # noqa: S704
            charts.close(
                figures.last_minutes(run), windows.payment.closes, windows.payment.last_order_at, cycle.zone
            )
        ),
        "tiles": Markup(charts.tiles(desks, _places(cycle.id))),  # noqa: S704
        "desks": desks,
        "close": run.lists.close,
        "undecided": counts["confirmed"],
        "story": life,
        "story_days": [] if life is None else story.days_of(life.lines, run),
        "refusals": Counter(steps).most_common(),
        "world": run.world.happened,
        "faults": run.world.faults,
        "streams": {topic: len(records) for topic, records in sorted(run.evidence.records.items())},
        "timing": run.timing,
        "runtime": run.runtime,
        "memory": sum(run.runtime.get("memory_mib", {}).values()),
        "close_of": lambda at: words.moment_of_close(at, cycle.zone),
        "day": lambda at: f"{at.astimezone(cycle.zone):%Y年%-m月%-d日 %H:%M}",
    }


def _places(cycle_id: str) -> dict[str, tuple[int, int]]:
    places = tomllib.loads((files("deploy.rehearsal.report") / "places.toml").read_text(encoding="utf-8"))
    return {site: (place[0], place[1]) for site, place in places.get(cycle_id, {}).items()}
