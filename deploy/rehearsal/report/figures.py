"""The numbers behind the page: how far people came, day by day, desk by desk, and the last hours of payment."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from contracts.cycle import Site
from deploy.rehearsal.invariants.evidence import Fact
from deploy.rehearsal.report import Run

MINUTE: Final = timedelta(minutes=1)
BEFORE: Final = timedelta(minutes=90)
AFTER: Final = timedelta(minutes=30)
DAILY: Final = {
    "registration.pre-registered": "预报名",
    "confirmation.confirmed": "现场确认",
    "confirmation.approved": "审核通过",
    "payment.paid": "缴费",
}


def facts_of(run: Run, *kinds: str) -> Iterable[Fact]:
    """Facts of kinds like `payment.paid`."""
    for kind in kinds:
        service, _, word = kind.partition(".")
        yield from (fact for fact in run.evidence.facts.get(service, ()) if fact.word == word)


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    count: int
    lost: tuple[tuple[str, int], ...]
    """Why people did not come to the next stage."""


def stages(run: Run) -> list[Stage]:
    """The funnel: how many reached each stage, and what became of those who went no further."""
    # People, each by the registration they had last: whoever came again is still one.
    last = {outcome.registration_id: outcome.state for outcome in run.outcomes if outcome.registration_id}
    registered = set(last)
    confirmed = registered & {fact.key for fact in facts_of(run, "confirmation.confirmed")}
    approved = confirmed & {fact.key for fact in facts_of(run, "confirmation.approved")}
    paid = {key for key in approved if last[key] == "paid"}

    def lost(among: set[str], named: Mapping[str, str], otherwise: str) -> tuple[tuple[str, int], ...]:
        why = Counter(named.get(last[key], otherwise) for key in among)
        return tuple((reason, why[reason]) for reason in (*named.values(), otherwise))

    return [
        Stage("参加演练", len(run.outcomes), (("未能预报名", len(run.outcomes) - len(registered)),)),
        Stage(
            "网上预报名",
            len(registered),
            lost(
                registered - confirmed,
                {"lapsed": "逾期未确认", "withdrawn": "撤回", "rejected": "报名点不予通过"},
                "未确认",
            ),
        ),
        Stage(
            "现场确认",
            len(confirmed),
            lost(confirmed - approved, {"rejected": "审核不通过", "confirmed": "未审结"}, "退回后未再确认"),
        ),
        Stage(
            "审核通过",
            len(approved),
            lost(
                approved - paid,
                {
                    "expired": "未缴费，视为自动放弃",
                    "held": "待核实",
                    "rejected": "通过后又被否决",
                    "approved": "待缴费",
                },
                "通过后又退回",
            ),
        ),
        Stage("完成缴费", len(paid), ()),
    ]


def daily(run: Run) -> dict[str, dict[date, int]]:
    """Facts of each stage by local day: of a payment the day on which it was paid, whenever that was heard of."""
    zone = run.cycle.zone
    return {
        name: Counter(_when(fact).astimezone(zone).date() for fact in facts_of(run, kind))
        for kind, name in DAILY.items()
    }


def _when(fact: Fact) -> datetime:
    paid_at = fact.payload.get("paid_at")
    return fact.at if paid_at is None else datetime.fromisoformat(paid_at)


@dataclass(frozen=True, slots=True)
class Desk:
    site: Site
    hours: str
    people: int
    confirmed: int
    lapsed: int
    rejected: int
    approved: int
    paid: int
    expired: int
    received_fen: int

    @property
    def share_paid(self) -> float:
        return self.paid / self.approved if self.approved else 0.0

    @property
    def share_confirmed(self) -> float:
        return self.confirmed / self.people if self.people else 0.0


def desks(run: Run) -> list[Desk]:
    confirmed = {fact.key for fact in facts_of(run, "confirmation.confirmed")}
    approved = {fact.key for fact in facts_of(run, "confirmation.approved")}
    states: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in run.outcomes:
        count = states[outcome.site]
        count[outcome.state] += outcome.registration_id is not None
        count["people"] += outcome.registration_id is not None
        count["reached confirmed"] += outcome.registration_id in confirmed
        count["reached approved"] += outcome.registration_id in approved
        count["fen"] += outcome.paid_fen
    moved = {
        fact.payload["site_id"]: (fact.payload["opens_at"], fact.payload["closes_at"])
        for fact in facts_of(run, "confirmation.desk-window-set")
    }
    return [
        Desk(
            site,
            _hours(run, site, moved.get(site.id)),
            states[site.id]["people"],
            states[site.id]["reached confirmed"],
            states[site.id]["lapsed"],
            states[site.id]["rejected"],
            states[site.id]["reached approved"],
            states[site.id]["paid"],
            states[site.id]["expired"],
            states[site.id]["fen"],
        )
        for site in run.cycle.sites
    ]


def _hours(run: Run, site: Site, moved: tuple[str, str] | None) -> str:
    zone = run.cycle.zone
    if moved is not None:
        opens, closes = (datetime.fromisoformat(moment).astimezone(zone) for moment in moved)
        note = "（演练中公布）" if site.undated else "（演练中变动）"
    elif site.window is None:
        return "未公布"
    else:
        opens, closes = site.window.opens.astimezone(zone), site.window.closes.astimezone(zone)
        note = ""
    last = closes - MINUTE
    end = (
        f"{last.month}月{last.day}日"
        if not (closes.hour or closes.minute)
        else f"{closes.month}月{closes.day}日{closes:%H:%M}"
    )
    return f"{opens.month}月{opens.day}日—{end}{note}"


@dataclass(frozen=True, slots=True)
class Minute:
    at: datetime
    paid: int
    refused: int
    """Orders and payments that came too late."""
    unpaid: int
    expired: int


def last_minutes(run: Run) -> list[Minute]:
    """The close, minute by minute: who still paid, who came too late, how many still owed."""
    closes = run.cycle.windows.payment.closes
    first, last = closes - BEFORE, closes + AFTER
    change: Counter[datetime] = Counter()
    paid: Counter[datetime] = Counter()
    expired: Counter[datetime] = Counter()
    refused: Counter[datetime] = Counter()
    for fact in facts_of(run, "payment.due"):
        change[_minute(fact.at)] += 1
    for fact in facts_of(run, "payment.paid"):
        at = _minute(datetime.fromisoformat(fact.payload["paid_at"]))
        paid[at] += 1
        change[at] -= 1
    for fact in facts_of(run, "payment.expired"):
        expired[_minute(fact.at)] += 1
        change[_minute(fact.at)] -= 1
    for standing in run.standings.values():
        for done in standing.done:
            if done.verb in ("order", "pay") and done.code is not None:
                refused[_minute(done.at)] += 1
    unpaid = sum(count for at, count in change.items() if at < _minute(first))
    minutes = []
    at = _minute(first)
    while at <= last:
        unpaid += change[at]
        minutes.append(Minute(at, paid[at], refused[at], unpaid, expired[at]))
        at += MINUTE
    return minutes


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)
