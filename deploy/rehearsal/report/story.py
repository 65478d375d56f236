"""One person's whole story: what they did, what became true, and what they were told, in the order of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from deploy.rehearsal.invariants.evidence import Fact
from deploy.rehearsal.people_file import moment
from deploy.rehearsal.report import Run, words
from deploy.rehearsal.report.words import (
    CHANNELS,
    CODES,
    FACTS,
    LEVELS,
    MESSAGE_STATES,
    OCCASIONS,
    REVIEW_LEVELS,
    VERBS,
)
from deploy.rehearsal.standing import Done, Standing

FIELD_WORDS: Final = {
    "site": "报名点",
    "specialty": "专业",
    "subjects": "科目",
    "phone": "手机号",
    "employer": "单位",
    "email": "邮箱",
    "name": "姓名",
    "photo": "照片",
}


@dataclass(frozen=True, slots=True)
class Line:
    at: datetime
    kind: str
    """`step`, `fact` or `told`."""
    words: str
    detail: str
    good: bool = True


@dataclass(frozen=True, slots=True)
class Story:
    person: str
    outcome: str
    specialty: str
    site: str
    lines: tuple[Line, ...]


def choose(run: Run) -> Standing | None:
    """Whoever met the most kinds of things and paid in the end; the first of equals, so that a seed shows one story."""
    ended = {outcome.person: outcome.state for outcome in run.outcomes}
    kinds: dict[str, set[str]] = {}
    for service in ("registration", "confirmation", "payment"):
        for fact in run.evidence.facts.get(service, ()):
            kinds.setdefault(fact.key, set()).add(f"{service}.{fact.word}")

    def richness(standing: Standing) -> tuple[int, int, int]:
        seen = set().union(*(kinds.get(one, set()) for one in standing.registrations))
        return (
            ended[standing.person.name] == "paid",
            len(seen),
            len({refusal.code for refusal in standing.refused}),
        )

    return max((one for one in run.standings.values() if one.registrations), key=richness, default=None)


def tell(run: Run, standing: Standing) -> Story:
    lines = [_step(run, done) for done in standing.done]
    mine = set(standing.registrations)
    for service in ("registration", "confirmation", "payment"):
        lines.extend(
            _fact(run, service, fact) for fact in run.evidence.facts.get(service, ()) if fact.key in mine
        )
    lines.extend(
        _told(message) for one in standing.registrations for message in run.lists.messages.get(one, ())
    )
    order = {"step": 0, "fact": 1, "told": 2}
    outcome = next(one for one in run.outcomes if one.person == standing.person.name)
    person = standing.person
    specialties = {one.code: one for one in run.cycle.specialties}
    specialty = specialties.get(person.specialty)
    sites = {site.id: site.name for site in run.cycle.sites}
    return Story(
        person=person.name,
        outcome=outcome.state,
        specialty=f"{specialty.name}（{LEVELS.get(specialty.level, specialty.level)}）"
        if specialty
        else person.specialty,
        site=sites.get(standing.site, standing.site),
        lines=tuple(sorted(lines, key=lambda line: (line.at, order[line.kind]))),
    )


def _step(run: Run, done: Done) -> Line:
    level = done.fields.get("level")
    by = {"confirm": "", "return": "由", "approve": "由", "reject": "由"}.get(done.verb)
    who = f"（{REVIEW_LEVELS.get(str(level), str(level))}）" if by and level else ""
    detail = _fields(run, done.fields)
    if done.code is not None:
        detail = f"被拒绝：{CODES.get(done.code, done.code)}" + (f"；{detail}" if detail else "")
    return Line(done.at, "step", VERBS[done.verb] + who, detail, done.code is None)


def _fields(run: Run, fields: Mapping[str, Any]) -> str:
    """What was changed or found, never the value of anything personal."""
    sites = {site.id: site.name for site in run.cycle.sites}
    documents = {document.id: document.name for document in run.cycle.documents}
    parts = []
    for key, value in fields.items():
        if key in ("site", "desk"):
            parts.append(f"报名点 {sites.get(value, value)}")
        elif key == "missing":
            parts.append("缺 " + "、".join(documents.get(one, one) for one in value))
        elif key == "fix_until":
            close = words.moment_of_close(moment(value), run.cycle.zone) if value else ""
            parts.append(f"补正期限 {close.partition('年')[2]}" if close else "")
        elif key == "callback":
            parts.append("网关未回调" if value == "never" else f"网关回调 {_seconds(value)}")
        elif key in FIELD_WORDS:
            parts.append(f"改{FIELD_WORDS[key]}")
    return "；".join(part for part in parts if part)


def _seconds(value: Any) -> str:
    several = value if isinstance(value, list) else [value]
    return "、".join(f"{one:g} 秒后" for one in several)


def _fact(run: Run, service: str, fact: Fact) -> Line:
    payload = fact.payload
    parts = []
    if "form_version" in payload:
        parts.append(f"申报表第 {payload['form_version']} 版")
    if service == "confirmation" and "level" in payload and fact.word in ("reviewed", "returned", "rejected"):
        parts.append(REVIEW_LEVELS.get(payload["level"], payload["level"]))
    if "decision" in payload:
        parts.append({"approve": "通过", "reject": "不通过", "return": "退回"}.get(payload["decision"], ""))
    if "amount_fen" in payload:
        parts.append(f"{payload['amount_fen'] / 100:,.2f} 元")
    if "paid_at" in payload:
        parts.append(f"网关记载付款 {_local(run, moment(payload['paid_at']))}")
    if "closes_at" in payload and fact.word in ("due", "closing-soon"):
        close = words.moment_of_close(moment(payload["closes_at"]), run.cycle.zone)
        parts.append(f"截止 {close.partition('年')[2]}")
    said = FACTS.get(f"{service}.{fact.word}", fact.word)
    return Line(fact.at, "fact", said, "，".join(parts), fact.word not in ("expired", "lapsed", "rejected"))


def _told(message: Mapping[str, Any]) -> Line:
    channel = CHANNELS.get(message["channel"], message["channel"])
    state = MESSAGE_STATES.get(message["state"], message["state"])
    said = f"{channel}：{OCCASIONS.get(message['occasion'], message['occasion'])}"
    return Line(moment(message["at"]), "told", said, state, message["state"] == "delivered")


def _local(run: Run, at: datetime) -> str:
    local = at.astimezone(run.cycle.zone)
    return f"{local.month}月{local.day}日 {local:%H:%M}"


def days_of(lines: Sequence[Line], run: Run) -> list[tuple[str, list[tuple[str, Line]]]]:
    """Grouped by local day: (day, [(clock, line)])."""
    found: list[tuple[str, list[tuple[str, Line]]]] = []
    for line in lines:
        local = line.at.astimezone(run.cycle.zone)
        day = f"{local.month}月{local.day}日　周{'一二三四五六日'[local.weekday()]}"
        if not found or found[-1][0] != day:
            found.append((day, []))
        found[-1][1].append((f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}", line))
    return found
