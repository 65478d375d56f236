"""Is this file what it was, and does it prove what it says? Without our database, our services or a network.

Four things hold a file together, from weak to strong: a checksum for every value (finds accidents), the leaf (binds every
fact of the forfeiture), the way from the leaf to the root that the close published (whoever has that root from elsewhere
gives it as `--root`), and the gateways' own seals over what they answered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from deploy.evidence.form import (
    FORMAT,
    LARGEST,
    VERSION,
    Evidence,
    MessagePart,
    canonical,
    checksums,
    values,
)
from deploy.evidence.leaf import V1, V2, bound_fields, leaf_hash, leaf_text
from deploy.evidence.orders import check_orders
from deploy.evidence.roots import check_roots
from deploy.evidence.verdict import Unreadable, Verdict, instant

RULES: Final[Mapping[str, str]] = {
    "unpaid-at-close": "未按规定时间完成网上缴费的，视为自动放弃考试。不受理现场缴费。",
}
"""The notice's own sentence by the rule's name."""
_AGREE: Final = timedelta(seconds=5)  # clocks, as the guard compares them
_APART: Final = timedelta(minutes=1)  # clocks of two services, which nobody compares
_STATES: Final = frozenset({"created", "sending", "accepted", "delivered", "undelivered", "superseded"})


def verify_file(path: Path, root: str | None = None) -> Verdict:
    """Check a file. Raises Unreadable."""
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise Unreadable(f"{path}: {size} bytes; no evidence file is larger than {LARGEST}")
        raw = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from None
    return verify(raw, root, str(path))


def verify(raw: bytes, root: str | None = None, name: str = "file") -> Verdict:
    """Check what a file holds. Raises Unreadable."""
    content = _read(raw, name)
    verdict = Verdict()
    _check_sums(verdict, content)
    try:
        evidence = Evidence.model_validate_json(raw)
    except ValidationError as error:
        named = {problem.path for problem in verdict.problems}
        for found in error.errors():
            where = _where(found["loc"])
            if found["type"] == "missing":
                verdict.add(where, "a value", "nothing")
            elif found["type"] != "extra_forbidden":
                verdict.add(where, found["msg"], found.get("input"))
            elif where not in named:  # the checksums name what nobody wrote as well
                verdict.add(where, "nothing here", found.get("input"))
        return verdict
    verdict.evidence = evidence
    for check in (_facts, _cycle, _leaf, _clocks, check_orders, _reminders, _notices):
        check(verdict, evidence)
    check_roots(verdict, evidence, root)
    return verdict


def _read(raw: bytes, name: str) -> dict[str, Any]:
    if len(raw) > LARGEST:
        raise Unreadable(f"{name}: {len(raw)} bytes; no evidence file is larger than {LARGEST}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise Unreadable(f"{name}: the same name twice in one object")
        return dict(pairs)

    def number(text: str) -> object:
        raise Unreadable(f"{name}: {text} is no number of an evidence file")

    try:
        content = json.loads(raw.decode(), object_pairs_hook=once, parse_float=number, parse_constant=number)
    except UnicodeDecodeError:
        raise Unreadable(f"{name}: no UTF-8 text") from None
    except (json.JSONDecodeError, RecursionError) as error:
        where = (
            f" at line {error.lineno}, column {error.colno}"
            if isinstance(error, json.JSONDecodeError)
            else ""
        )
        raise Unreadable(
            f"{name}: no JSON, or cut short{where}: have it sent again by whoever wrote it"
        ) from None
    try:
        canonical(content)
    except UnicodeEncodeError:
        raise Unreadable(f"{name}: half a character, which no text has") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise Unreadable(f"{name}: no evidence file: format is not {FORMAT}")
    if content.get("version") != VERSION or isinstance(content["version"], bool):
        raise Unreadable(f"{name}: version {content.get('version')!r}: this program reads version {VERSION}")
    return content


def _check_sums(verdict: Verdict, content: Mapping[str, Any]) -> None:
    stated = content.get("checksums")
    if not isinstance(stated, dict):
        return
    verdict.same("digest", sha256(canonical(stated)).hexdigest(), content.get("digest"))
    now = checksums(content)
    kept = dict(values({name: part for name, part in content.items() if name != "checksums"}))
    for path, value in now.items():
        if path not in stated:
            verdict.add(path, "nothing here when the file was written", kept[path])
        elif stated[path] != value:
            verdict.add(path, f"a value with checksum {stated[path]}", kept[path])
    for path in stated.keys() - now.keys():
        verdict.add(path, "a value that was here when the file was written", "nothing")


def _facts(verdict: Verdict, evidence: Evidence) -> None:
    facts = evidence.forfeiture
    verdict.same("forfeiture.rule_text", RULES.get(facts.rule, "a rule of the notice"), facts.rule_text)
    verdict.not_before("forfeiture.expired_at", facts.closes_at, facts.expired_at)
    verdict.not_before("forfeiture.closes_at", facts.told_closes_at, facts.closes_at)
    verdict.not_before("made_at", facts.expired_at, evidence.made_at)


def _cycle(verdict: Verdict, evidence: Evidence) -> None:
    cycle, facts = evidence.cycle, evidence.forfeiture
    text = json.dumps(cycle.content, sort_keys=True, ensure_ascii=False)
    now = sha256(text.encode()).hexdigest()
    if now != cycle.fingerprint:
        verdict.add("cycle.content", f"a cycle with the fingerprint {cycle.fingerprint}", f"one with {now}")
    verdict.same("cycle.id", cycle.content.get("id"), cycle.id)
    try:
        closes = max(one["closes"] for one in cycle.content["windows"]["payment"]["intervals"])
        enforced = datetime.fromisoformat(closes)
    except (KeyError, TypeError, ValueError):
        verdict.add("cycle.content.windows.payment", "a payment window", "none")
        return
    if enforced != datetime.fromisoformat(facts.closes_at):
        verdict.notes.append(
            f"the window of this registration closed at {facts.closes_at}, not at the cycle's {closes}: it was moved by two "
            "people of the office (bound by the leaf; who and why stands in the office's audit trail)"
        )


def _leaf(verdict: Verdict, evidence: Evidence) -> None:
    text = evidence.leaf.text
    form = text.partition("|")[0]
    if form not in {V1, V2}:
        verdict.add("leaf.text", f"{V2} or {V1}", form)
        return
    if form == V1:
        verdict.notes.append(
            "made by a version whose leaf binds neither moments, amounts of orders, reminders nor clocks: these are only stated"
        )
    verdict.same("leaf.hash", leaf_hash(text), evidence.leaf.hash)
    if leaf_text(evidence, form) == text:
        return
    found = len(verdict.problems)
    bound = text.split("|")
    sections = bound_fields(evidence, form)
    if len(bound) != len(sections):
        verdict.add("leaf.text", f"{len(sections)} sections", f"{len(bound)}")
        return
    for section, line_text in zip(sections, bound, strict=True):
        lines = line_text.split(" ")
        where = section[0][0][0].partition("[")[0]
        if len(lines) != len(section):
            verdict.add(
                where,
                f"{0 if line_text == 'none' else len(lines)} of them, as the leaf binds",
                f"{len(section)}",
            )
            continue
        for line, said in zip(section, lines, strict=True):
            fields = said.split(":")
            if len(fields) != len(line):
                verdict.add(line[0][0], f"{said}, as the leaf binds", ":".join(value for _, value in line))
                continue
            for (path, value), expected in zip(line, fields, strict=True):
                verdict.same(path, expected, value, "bound by the leaf")
    if len(verdict.problems) == found:
        verdict.add("leaf.text", leaf_text(evidence, form), text)


def _clocks(verdict: Verdict, evidence: Evidence) -> None:
    clocks = evidence.clocks
    if clocks is None:
        verdict.notes.append("what the clocks said was not recorded")
        return
    said = {name: instant(getattr(clocks, name)) for name in ("application", "database", "broker")}
    for name in ("database", "broker"):
        if abs(said[name] - said["application"]) > _AGREE:
            verdict.add(
                f"clocks.{name}", f"within {_AGREE.seconds} s of {clocks.application}", getattr(clocks, name)
            )
    if clocks.virtual:
        verdict.notes.append(
            "a rehearsal: the rules went by a virtual clock, the three clocks are the real ones beneath it"
        )
        return
    for name, at in said.items():
        if at < instant(evidence.forfeiture.closes_at) - _AGREE:
            verdict.add(
                f"clocks.{name}",
                f"not before the close {evidence.forfeiture.closes_at}",
                getattr(clocks, name),
            )


def _reminders(verdict: Verdict, evidence: Evidence) -> None:
    facts = evidence.forfeiture
    moments = [one.at for one in evidence.reminders]
    if moments != sorted(moments):
        verdict.add("reminders", "in the order of their moments", ", ".join(moments))
    for earlier, later in pairwise(evidence.reminders):
        if earlier == later:
            verdict.add("reminders", "each once", "one twice")
    for place, one in enumerate(evidence.reminders):
        at = f"reminders[{place}]"
        verdict.before(f"{at}.at", one.at, facts.closes_at)
        verdict.before(f"{at}.at", one.at, one.told_closes_at)
        early = instant(one.told_closes_at) - timedelta(seconds=one.offset_seconds)
        if instant(one.at) < early:
            verdict.add(f"{at}.at", f"not before {one.offset_seconds} s before {one.told_closes_at}", one.at)
        for number, message in enumerate(one.messages):
            _message(verdict, f"{at}.messages[{number}]", message, "closing-soon", one.event_id, one.at)


def _notices(verdict: Verdict, evidence: Evidence) -> None:
    for number, message in enumerate(evidence.notices):
        _message(
            verdict,
            f"notices[{number}]",
            message,
            "expired",
            evidence.forfeiture.event_id,
            evidence.forfeiture.expired_at,
        )
    messages = [
        one.message_id for one in (*(m for r in evidence.reminders for m in r.messages), *evidence.notices)
    ]
    if len(messages) != len(set(messages)):
        verdict.add("notices", "each message once", "one twice")
    verdict.notes.append(
        "messages and their receipts, made_at, the numbers of events and the counts of the close are stated by us: "
        "no leaf binds them"
    )


def _message(
    verdict: Verdict, at: str, message: MessagePart, occasion: str, cause: str, not_before: str
) -> None:
    verdict.same(f"{at}.occasion", occasion, message.occasion)
    verdict.same(f"{at}.caused_by", cause, message.caused_by)
    if message.channel not in {"sms", "email"}:
        verdict.add(f"{at}.channel", "sms or email", message.channel)
    if message.state not in _STATES:
        verdict.add(f"{at}.state", " or ".join(sorted(_STATES)), message.state)
    if (message.state == "undelivered") != (message.reason_code is not None):
        verdict.add(f"{at}.reason_code", "a reason, of what is undelivered only", message.reason_code)
    verdict.not_before(f"{at}.created_at", not_before, message.created_at, apart=_APART)
    verdict.not_before(f"{at}.state_at", message.created_at, message.state_at)


def _where(loc: tuple[int | str, ...]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "file"
