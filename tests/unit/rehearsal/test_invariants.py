"""Each invariant is green over an honest small system, and red as soon as its violation is planted."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest

from contracts.cycle import Cycle
from deploy.rehearsal.identity import Identity
from deploy.rehearsal.invariants import ALL, judge
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
    Order,
    Parked,
    Proof,
    Record,
    Registration,
    TwoPeople,
)
from deploy.rehearsal.invariants.history import origins, transitions
from deploy.rehearsal.invariants.messages import CHANNELS, TOLD
from deploy.rehearsal.invariants.privacy import Canaries, search

CYCLE = Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml"
CLOSES = datetime(2024, 2, 8, 16, tzinfo=UTC)
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


@pytest.fixture
def evidence() -> Evidence:
    story = Story()
    found = story.evidence
    for who in (PAYER, SLEEPER):
        story.until_approved(who)
    story.say("payment", "paid", PAYER, PAID_AT, paid_at=PAID_AT.isoformat())
    story.say("payment", "expired", SLEEPER, CLOSES, closes_at=CLOSES.isoformat())
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


@pytest.mark.parametrize("after", ["due", "paid"])
def test_money_may_go_back_at_any_time_once_it_was_owed(evidence: Evidence, after: str) -> None:
    facts = evidence.facts["payment"]
    place = _fact(evidence, "payment", after)
    back = facts[place]._replace(
        event_id=UUID(int=2), type="kaowu.payment.refunded.v1", sequence=facts[place].sequence + 1
    )
    facts.insert(place + 1, back)
    for later in range(place + 2, len(facts)):
        if facts[later].key == back.key:
            facts[later] = facts[later]._replace(sequence=facts[later].sequence + 1)
    assert transitions(evidence).violations == ()


@pytest.mark.parametrize(
    ("word", "cause", "approved_by", "well"),
    [
        ("reinstated", "window-extended", "wang", True),
        ("reinstated", "window-extended", "li", False),
        ("reinstated", "two-person-decision", None, False),
        ("reinstated", "paid-in-time", None, True),
        ("window-moved", "", None, False),
        ("window-moved", "", "wang", True),
    ],
)
def test_no_close_moves_and_no_forfeiture_is_lifted_but_by_two_people(
    evidence: Evidence, word: str, cause: str, approved_by: str | None, well: bool
) -> None:
    sleeper = evidence.facts["payment"][_fact(evidence, "payment", "expired")]
    evidence.facts["payment"].append(
        sleeper._replace(
            event_id=UUID(int=3),
            type=f"kaowu.payment.{word}.v1",
            sequence=3,
            payload={"registration_id": SLEEPER, "cause": cause},
            causation="decision:d1",
        )
    )
    if approved_by is not None:
        evidence.two_people.append(TwoPeople("d1", "li", approved_by))
    found = origins(evidence).violations
    assert (found == ()) is well, found


def test_all_is_well_over_an_honest_history(evidence: Evidence) -> None:
    assert [finding.violations for finding in judge(evidence)] == [()] * len(ALL)
    assert len({finding.id for finding in judge(evidence)}) == len(ALL)


def _change(rows: list[Any], index: int, **fields: Any) -> None:
    rows[index] = rows[index]._replace(**fields)


def _fact(evidence: Evidence, service: str, word: str) -> int:
    return next(n for n, fact in enumerate(evidence.facts[service]) if fact.word == word)


def pay_nobody(evidence: Evidence) -> None:
    evidence.ledger.clear()


def take_a_fen(evidence: Evidence) -> None:
    _change(evidence.ledger, 0, amount_fen=19999)


def book_what_the_gateway_does_not_know(evidence: Evidence) -> None:
    assert evidence.book is not None
    evidence.book = [order for order in evidence.book if order.order_no != "A1"]


def expire_whoever_has_paid(evidence: Evidence) -> None:
    _change(evidence.obligations, 0, status="expired")


def leave_a_payer_waiting(evidence: Evidence) -> None:
    _change(evidence.obligations, 0, status="awaiting")


def say_twice_that_it_is_paid(evidence: Evidence) -> None:
    paid = evidence.facts["payment"][_fact(evidence, "payment", "paid")]
    evidence.facts["payment"].append(paid._replace(event_id=UUID(int=1), sequence=3))


def give_back_what_was_never_owed(evidence: Evidence) -> None:
    facts = evidence.facts["payment"]
    due = _fact(evidence, "payment", "due")
    facts.insert(due, facts[due]._replace(event_id=UUID(int=2), type="kaowu.payment.refunded.v1", sequence=1))
    facts[due + 1] = facts[due + 1]._replace(sequence=2)


def approve_before_confirming(evidence: Evidence) -> None:
    facts = evidence.facts["confirmation"]
    facts[0], facts[1] = facts[1]._replace(sequence=1), facts[0]._replace(sequence=2)


def skip_a_version(evidence: Evidence) -> None:
    _change(evidence.records["exam.payment"], 0, sequence=2)


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
    due = evidence.facts["payment"][_fact(evidence, "payment", "due")]
    evidence.facts["payment"].append(due._replace(event_id=UUID(int=2), sequence=9))


def expire_too_early(evidence: Evidence) -> None:
    index = _fact(evidence, "payment", "expired")
    _change(evidence.facts["payment"], index, at=CLOSES - timedelta(microseconds=1))


def expire_without_proof(evidence: Evidence) -> None:
    evidence.proofs.clear()


def expire_with_an_open_order(evidence: Evidence) -> None:
    _change(evidence.orders, 1, status="open")


def forget_somebody_at_the_close(evidence: Evidence) -> None:
    _change(evidence.obligations, 1, status="awaiting", proof_id=None)


def forget_a_message(evidence: Evidence) -> None:
    evidence.messages.pop()


def send_a_message_twice(evidence: Evidence) -> None:
    evidence.messages.append(evidence.messages[-1])


def leave_a_message_lying(evidence: Evidence) -> None:
    _change(evidence.messages, 0, state="accepted")


def remember_a_key_without_answer(evidence: Evidence) -> None:
    _change(evidence.keys, 0, answered=False)


def reinstate_in_silence(evidence: Evidence) -> None:
    sleeper = evidence.facts["payment"][_fact(evidence, "payment", "expired")]
    kind = "kaowu.payment.reinstated.v1"
    evidence.facts["payment"].append(
        sleeper._replace(event_id=UUID(int=3), type=kind, sequence=3, payload={"registration_id": SLEEPER})
    )


def leave_an_event_unpublished(evidence: Evidence) -> None:
    evidence.unpublished["payment"] = 1


def lag_behind(evidence: Evidence) -> None:
    evidence.lag["notification"] = 3


def _park(evidence: Evidence, **fields: Any) -> None:
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
    _park(evidence, reason="")


def park_without_the_payload(evidence: Evidence) -> None:
    _park(evidence, kept=False)


def overtake_a_parked_event(evidence: Evidence) -> None:
    _park(evidence)


def change_a_row_behind_the_log(evidence: Evidence) -> None:
    _change(evidence.cases, 0, state="rejected")


def fall_behind_in_a_view(evidence: Evidence) -> None:
    _change(evidence.registrations, 0, payment="awaiting")


def decide_as_nobody(evidence: Evidence) -> None:
    _change(evidence.decisions, 0, actor="")


def book_money_on_no_answer(evidence: Evidence) -> None:
    _change(evidence.ledger, 0, answer_id=None)


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


@pytest.mark.parametrize(("invariant", "plant"), PLANTED, ids=lambda one: getattr(one, "__name__", one))
def test_a_planted_violation_is_seen(
    evidence: Evidence, invariant: str, plant: Callable[[Evidence], None]
) -> None:
    plant(evidence)
    red = {finding.id for finding in judge(evidence) if not finding.ok}
    assert invariant in red


def test_every_invariant_has_been_seen_red() -> None:
    evidence = Story().evidence
    assert {invariant for invariant, _ in PLANTED} == {finding.id for finding in judge(evidence)}


def test_a_violation_names_the_registration(evidence: Evidence) -> None:
    expire_without_proof(evidence)
    finding = next(finding for finding in judge(evidence) if finding.id == "I7")
    assert any(SLEEPER in violation for violation in finding.violations)


def test_a_leak_is_named_without_repeating_it(evidence: Evidence) -> None:
    leak("13912345678")(evidence)
    finding = next(finding for finding in judge(evidence) if finding.id == "I16")
    assert finding.violations == ("logs payment.log: the phone of p1",)


def test_an_event_delivered_twice_is_no_violation(evidence: Evidence) -> None:
    records = evidence.records["exam.payment"]
    records.append(records[0]._replace(offset=len(records)))
    assert all(finding.ok for finding in judge(evidence))


def test_what_is_parked_with_all_behind_it_is_no_violation(evidence: Evidence) -> None:
    """Parked is not lost: an operator replays it."""
    key = evidence.records["exam.payment"][0].key
    for record in evidence.records["exam.payment"]:
        handler = evidence.subscriptions["registration"].get(record.type)
        if record.key == key and handler is not None:
            evidence.inbox["registration"].discard((handler, record.event_id))
            evidence.parked.append(
                Parked(
                    "registration",
                    record.topic,
                    0,
                    record.offset,
                    key,
                    record.type,
                    record.event_id,
                    "parked",
                    "poison",
                    True,
                )
            )
    assert all(finding.ok for finding in judge(evidence))


def test_an_event_said_once_through_each_channel_is_once(evidence: Evidence) -> None:
    because = evidence.facts["payment"][0]
    for number, channel in enumerate(CHANNELS, start=1):
        fact = Fact(
            UUID(int=100 + number), "exam.notification", PAYER, "kaowu.notification.delivered.v1", number, CLOSES,
            {"registration_id": PAYER, "channel": channel}, str(because.event_id),
        )  # fmt: skip
        evidence.facts["notification"].append(fact)
        evidence.records["exam.notification"].append(
            Record("exam.notification", 0, number, PAYER, fact.event_id, fact.type, number)
        )
    assert all(finding.ok for finding in judge(evidence))


def test_names_are_found_inside_other_words_and_files_in_pieces(evidence: Evidence) -> None:
    canaries = Canaries({"p1": replace_identity(name="李·娜")}, [("13800000000", "phone of p2")])
    search(evidence, canaries, "logs", [("a.log", "尊敬的李·娜您好 13800000000".encode())])
    assert len(evidence.leaks) == 2


def test_a_wrong_value_that_somebody_tried_is_no_secret(evidence: Evidence) -> None:
    """A people file may try a blank number, `123` or `nobody`; they stand in every log and say nothing of anybody."""
    tried = [("", "a"), ("   ", "b"), ("123", "c"), ("nobody", "d"), ("李", "e")]
    canaries = Canaries({"p1": replace_identity(name="李", phone="123", email="nobody")}, tried)
    search(evidence, canaries, "logs", [("a.log", "  123 nobody 李".encode())])
    assert (len(canaries), evidence.leaks) == (1, [])


@pytest.mark.parametrize(
    ("typed", "line", "leaks"),
    [
        ("12345678", '{"permit":"12345678"}', 1),
        ("12345678", "sha256 9f12345678ab", 0),
        ("H12345678", "seen H12345678.", 1),
        ("阿依古丽•艾山", "考生阿依古丽·艾山已确认", 1),
        ("99900119880230001x", "id 99900119880230001X", 1),
        ("138 1234 5678", "13812345678", 1),
        ("138123456789", "seen 138123456789", 1),
        ("张三3", "张三3", 1),
    ],
)
def test_a_number_of_any_paper_and_what_is_kept_of_it_are_found(
    evidence: Evidence, typed: str, line: str, leaks: int
) -> None:
    search(evidence, Canaries({}, [(typed, "what was typed")]), "logs", [("a.log", line.encode())])
    assert len(evidence.leaks) == leaks


def test_money_due_back_after_a_rejection_rests_on_the_money_that_came(evidence: Evidence) -> None:
    """No gateway signs a rejection; but nothing can go back that never came."""
    paid = next(entry for entry in evidence.ledger if entry.kind == "received")
    due = paid._replace(kind="refund-due", answer_id=None)
    evidence.ledger.append(due)
    assert next(finding for finding in judge(evidence) if finding.id == "I14").ok
    evidence.ledger[-1] = due._replace(transaction_id="another")
    assert not next(finding for finding in judge(evidence) if finding.id == "I14").ok


def replace_identity(**fields: str) -> Identity:
    return replace(
        Identity(
            "王晓䶮", "resident-id", "999001198802300017", "13912345678", "k1@example.cn", "x", None, ""
        ),
        **fields,
    )
