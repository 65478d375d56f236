"""What a person, a desk or a reviewer does at a step, as requests to the routes. Decides nothing: the system says yes or no."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from contracts.cycle import Cycle
from contracts.reasons import ReasonCode
from deploy.rehearsal.doors import Answer, Doors
from deploy.rehearsal.identity import GIVEN_FIELDS, varied
from deploy.rehearsal.people import Person, Step, Verb
from deploy.rehearsal.people_file import callbacks
from deploy.rehearsal.standing import Standing

BULK: Final = 500
# What is recorded, without a call, of somebody whose pre-registration was refused: there is nothing to call about.
WITHOUT_REGISTRATION: Final[Mapping[Verb, str]] = {
    Verb.AMEND: "not-allowed",
    Verb.WITHDRAW: "not-allowed",
    Verb.CONFIRM: "not-allowed",
    Verb.RETURN: "not-allowed",
    Verb.REJECT: "not-allowed",
    Verb.APPROVE: "not-confirmed",
    Verb.ORDER: "not-approved",
    Verb.PAY: "gateway-refused",
}
_RENAMED: Final = {"site": "site_id", "specialty": "specialty_code"}
_REASON_WORDS: Final = {code.text: code.value for code in ReasonCode}
_DECISIONS: Final = {Verb.APPROVE: "approve", Verb.REJECT: "reject", Verb.RETURN: "return"}
_ACCOUNTS: Final = uuid.UUID("6b616f77-7500-5000-8000-616363747300")
FIRST_LEVEL: Final = "desk"
Act = Callable[[Standing, Step], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Addresses:
    registration: str
    confirmation: str
    payment: str
    simulators: str


class Acts:
    def __init__(self, doors: Doors, addresses: Addresses, cycle: Cycle) -> None:
        self._doors = doors
        self._at = addresses
        self._cycle = cycle
        self._needed = {document.id: document.needed for document in cycle.documents}
        self._by_verb: Mapping[Verb, Act] = {
            Verb.AMEND: self._amend,
            Verb.WITHDRAW: self._withdraw,
            Verb.CONFIRM: self._confirm,
            Verb.RETURN: self._send_away,
            Verb.REJECT: self._send_away,
            Verb.ORDER: self._order,
            Verb.PAY: self._pay,
        }

    async def do(self, standing: Standing, step: Step) -> str | None:
        """The step's refusal code, or None when it was done. Bulk decisions go through `decide`."""
        if step.verb is Verb.PRE_REGISTER:
            return await self._pre_register(standing, step)
        if standing.registration_id is None:
            return WITHOUT_REGISTRATION[step.verb]
        if step.verb is Verb.APPROVE:
            return (await self.decide(level_of(step), [(standing, step)]))[0]
        return await self._by_verb[step.verb](standing, step)

    async def decide(self, level: str, turns: Sequence[tuple[Standing, Step]]) -> list[str | None]:
        """One level's decisions of one moment, together as reviewers make them; a code per row."""
        rows = [
            self._decision(standing, step) for standing, step in turns if standing.registration_id is not None
        ]
        codes: list[str | None] = []
        for start in range(0, len(rows), BULK):
            answer = await self._doors.ask(
                f"{len(rows)} decisions of level {level}",
                "POST",
                f"{self._at.confirmation}/review/{level}/decisions",
                self._doors.headers(f"reviewer:{level}", f"reviewer-{level}"),
                {"decisions": rows[start : start + BULK]},
            )
            if answer.code is not None:
                # A level that the cycle does not have: refused for everybody whom the file sends there.
                codes += [answer.code] * len(rows[start : start + BULK])
                continue
            results = {row["registration_id"]: row for row in answer.data["results"]}
            for row in rows[start : start + BULK]:
                result = results[row["registration_id"]]
                codes.append(None if result["ok"] else str(result["code"]))
        answered = iter(codes)
        return [
            WITHOUT_REGISTRATION[step.verb] if standing.registration_id is None else next(answered)
            for standing, step in turns
        ]

    def _decision(self, standing: Standing, step: Step) -> dict[str, Any]:
        row: dict[str, Any] = {
            "registration_id": standing.registration_id,
            "decision": _DECISIONS[step.verb],
            "reason_codes": reason_codes(step) if step.verb is not Verb.APPROVE else [],
        }
        if step.verb is Verb.RETURN and step.fields.get("fix_until") is not None:
            row["fix_until"] = step.fields["fix_until"]
        if step.verb is not Verb.APPROVE:
            row["note"] = note_of(step)
        return row

    async def _pre_register(self, standing: Standing, step: Step) -> str | None:
        person, fields = standing.person, step.fields
        identity = varied(standing.identity, fields)
        site = fields.get("site", person.site)
        body = {
            **{key: getattr(identity, key) for key in GIVEN_FIELDS},
            "site_id": site,
            "specialty_code": fields.get("specialty", person.specialty),
            "subjects": fields.get("subjects", list(person.subjects)),
            "returning": fields.get("returning", person.returning),
        }
        subject = str(uuid.uuid5(_ACCOUNTS, person.name))
        headers = self._doors.account_headers(subject) | {"idempotency-key": f"{person.name}-{step.index}"}
        answer = await self._doors.ask(
            _what(person, step), "POST", f"{self._at.registration}/registrations", headers, body
        )
        if answer.code is None:
            registration_id = str(answer.data["registration_id"])
            standing.registration_id = registration_id
            standing.registrations.append(registration_id)
            standing.form_version = int(answer.data["form_version"])
            standing.site = site
            standing.orders.clear()
        return answer.code

    async def _amend(self, standing: Standing, step: Step) -> str | None:
        body = {_RENAMED.get(key, key): value for key, value in step.fields.items()}
        answer = await self._as_candidate(standing, step, "PATCH", self._registration(standing), body)
        if answer.code is None:
            standing.form_version = int(answer.data["form_version"])
            standing.site = step.fields.get("site", standing.site)
        return answer.code

    async def _withdraw(self, standing: Standing, step: Step) -> str | None:
        body = {"reason": step.fields["reason"]} if "reason" in step.fields else {}
        url = f"{self._registration(standing)}/withdraw"
        return (await self._as_candidate(standing, step, "POST", url, body)).code

    async def _confirm(self, standing: Standing, step: Step) -> str | None:
        desk = step.fields.get("desk", standing.site)
        body = {
            "form_version": step.fields.get("form_version", standing.form_version),
            "identity_seen": step.fields.get("identity_seen", True),
            "documents": self._checklist(step.fields.get("missing", ())),
            "stamped": step.fields.get("stamped", True),
        }
        return (await self._at_the_desk(standing, step, desk, "confirm", body)).code

    def _checklist(self, missing: Sequence[str]) -> dict[str, str]:
        marks = {document: "seen" if needed else "not-needed" for document, needed in self._needed.items()}
        for word in missing:
            marks[self._document(word)] = "missing"
        return marks

    def _document(self, word: str) -> str:
        """The document a people file means, by id or by its Chinese name. A word that the checklist does not know still
        says that something needed is missing."""
        for document in self._cycle.documents:
            if word in (document.id, document.name):
                return document.id
        for document in self._cycle.documents:
            if word in document.name or document.name in word:
                return document.id
        return next(document for document, needed in self._needed.items() if needed)

    async def _send_away(self, standing: Standing, step: Step) -> str | None:
        level = level_of(step)
        if level != FIRST_LEVEL:
            return (await self.decide(level, [(standing, step)]))[0]
        body: dict[str, Any] = {"reason_codes": reason_codes(step), "note": note_of(step)}
        if step.verb is Verb.RETURN:
            body["fix_until"] = step.fields.get("fix_until")
        desk = step.fields.get("desk", standing.site)
        return (await self._at_the_desk(standing, step, desk, _DECISIONS[step.verb], body)).code

    async def _order(self, standing: Standing, step: Step) -> str | None:
        url = f"{self._at.payment}/registrations/{standing.registration_id}/orders"
        body = {"channel": step.fields.get("channel", "wechat")}
        answer = await self._as_candidate(standing, step, "POST", url, body)
        if answer.code is None:
            standing.orders.append((body["channel"], str(answer.data["order_no"])))
        return answer.code

    async def _pay(self, standing: Standing, step: Step) -> str | None:
        try:
            channel, order = standing.orders[int(step.fields.get("order", -1))]
        except IndexError:
            return "gateway-refused"
        answer = await self._doors.ask(
            _what(standing.person, step),
            "POST",
            f"{self._at.simulators}/sim/{channel}/pay",
            {"content-type": "application/json"},
            {"order_no": order, "callbacks": list(callbacks(step.fields))},
        )
        return None if answer.code is None else "gateway-refused"

    def _registration(self, standing: Standing) -> str:
        return f"{self._at.registration}/registrations/{standing.registration_id}"

    async def _as_candidate(
        self, standing: Standing, step: Step, method: str, url: str, body: Mapping[str, Any]
    ) -> Answer:
        headers = self._doors.headers(
            f"candidate:{standing.registration_id}", f"person-{standing.person.line}"
        )
        return await self._doors.ask(_what(standing.person, step), method, url, headers, body)

    async def _at_the_desk(
        self, standing: Standing, step: Step, desk: str, act: str, body: Mapping[str, Any]
    ) -> Answer:
        url = f"{self._at.confirmation}/desks/{desk}/cases/{standing.registration_id}/{act}"
        headers = self._doors.headers(f"desk:{desk}", f"desk-{desk}")
        return await self._doors.ask(_what(standing.person, step), "POST", url, headers, body)


def level_of(step: Step) -> str:
    return str(step.fields.get("level", FIRST_LEVEL))


def is_bulk(step: Step) -> bool:
    """Whether reviewers decide it together with others of its moment."""
    if step.verb is Verb.APPROVE:
        return True
    return step.verb in (Verb.RETURN, Verb.REJECT) and level_of(step) != FIRST_LEVEL


def reason_codes(step: Step) -> list[str]:
    """Codes, also where the file says them in Chinese; a reason of one's own is 其他 with the words as the note."""
    known = {code.value for code in ReasonCode}
    words = step.fields.get("reasons") or ["documents"]
    codes = [_REASON_WORDS.get(word, word if word in known else ReasonCode.OTHER.value) for word in words]
    return list(dict.fromkeys(codes))


def note_of(step: Step) -> str | None:
    if "note" in step.fields:
        return str(step.fields["note"])
    if ReasonCode.OTHER.value not in reason_codes(step):
        return None
    return "；".join(str(word) for word in step.fields.get("reasons", ())) or None


def _what(person: Person, step: Step) -> str:
    return f"{person.name}, step {step.index} ({step.verb.value} at {step.at.isoformat()})"
