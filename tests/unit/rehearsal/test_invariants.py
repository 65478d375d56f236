"""Each invariant is green over an honest small system, and red as soon as its violation is planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from deploy.rehearsal.identity import Identity
from deploy.rehearsal.invariants import ALL, judge
from deploy.rehearsal.invariants.evidence import (
    Evidence,
    Fact,
    Parked,
    Record,
    TwoPeople,
)
from deploy.rehearsal.invariants.history import origins, transitions
from deploy.rehearsal.invariants.messages import CHANNELS
from deploy.rehearsal.invariants.privacy import Canaries, search
from tests.unit.rehearsal.planting import (
    CLOSES,
    PAYER,
    PLANTED,
    SLEEPER,
    Story,
    expire_without_proof,
    honest,
    leak,
    park,
    place_of,
)


@pytest.fixture
def evidence() -> Evidence:
    return honest()


@pytest.mark.parametrize("after", ["due", "paid"])
def test_money_may_go_back_at_any_time_once_it_was_owed(evidence: Evidence, after: str) -> None:
    facts = evidence.facts["payment"]
    place = place_of(evidence, "payment", after)
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
    sleeper = evidence.facts["payment"][place_of(evidence, "payment", "expired")]
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


def test_what_was_overtaken_is_parked_past_nobody(evidence: Evidence) -> None:
    """Decision 0018: the later ones were taken in before it came. Parked for any other reason it would be a violation."""
    park(evidence, reason="overtaken: by version 2")
    assert next(finding for finding in judge(evidence) if finding.id == "I12").ok


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
