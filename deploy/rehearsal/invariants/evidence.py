"""Everything the invariants look at, as plain data: what databases, topics and the simulated outside say at rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from contracts.cycle import Cycle


class Fact(NamedTuple):
    """A row of a service's event log."""

    event_id: UUID
    topic: str
    key: str
    type: str
    sequence: int
    at: datetime
    payload: Mapping[str, Any]
    causation: str | None

    @property
    def word(self) -> str:
        """`kaowu.payment.window-closed.v1` is `window-closed`."""
        return self.type.split(".")[2]


class Record(NamedTuple):
    """A record of a topic, as any reader sees it."""

    topic: str
    partition: int
    offset: int
    key: str
    event_id: UUID
    type: str
    sequence: int


class Parked(NamedTuple):
    service: str
    topic: str
    partition: int
    offset: int
    key: str | None
    type: str | None
    event_id: UUID | None
    status: str
    reason: str
    kept: bool
    """Whether headers and payload were kept with it."""


class Registration(NamedTuple):
    id: str
    number: str
    site_id: str
    version: int
    form_version: int
    withdrawn: bool
    confirmation: str
    payment: str


class Case(NamedTuple):
    id: str
    site_id: str
    state: str
    version: int
    form_version: int


class Decision(NamedTuple):
    registration_id: str
    kind: str
    actor: str
    actor_kind: str


class TwoPeople(NamedTuple):
    """A decision of the office that another person than the one who asked has approved."""

    decision_id: str
    asked_by: str
    decided_by: str


class Obligation(NamedTuple):
    id: str
    status: str
    version: int
    amount_fen: int
    closes_at: datetime
    paid_at: datetime | None
    expired_at: datetime | None
    proof_id: UUID | None


class Order(NamedTuple):
    order_no: str
    registration_id: str
    status: str
    amount_fen: int
    answer_id: int | None


class Entry(NamedTuple):
    """A line of the ledger."""

    kind: str
    registration_id: str
    order_no: str
    transaction_id: str
    amount_fen: int
    paid_at: datetime
    answer_id: int | None


class Proof(NamedTuple):
    proof_id: UUID
    registration_id: str
    closes_at: datetime
    expired_at: datetime


class Closing(NamedTuple):
    closes_at: datetime
    closed_at: datetime | None
    proofs: int | None


class ComparedDay(NamedTuple):
    """The bill of a day that is in force, and how it was compared."""

    channel: str
    day: date
    lines: int


class OpenBreak(NamedTuple):
    """A difference between bill, book and registration that nothing explains and nobody closed."""

    channel: str
    day: date
    kind: str
    order_no: str


class Message(NamedTuple):
    registration_id: str
    occasion: str
    channel: str
    state: str
    event_id: UUID
    """The fact that it tells of."""
    waits: bool
    """Not sent yet, and its moment is still to come."""
    reason: str | None = None
    """Why it told nobody."""
    provider: str = ""
    """Who had it last; "": nobody yet."""


class Booked(NamedTuple):
    """An order in the gateway's own book."""

    order_no: str
    paid: bool
    amount_fen: int
    transaction_id: str | None
    paid_at: datetime | None


class Key(NamedTuple):
    """An idempotency key a service remembers."""

    service: str
    caller: str
    key: str
    answered: bool


@dataclass(slots=True)
class Evidence:
    cycle: Cycle
    facts: dict[str, list[Fact]] = field(default_factory=dict)
    records: dict[str, list[Record]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    """Records without a readable envelope, by topic, partition and offset."""
    subscriptions: dict[str, dict[str, str]] = field(default_factory=dict)
    """service → event type → name of the handler that takes it in."""
    inbox: dict[str, set[tuple[str, UUID]]] = field(default_factory=dict)
    parked: list[Parked] = field(default_factory=list)
    registrations: list[Registration] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    two_people: list[TwoPeople] = field(default_factory=list)
    obligations: list[Obligation] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    ledger: list[Entry] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)
    closings: list[Closing] = field(default_factory=list)
    compared: list[ComparedDay] = field(default_factory=list)
    open_breaks: list[OpenBreak] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    book: list[Booked] | None = None
    """None: nobody keeps a gateway's book here (a given system); I1 then joins only our own side."""
    unpublished: dict[str, int] = field(default_factory=dict)
    lag: dict[str, int] = field(default_factory=dict)
    canaries: int = 0
    """How many invented names, numbers, phones and mailboxes were searched for."""
    searched: dict[str, int] = field(default_factory=dict)
    """where → bytes looked through for them."""
    leaks: list[str] = field(default_factory=list)
    """Where whose secret stood, without repeating it."""


class Finding(NamedTuple):
    """What one invariant came to."""

    id: str
    title: str
    checked: str
    violations: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.violations

    def facts(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "title": self.title,
            "ok": self.ok,
            "checked": self.checked,
            "violations": list(self.violations),
        }
