"""What became of each person, read through the office's own lists."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from deploy.rehearsal.doors import Doors
from deploy.rehearsal.standing import Standing

PAGE = 1000
STATES = (
    "refused",
    "pre-registered",
    "withdrawn",
    "lapsed",
    "confirmed",
    "rejected",
    "approved",
    "paid",
    "expired",
    "held",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    person: str
    registration_id: str | None
    state: str
    site: str
    paid_fen: int
    refunded_fen: int
    refused: tuple[tuple[int, str], ...]
    messages: tuple[Mapping[str, Any], ...]

    def line(self) -> dict[str, Any]:
        return {
            "person": self.person,
            "registration_id": self.registration_id,
            "state": self.state,
            "paid_fen": self.paid_fen,
            "refunded_fen": self.refunded_fen,
            "refused": [{"step": step, "code": code} for step, code in self.refused],
            "messages": list(self.messages),
        }


@dataclass(slots=True)
class Lists:
    """The office's lists, by registration."""

    registrations: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    cases: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    payments: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    messages: dict[str, list[Mapping[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    money: Mapping[str, Any] = field(default_factory=dict)
    close: Mapping[str, Any] = field(default_factory=dict)
    calls: list[Mapping[str, Any]] = field(default_factory=list)
    """Whom the desks must call, and whom they need not any more."""


async def read_lists(doors: Doors, addresses: Mapping[str, str], office: Mapping[str, str]) -> Lists:
    lists = Lists()
    async for item in _pages(doors, f"{addresses['registration']}/office/registrations", office):
        lists.registrations[item["registration_id"]] = item
    async for item in _pages(doors, f"{addresses['confirmation']}/office/cases", office):
        lists.cases[item["registration_id"]] = item
    async for item in _pages(doors, f"{addresses['payment']}/office/payments", office):
        lists.payments[item["registration_id"]] = item
    async for item in _pages(doors, f"{addresses['notification']}/office/messages", office):
        lists.messages[item["registration_id"]].append(item)
    for closed in ("false", "true"):
        calls = f"{addresses['notification']}/office/messages/calls"
        async for item in _pages(doors, calls, office, f"&closed={closed}"):
            lists.calls.append(item)
    lists.money = await doors.get(f"{addresses['payment']}/office/money", office)
    lists.close = await doors.get(f"{addresses['payment']}/office/close", office)
    return lists


async def _pages(
    doors: Doors, url: str, office: Mapping[str, str], more: str = ""
) -> AsyncIterator[Mapping[str, Any]]:
    after = ""
    while True:
        answer = await doors.get(f"{url}?limit={PAGE}{more}{after}", office)
        for item in answer["items"]:
            yield item
        if answer.get("next") is None:
            return
        after = f"&after={answer['next']}"


def outcomes(standings: Iterable[Standing], lists: Lists) -> list[Outcome]:
    return [_outcome(standing, lists) for standing in standings]


def _outcome(standing: Standing, lists: Lists) -> Outcome:
    payments = [lists.payments[one] for one in standing.registrations if one in lists.payments]
    messages = [message for one in standing.registrations for message in lists.messages.get(one, ())]
    told = sorted(messages, key=lambda message: (str(message["at"]), message["occasion"], message["channel"]))
    registration_id = standing.registration_id
    return Outcome(
        person=standing.person.name,
        registration_id=registration_id,
        state="refused" if registration_id is None else state_of(registration_id, lists),
        site=standing.site,
        paid_fen=sum(int(payment.get("paid_fen") or 0) for payment in payments),
        refunded_fen=sum(int(payment.get("refunded_fen") or 0) for payment in payments),
        refused=tuple((refusal.step, refusal.code) for refusal in standing.refused),
        messages=tuple(
            {key: message[key] for key in ("occasion", "channel", "state", "at")} for message in told
        ),
    )


def state_of(registration_id: str, lists: Lists) -> str:
    """One word for where a registration stands, from what each stage's own list says."""
    registration = lists.registrations[registration_id]
    if registration["state"] == "withdrawn":
        return "withdrawn"
    case = lists.cases.get(registration_id)
    state = "pre-registered" if case is None else str(case["state"])
    if state in ("pre-registered", "returned"):
        return "pre-registered"
    if state != "approved":
        return state
    payment = lists.payments.get(registration_id)
    status = "awaiting" if payment is None else str(payment["state"])
    return {"awaiting": "approved", "cancelled": "rejected"}.get(status, status)


def write(found: Iterable[Outcome], path: Path) -> None:
    with path.open("wb") as file:
        for outcome in found:
            file.write(orjson.dumps(outcome.line()) + b"\n")
