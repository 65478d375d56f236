"""The report says of every message whom it reached and through whom, and of whoever was missed why and who calls."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from deploy.rehearsal.invariants.evidence import Message
from deploy.rehearsal.looks import Look
from deploy.rehearsal.report import told, words
from services.notification.domain.calling import REASONS, CallOutcome
from services.notification.domain.occasions import Occasion
from services.notification.domain.returned import reason_word

LI, WANG = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
PERSON_OF = {LI: "p0008", WANG: "p0002"}


def message(who: str, channel: str, state: str, provider: str = "", reason: str | None = None) -> Message:
    return Message(who, "expired", channel, state, UUID(int=1), False, reason, provider)


MESSAGES = [
    message(WANG, "sms", "delivered", "aliyun"),
    message(WANG, "email", "delivered", "smtp"),
    message(LI, "sms", "undelivered", "tencent", "number-not-in-use"),
    message(LI, "sms", "expired", "aliyun", "no-receipt"),
    message(LI, "sms", "superseded"),
    message(LI, "email", "undelivered", "smtp", "mailbox-unknown"),
    message(LI, "email", "undelivered", "smtp", "mailbox-unknown"),
]


def test_every_message_is_counted_once_under_whoever_had_it() -> None:
    ways = told.ways(MESSAGES)
    assert [(way.channel, way.provider, way.states) for way in ways] == [
        ("email", "smtp", {"delivered": 1, "undelivered": 2}),
        ("sms", "", {"superseded": 1}),
        ("sms", "aliyun", {"delivered": 1, "expired": 1}),
        ("sms", "tencent", {"undelivered": 1}),
    ]
    assert sum(way.messages for way in ways) == len(MESSAGES)
    assert ways[1].facts() == {
        "occasion": "expired",
        "channel": "sms",
        "provider": None,
        "messages": 1,
        "superseded": 1,
    }


def test_the_funnel_reads_in_the_order_of_a_registrations_life_a_line_for_each_channel() -> None:
    others = [message(WANG, "sms", "superseded")._replace(occasion=one) for one in ("unheard-of", "paid")]
    found = told.lines(told.ways([*MESSAGES, *others]), ("paid", "due", "expired"), ("sms", "email"))
    assert [(occasion, [line.channel for line in lines]) for occasion, lines in found] == [
        ("paid", ["sms"]),
        ("expired", ["sms", "email"]),
        ("unheard-of", ["sms"]),
    ]
    sms = found[1][1][0]
    assert (sms.messages, sms.ended("expired"), sms.ended("superseded")) == (4, 1, 1)
    assert sms.share_delivered == 1 / 3, "what was not needed any more is no failure"
    assert found[0][1][0].share_delivered is None


def test_the_report_has_words_for_everything_that_notification_says() -> None:
    assert {str(one) for one in Occasion} <= words.OCCASIONS.keys()
    assert {str(one) for one in CallOutcome} <= words.CALLS.keys()
    reasons = {
        reason_word(f"5.{detail}") for detail in ("1.1", "1.2", "2.1", "2.2", "2.3", "3.4", "4.1", "7.1")
    }
    assert reasons | REASONS.keys() <= words.MISSED.keys()
    assert set(told.ENDS) <= words.MESSAGE_STATES.keys()


def test_whoever_was_missed_is_listed_by_person_with_the_reason() -> None:
    missed = told.missed(MESSAGES, PERSON_OF)
    assert [(one["person"], one["channel"], one["state"]) for one in missed] == [
        ("p0008", "email", "undelivered"),
        ("p0008", "email", "undelivered"),
        ("p0008", "sms", "undelivered"),
        ("p0008", "sms", "expired"),
    ]
    assert told.by_person(missed) == [
        ("p0008", "email", "mailbox-unknown", 2),
        ("p0008", "sms", "no-receipt", 1),
        ("p0008", "sms", "number-not-in-use", 1),
    ]


def test_the_list_of_calls_has_those_to_be_called_first_and_no_whole_number() -> None:
    def call(number: int, closed_at: str | None) -> dict[str, Any]:
        facts = dict.fromkeys(told.SHOWN)
        return {
            **facts,
            "call_id": str(UUID(int=number)),
            "registration_id": LI,
            "phone": "199****0008",
            "created_at": f"2024-02-0{number}T00:00:00Z",
            "closed_at": closed_at,
            "text": "a text that is not repeated here",
        }

    found = told.calls([call(1, "2024-02-03T00:00:00Z"), call(3, None), call(2, None)], PERSON_OF)
    assert [(one["created_at"][:10], one["closed_at"]) for one in found] == [
        ("2024-02-02", None),
        ("2024-02-03", None),
        ("2024-02-01", "2024-02-03T00:00:00Z"),
    ]
    assert {one["person"] for one in found} == {"p0008"}
    assert all("text" not in one for one in found)


def test_the_clock_waits_for_a_mail_that_came_back_and_was_not_read() -> None:
    """It is read on the real clock: were time to go on, a bounce of a minute would take days."""
    assert Look({}, 0, None, unread=1).stirring() == ["notification", "outside"]
    assert Look({}, 0, None).stirring() == []
