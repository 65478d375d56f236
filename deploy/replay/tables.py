"""Which columns of which tables can be rebuilt from events, and why the others cannot.

Every table and every column of every service stands in one of the two lists; a test fails when one stands in neither.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Row = Mapping[str, Any]


def _all(_live: Row, _rebuilt: Row) -> frozenset[str]:
    return frozenset()


@dataclass(frozen=True)
class Table:
    """How the rows of one table are compared.

    `some`: the live table holds rows that no event says (and why); those that are rebuilt must be among them.
    `silent`: columns of two rows that differ for a reason no event says.
    """

    key: tuple[str, ...]
    compared: tuple[str, ...]
    not_compared: Mapping[str, str] = field(default_factory=dict)
    some: str = ""
    silent: Callable[[Row, Row], Collection[str]] = _all

    @property
    def columns(self) -> set[str]:
        return {*self.key, *self.compared, *self.not_compared}


@dataclass(frozen=True)
class Unrebuilt:
    """A table that is not compared at all."""

    reason: str


PERSON: Final = "who somebody is never leaves registration's database on a topic"
OURS: Final = "made by this service for itself; nobody is told"
TYPED: Final = "what staff typed or who they are: kept where they typed it"
GATEWAY: Final = "between this service and the gateway; an event says only what it came to"
CARRIER: Final = "between this service and the carrier; an event says only what it came to"
PLACE: Final = "where a row lies, not what it says"

PLUMBING: Final[Mapping[str, Table | Unrebuilt]] = {
    "outbox": Table(
        ("event_id",),
        ("topic", "key", "type", "sequence", "occurred_at", "payload", "correlation_id", "causation_id"),
        {"id": PLACE, "xid": PLACE, "traceparent": "made for the wire where a row has none"},
    ),
    "inbox": Table(("handler", "event_id"), ("received_at",)),
    "relay_cursor": Unrebuilt(PLACE),
    "parked": Unrebuilt("events that had no effect"),
    "idempotency_keys": Unrebuilt("answers to people who ask twice; nobody else is told"),
    "audit": Unrebuilt(TYPED),
    "alembic_version": Unrebuilt("which migrations were run"),
}

REGISTRATION: Final[Mapping[str, Table | Unrebuilt]] = {
    "registrations": Table(
        ("id",),
        (
            "cycle_id", "active", "site_id", "specialty_code", "level", "subjects", "is_returning", "form_version",
            "version", "pre_registered_at", "saved_at", "contact_saved_at", "withdrawn_at", "withdrawal_reason",
            "confirmation", "confirmation_sequence", "fix_until", "decisions", "payment", "payment_sequence",
            "amount_fen", "payment_opens_at", "payment_closes_at", "paid_at", "phone_failed_at", "email_failed_at",
            "erased_at",
        ),
        {"number": PERSON, "account": PERSON, "identity_index": PERSON, "remarks": PERSON},
    ),
    "people": Unrebuilt(PERSON),
    "photos": Unrebuilt(PERSON),
    "desk_windows": Table(("cycle_id", "site_id"), ("opens_at", "closes_at", "reason_code", "sequence")),
}  # fmt: skip

CONFIRMATION: Final[Mapping[str, Table | Unrebuilt]] = {
    "cases": Table(
        ("registration_id",),
        (
            "cycle_id", "site_id", "specialty_code", "level", "subjects", "form_version", "is_returning", "state",
            "passed", "fix_until", "version", "opened_at", "changed_at",
        ),
    ),
    "decisions": Table(
        ("registration_id", "version"),
        ("kind", "level", "reason_codes", "fix_until", "form_version", "at"),
        {"decision_id": OURS, "actor_kind": TYPED, "actor": TYPED, "note": TYPED, "documents": TYPED},
    ),
    "desk_windows": Table(("site_id",), ("cycle_id", "opens_at", "closes_at", "version", "set_at")),
    "desk_window_asks": Unrebuilt(TYPED),
    "desk_window_verdicts": Unrebuilt(TYPED),
    "payment_closes": Table(("site_id",), ("cycle_id", "closes_at", "told_closes_at", "sequence")),
    "desk_window_changes": Table(
        ("site_id", "version"), ("opens_at", "closes_at", "reason_code", "at"), {"reason": TYPED, "actor": TYPED}
    ),
}  # fmt: skip


def _owing(live: Row, rebuilt: Row) -> frozenset[str]:
    """Being held says nothing: as far as anybody was told, the fee is awaited. A desk that the approval did not name was
    filled in by ops (docs/runbooks/extension.md)."""
    silent = set[str]()
    if live["status"] == "held" and rebuilt["status"] == "awaiting":
        silent |= {"status", "changed_at"}
    if rebuilt["site_id"] is None:
        silent.add("site_id")
    return frozenset(silent)


PAYMENT: Final[Mapping[str, Table | Unrebuilt]] = {
    "obligations": Table(
        ("registration_id",),
        (
            "cycle_id", "status", "version", "amount_fen", "currency", "opens_at", "closes_at", "told_closes_at",
            "site_id", "due_at", "changed_at", "paid_at", "expired_at", "proof_id", "cancelled_for",
        ),
        silent=_owing,
    ),
    "answers": Unrebuilt(GATEWAY),
    "orders": Table(
        ("order_no",),
        ("registration_id", "channel", "amount_fen", "currency", "status", "decided_at"),
        dict.fromkeys(("created_at", "expires_at", "code_url", "refusal", "ask_at", "attempts", "answer_id"), GATEWAY),
        some="an order is said only once it is paid in time",
    ),
    "ledger": Table(
        ("order_no", "kind"),
        ("registration_id", "channel", "amount_fen", "currency", "paid_at", "recorded_at", "cause"),
        {"entry_id": PLACE, "transaction_id": GATEWAY, "answer_id": GATEWAY},
        some="money that moved nobody (late, twice, of the wrong amount) is said nowhere",
    ),
    "proofs": Table(
        ("proof_id",),
        ("registration_id", "closes_at", "expired_at", "amount_fen", "rule"),
        {"number": PLACE, "orders": GATEWAY, "leaf": GATEWAY},
    ),
    "closings": Table(
        ("cycle_id", "closes_at"),
        ("closed_at", "sequence", "counts", "sums_fen", "proof_root", "proofs"),
        dict.fromkeys(("fingerprint", "begun_at", "guard", "guard_stops", "last_proof"), OURS),
        some="a close is said when it is complete",
    ),
    "later_roots": Table(
        ("cycle_id", "sequence"),
        ("published_at", "proof_root", "proofs", "expired_fen"),
        dict.fromkeys(("after_proof", "last_proof"), PLACE),
    ),
    "refunds": Unrebuilt("how far asking a gateway has come; what went back stands in the ledger"),
    "reminder_runs": Unrebuilt(OURS),
    "reminders": Table(("registration_id", "told_closes_at", "offset_seconds"), ("at",)),
    "recoveries": Unrebuilt("what was done after a restore"),
    "cycle_versions": Table(("cycle_id",), ("sequence",)),
    "bills": Unrebuilt(GATEWAY),
    "bill_lines": Unrebuilt(GATEWAY),
    "reconciliations": Unrebuilt(GATEWAY),
    "explanations": Unrebuilt(GATEWAY),
    "breaks": Unrebuilt(GATEWAY),
    "break_closings": Unrebuilt(TYPED),
    "bill_waits": Unrebuilt(OURS),
    "windows": Table(("site_id",), ("cycle_id", "closes_at", "told_closes_at", "version", "set_at")),
    "decisions": Unrebuilt(TYPED),
    "verdicts": Unrebuilt(TYPED),
    "carried_out": Unrebuilt("how far a decision was done; whom it concerned was told of it"),
}  # fmt: skip

_SAID: Final = frozenset({"delivered", "undelivered", "expired"})


def _not_ended(live: Row, rebuilt: Row) -> frozenset[str]:
    """How far a message has come before its end is said nowhere."""
    if live["state"] not in _SAID and rebuilt["state"] == "created":
        return frozenset({"state", "state_at", "template_version"})
    return frozenset()


def _not_kept_then(live: Row, rebuilt: Row) -> frozenset[str]:
    """Earlier versions did not keep the close of payment that somebody was told."""
    return frozenset({"pay_by"}) if live["pay_by"] is None and rebuilt["pay_by"] is not None else frozenset()


NOTIFICATION: Final[Mapping[str, Table | Unrebuilt]] = {
    "recipients": Table(
        ("registration_id",),
        ("cycle_id", "site_id", "confirm_by", "standing", "version", "pay_by"),
        {
            **dict.fromkeys(
                (
                    "tail", "phone", "email", "contact_known", "contact_tries", "contact_try_at", "contact_at", "erased_at",
                ),
                PERSON,
            ),
            "contact_wanted": "how often it was to be fetched, here: somebody erased is fetched no more",
            "language": "chosen here; nobody is told",
        },
        silent=_not_kept_then,
    ),
    "messages": Table(
        ("registration_id", "occasion", "instance", "channel"),
        (
            "message_id", "variant", "state", "facts", "deadline_at", "created_at", "state_at", "template_version",
            "reason_code", "correlation_id", "caused_by",
        ),
        {
            "not_before": "put off at night, which nobody is told",
            **dict.fromkeys(("due_at", "priority", "call_at"), OURS),
            **dict.fromkeys(
                (
                    "claims", "tries", "ambiguous", "subject", "body", "parts", "provider_ref", "carrier_code", "ask_since",
                    "provider", "language", "asks",
                ),
                CARRIER,
            ),
        },
        silent=_not_ended,
    ),
    "desks": Table(("cycle_id", "site_id"), ("opens_at", "closes_at", "sequence")),
    "calls": Unrebuilt("who is to be called follows from what did not come back; whom a desk called it keeps itself"),
    "restores": Unrebuilt("what was done after a restore"),
    **dict.fromkeys(("sms_providers", "sms_left", "sms_days", "early_receipts"), Unrebuilt(CARRIER)),
}  # fmt: skip

TABLES: Final[Mapping[str, Mapping[str, Table | Unrebuilt]]] = {
    "registration": {**REGISTRATION, **PLUMBING},
    "confirmation": {**CONFIRMATION, **PLUMBING},
    "payment": {**PAYMENT, **PLUMBING},
    "notification": {**NOTIFICATION, **PLUMBING},
}
