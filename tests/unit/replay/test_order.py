"""In which order a restored service lives through what it said and heard: when it heard it is not known any more."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from deploy.replay.history import Said
from deploy.replay.order import order

START = datetime(2024, 1, 30, tzinfo=UTC)
KEY = "0190a1b2-0000-7000-8000-000000000001"


def said(
    service: str, word: str, seconds: float, sequence: int = 1, *, because: Said | None = None, **facts: Any
) -> Said:
    return Said(
        uuid7(),
        f"exam.{service}",
        KEY,
        f"kaowu.{service}.{word}.v1",
        sequence,
        START + timedelta(seconds=seconds),
        json.dumps(facts),
        "chain",
        None if because is None else str(because.event_id),
        None,
    )


def words(own: list[Said], heard: list[Said], received: dict[UUID, datetime] | None = None) -> list[str]:
    return [step.said.word for step in order(own, heard, received or {})]


def test_what_was_said_before_is_taken_in_before() -> None:
    due, paid = said("payment", "due", 1), said("payment", "paid", 9, 2)
    approved = said("confirmation", "approved", 0.5)
    assert words([due, paid], [approved]) == ["approved", "due", "paid"]


def test_a_reaction_comes_after_its_cause_whatever_the_clocks_say() -> None:
    approved = said("confirmation", "approved", 5)
    due = said("payment", "due", 3, because=approved)
    assert words([due], [approved]) == ["approved", "due"]


def test_a_payment_said_after_a_rejection_was_said_had_not_heard_of_it() -> None:
    """Said first, heard second: on its way the rejection crossed the payment, and then it owed the money back."""
    approved, rejected = said("confirmation", "approved", 0), said("confirmation", "rejected", 8.9, 2)
    due = said("payment", "due", 1, because=approved)
    paid = said("payment", "paid", 9, 2)
    assert words([due, paid], [approved, rejected]) == ["approved", "due", "paid", "rejected"]


def test_what_follows_a_second_approval_comes_after_the_rejection_before_it() -> None:
    first, rejected = said("confirmation", "approved", 0), said("confirmation", "rejected", 2, 2)
    again = said("confirmation", "approved", 4, 3)
    due, due_again = said("payment", "due", 1, because=first), said("payment", "due", 5, 2, because=again)
    paid = said("payment", "paid", 6, 3)
    assert words([due, due_again, paid], [first, rejected, again]) == [
        "approved", "due", "rejected", "approved", "due", "paid",
    ]  # fmt: skip


def test_a_confirmation_that_crossed_a_withdrawal_was_decided_before_it_was_heard_of() -> None:
    registered, withdrawn = said("registration", "pre-registered", 0), said("registration", "withdrawn", 5, 2)
    confirmed = said("confirmation", "confirmed", 5.1, form_version=1)
    assert words([confirmed], [registered, withdrawn]) == ["pre-registered", "confirmed", "withdrawn"]


def test_a_desk_has_heard_of_the_form_that_it_confirms_and_of_no_later_one() -> None:
    registered = said("registration", "pre-registered", 0)
    second = said("registration", "amended", 5.2, 2, form_version=2)
    third = said("registration", "amended", 4, 3, form_version=3)
    confirmed = said("confirmation", "confirmed", 5, form_version=2)
    assert words([confirmed], [registered, second]) == ["pre-registered", "amended", "confirmed"]
    assert words([confirmed], [registered, third]) == ["pre-registered", "confirmed", "amended"]


def test_a_review_goes_on_with_what_was_confirmed_so_an_amendment_had_not_been_heard_of() -> None:
    confirmed = said("confirmation", "confirmed", 1, form_version=1)
    reviewed = said("confirmation", "reviewed", 9, 2)
    amended = said("registration", "amended", 8, 2, form_version=2)
    assert words([confirmed, reviewed], [amended]) == ["confirmed", "reviewed", "amended"]


def test_where_it_is_known_when_something_was_heard_that_alone_counts() -> None:
    paid = said("payment", "paid", 9)
    rejected = said("confirmation", "rejected", 2)
    assert words([paid], [rejected], {rejected.event_id: START + timedelta(seconds=3)}) == [
        "rejected",
        "paid",
    ]
