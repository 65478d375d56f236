"""An honest small history, and one violation of each invariant to be planted in it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from contracts.cycle import Cycle
from deploy.rehearsal.identity import Identity
from deploy.rehearsal.invariants.evidence import (
    Booked,
    Case,
    Closing,
    Decision,
    Entry,
    Evidence,
    Fact,
    Key,
    Message,
    Obligation,
    OpenBreak,
    Order,
    Parked,
    Proof,
    Record,
    Registration,
)
from deploy.rehearsal.invariants.messages import CHANNELS, TOLD
from deploy.rehearsal.invariants.privacy import Canaries, search

CYCLE = Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml"
CLOSES = datetime(2024, 2, 8, 16, tzinfo=UTC)
CYCLE_ID = "2024-health-leshan"
PAYER, SLEEPER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
PAID_AT = CLOSES - timedelta(hours=1)
SUBSCRIBERS = {
    "confirmation": {"kaowu.registration.pre-registered.v1": "open_case"},
    "payment": {"kaowu.confirmation.approved.v1": "open_obligation"},
    "registration": {"kaowu.payment.paid.v1": "note_payment", "kaowu.payment.expired.v1": "note_expiry"},
    "notification": {
        f"kaowu.{service}.{word}.v1": f"tell_{service}_{word}"
        for service, words in TOLD.items()
        for word in words
    },
}


class Story:
    """Writes an honest history: facts in order, on their topics, taken in by everybody who subscribes."""

    def __init__(self) -> None:
        self.evidence = Evidence(Cycle.read(CYCLE))
        self._ids = (uuid5(UUID(int=7), str(n)) for n in itertools.count())
        self._versions: dict[tuple[str, str], int] = {}
        self.evidence.subscriptions = {service: dict(one) for service, one in SUBSCRIBERS.items()}
        for service in ("registration", "confirmation", "payment", "notification"):
            self.evidence.facts[service] = []
            self.evidence.records[f"exam.{service}"] = []
            self.evidence.inbox[service] = set()
            self.evidence.unpublished[service] = 0
            self.evidence.lag[service] = 0

    def say(
        self, service: str, word: str, key: str, at: datetime, because: Fact | None = None, **data: Any
    ) -> Fact:
        version = self._versions.get((service, key), 0) + 1
        self._versions[service, key] = version
        payload = {"registration_id": key, **data}
        cause = None if because is None else str(because.event_id)
        kind, topic = f"kaowu.{service}.{word}.v1", f"exam.{service}"
        fact = Fact(next(self._ids), topic, key, kind, version, at, payload, cause)
        self.evidence.facts[service].append(fact)
        records = self.evidence.records[topic]
        records.append(Record(topic, 0, len(records), key, fact.event_id, kind, version))
        for reader, handlers in self.evidence.subscriptions.items():
            if kind in handlers:
                self.evidence.inbox[reader].add((handlers[kind], fact.event_id))
        if word in TOLD.get(service, ()):
            for channel in CHANNELS:
                self.evidence.messages.append(
                    Message(key, word, channel, "delivered", fact.event_id, waits=False)
                )
        return fact

    def until_approved(self, who: str) -> None:
        at = CLOSES - timedelta(days=60)
        self.say("registration", "pre-registered", who, at, form_version=1)
        self.say("confirmation", "confirmed", who, at, form_version=1)
        approved = self.say("confirmation", "approved", who, at)
        self.say("payment", "due", who, at, because=approved, amount_fen=20000)
        self.evidence.decisions.append(Decision(who, "confirmed", "desk-1", "desk"))
        self.evidence.keys.append(Key("registration", "somebody", who, answered=True))


def honest() -> Evidence:
    """Two people who lived by the rules: one paid, one did not."""
    story = Story()
    found = story.evidence
    for who in (PAYER, SLEEPER):
        story.until_approved(who)
    story.say("payment", "paid", PAYER, PAID_AT, paid_at=PAID_AT.isoformat())
    story.say("payment", "expired", SLEEPER, CLOSES, closes_at=CLOSES.isoformat())
    closed = story.say("payment", "window-closed", CYCLE_ID, CLOSES)
    change(found.facts["payment"], -1, payload={"cycle_id": closed.key, "proofs": 1})
    proof = uuid5(UUID(int=8), "proof")
    found.registrations = [
        Registration(PAYER, "202400000001", "shizhong", 1, 1, False, "approved", "paid"),
        Registration(SLEEPER, "202400000002", "shizhong", 1, 1, False, "approved", "expired"),
    ]
    found.cases = [Case(who, "shizhong", "approved", 2, 1) for who in (PAYER, SLEEPER)]
    found.obligations = [
        Obligation(PAYER, "paid", 2, 20000, CLOSES, PAID_AT, None, None),
        Obligation(SLEEPER, "expired", 2, 20000, CLOSES, None, CLOSES, proof),
    ]
    found.orders = [Order("A1", PAYER, "paid", 20000, 1), Order("B1", SLEEPER, "closed", 20000, 2)]
    found.ledger = [Entry("received", PAYER, "A1", "T1", 20000, PAID_AT, 1)]
    found.proofs = [Proof(proof, SLEEPER, CLOSES, CLOSES)]
    found.closings = [Closing(CLOSES, CLOSES, 1)]
    found.book = [Booked("A1", True, 20000, "T1", PAID_AT), Booked("B1", False, 20000, None, None)]
    identity = Identity(
        "王晓䶮", "resident-id", "999001198802300017", "13912345678", "k1@example.cn", "x", None, ""
    )
    found.canaries = len(canaries := Canaries({"p1": identity}))
    search(found, canaries, "logs", [("payment.log", b'{"event": "batch", "number": "202400000001"}')])
    return found


def change(rows: list[Any], index: int, **fields: Any) -> None:
    rows[index] = rows[index]._replace(**fields)


def place_of(evidence: Evidence, service: str, word: str) -> int:
    return next(n for n, fact in enumerate(evidence.facts[service]) if fact.word == word)


def pay_nobody(evidence: Evidence) -> None:
    evidence.ledger.clear()


def take_a_fen(evidence: Evidence) -> None:
    change(evidence.ledger, 0, amount_fen=19999)


def book_what_the_gateway_does_not_know(evidence: Evidence) -> None:
    assert evidence.book is not None
    evidence.book = [order for order in evidence.book if order.order_no != "A1"]


def differ_from_a_bill(evidence: Evidence) -> None:
    evidence.open_breaks.append(OpenBreak("wechat", date(2024, 2, 8), "other-amount", "20240129ANYORDER"))


def expire_whoever_has_paid(evidence: Evidence) -> None:
    change(evidence.obligations, 0, status="expired")


def leave_a_payer_waiting(evidence: Evidence) -> None:
    change(evidence.obligations, 0, status="awaiting")


def say_twice_that_it_is_paid(evidence: Evidence) -> None:
    paid = evidence.facts["payment"][place_of(evidence, "payment", "paid")]
    evidence.facts["payment"].append(paid._replace(event_id=UUID(int=1), sequence=3))


def give_back_what_was_never_owed(evidence: Evidence) -> None:
    facts = evidence.facts["payment"]
    due = place_of(evidence, "payment", "due")
    facts.insert(due, facts[due]._replace(event_id=UUID(int=2), type="kaowu.payment.refunded.v1", sequence=1))
    facts[due + 1] = facts[due + 1]._replace(sequence=2)


def approve_before_confirming(evidence: Evidence) -> None:
    facts = evidence.facts["confirmation"]
    facts[0], facts[1] = facts[1]._replace(sequence=1), facts[0]._replace(sequence=2)


def skip_a_version(evidence: Evidence) -> None:
    change(evidence.records["exam.payment"], 0, sequence=2)


def put_later_before_earlier(evidence: Evidence) -> None:
    records = evidence.records["exam.payment"]
    first, last = records[0], next(one for one in records if one.key == records[0].key and one.sequence == 2)
    records[records.index(first)] = first._replace(offset=last.offset)
    records[records.index(last)] = last._replace(offset=first.offset)


def lose_an_event_before_the_topic(evidence: Evidence) -> None:
    evidence.records["exam.payment"].pop()


def lose_an_event_after_the_topic(evidence: Evidence) -> None:
    evidence.inbox["registration"].pop()


def put_a_strange_event_on_a_topic(evidence: Evidence) -> None:
    evidence.records["exam.payment"].append(
        Record(
            "exam.payment",
            1,
            0,
            "33333333-3333-4333-8333-333333333333",
            UUID(int=9),
            "kaowu.payment.due.v1",
            1,
        )
    )


def take_effect_twice(evidence: Evidence) -> None:
    due = evidence.facts["payment"][place_of(evidence, "payment", "due")]
    evidence.facts["payment"].append(due._replace(event_id=UUID(int=2), sequence=9))


def expire_too_early(evidence: Evidence) -> None:
    index = place_of(evidence, "payment", "expired")
    change(evidence.facts["payment"], index, at=CLOSES - timedelta(microseconds=1))


def expire_without_proof(evidence: Evidence) -> None:
    evidence.proofs.clear()


def publish_no_root_of_whoever_fell_late(evidence: Evidence) -> None:
    """Held until the gateway answered: nobody published that it is proven."""
    index = place_of(evidence, "payment", "window-closed")
    change(evidence.facts["payment"], index, payload={"proofs": 0})


def count_too_many_before_a_later_root(evidence: Evidence) -> None:
    facts = evidence.facts["payment"]
    closed = facts[place_of(evidence, "payment", "window-closed")]
    facts.append(
        closed._replace(
            event_id=UUID(int=4),
            type="kaowu.payment.proofs-published.v1",
            sequence=2,
            payload={"proofs": 0, "proofs_before": 2},
        )
    )


def expire_with_an_open_order(evidence: Evidence) -> None:
    change(evidence.orders, 1, status="open")


def forget_somebody_at_the_close(evidence: Evidence) -> None:
    change(evidence.obligations, 1, status="awaiting", proof_id=None)


def forget_a_message(evidence: Evidence) -> None:
    evidence.messages.pop()


def send_a_message_twice(evidence: Evidence) -> None:
    evidence.messages.append(evidence.messages[-1])


def leave_a_message_lying(evidence: Evidence) -> None:
    change(evidence.messages, 0, state="accepted")


def remember_a_key_without_answer(evidence: Evidence) -> None:
    change(evidence.keys, 0, answered=False)


def reinstate_in_silence(evidence: Evidence) -> None:
    sleeper = evidence.facts["payment"][place_of(evidence, "payment", "expired")]
    kind = "kaowu.payment.reinstated.v1"
    evidence.facts["payment"].append(
        sleeper._replace(event_id=UUID(int=3), type=kind, sequence=3, payload={"registration_id": SLEEPER})
    )


def leave_an_event_unpublished(evidence: Evidence) -> None:
    evidence.unpublished["payment"] = 1


def lag_behind(evidence: Evidence) -> None:
    evidence.lag["notification"] = 3


def park(evidence: Evidence, **fields: Any) -> None:
    record = evidence.records["exam.payment"][0]
    parked = Parked(
        "registration",
        record.topic,
        0,
        record.offset,
        record.key,
        record.type,
        record.event_id,
        "parked",
        "poison",
        True,
    )
    evidence.parked.append(parked._replace(**fields))


def park_without_a_reason(evidence: Evidence) -> None:
    park(evidence, reason="")


def park_without_the_payload(evidence: Evidence) -> None:
    park(evidence, kept=False)


def overtake_a_parked_event(evidence: Evidence) -> None:
    park(evidence)


def change_a_row_behind_the_log(evidence: Evidence) -> None:
    change(evidence.cases, 0, state="rejected")


def fall_behind_in_a_view(evidence: Evidence) -> None:
    change(evidence.registrations, 0, payment="awaiting")


def decide_as_nobody(evidence: Evidence) -> None:
    change(evidence.decisions, 0, actor="")


def book_money_on_no_answer(evidence: Evidence) -> None:
    change(evidence.ledger, 0, answer_id=None)


def confirm_without_a_decision(evidence: Evidence) -> None:
    evidence.decisions.pop()


def leak(text: str) -> Callable[[Evidence], None]:
    def planted(evidence: Evidence) -> None:
        identity = Identity(
            "王晓䶮", "resident-id", "999001198802300017", "13912345678", "k1@example.cn", "x", None, ""
        )
        search(evidence, Canaries({"p1": identity}), "logs", [("payment.log", text.encode())])

    planted.__name__ = f"leak {text[:24]}"
    return planted


PLANTED: list[tuple[str, Callable[[Evidence], None]]] = [
    ("I1", pay_nobody),
    ("I1", take_a_fen),
    ("I1", book_what_the_gateway_does_not_know),
    ("I1", differ_from_a_bill),
    ("I2", expire_whoever_has_paid),
    ("I2", leave_a_payer_waiting),
    ("I3", say_twice_that_it_is_paid),
    ("I3", give_back_what_was_never_owed),
    ("I3", approve_before_confirming),
    ("I4", skip_a_version),
    ("I4", put_later_before_earlier),
    ("I5", lose_an_event_before_the_topic),
    ("I5", lose_an_event_after_the_topic),
    ("I5", put_a_strange_event_on_a_topic),
    ("I6", take_effect_twice),
    ("I7", expire_too_early),
    ("I7", expire_without_proof),
    ("I7", expire_with_an_open_order),
    ("I7", publish_no_root_of_whoever_fell_late),
    ("I7", count_too_many_before_a_later_root),
    ("I7", forget_somebody_at_the_close),
    ("I8", forget_a_message),
    ("I8", send_a_message_twice),
    ("I8", leave_a_message_lying),
    ("I9", remember_a_key_without_answer),
    ("I10", reinstate_in_silence),
    ("I11", leave_an_event_unpublished),
    ("I11", lag_behind),
    ("I12", park_without_a_reason),
    ("I12", park_without_the_payload),
    ("I12", overtake_a_parked_event),
    ("I13", change_a_row_behind_the_log),
    ("I13", fall_behind_in_a_view),
    ("I14", decide_as_nobody),
    ("I14", book_money_on_no_answer),
    ("I14", confirm_without_a_decision),
    ("I16", leak("seen 13912345678 today")),
    ("I16", leak('{"id": "999001198802300017"}')),
    ("I16", leak("86139123456780")),
    ("I16", leak("to k1@example.cn.")),
    ("I16", leak("考生王晓䶮已确认")),
    ("I16", leak('"\\u738b\\u6653\\u4dae"')),
]
