"""I8: each fact that concerns a person leads, per channel, to one message, and none is forgotten."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Final
from uuid import UUID

from deploy.rehearsal.invariants.evidence import Evidence, Finding

# The facts of rules.md §6 that people are told of, by the service that says them.
TOLD: Final = {
    "registration": frozenset({"pre-registered", "amended", "withdrawn"}),
    "confirmation": frozenset({"confirmed", "returned", "approved", "rejected", "lapsed", "window-moved"}),
    "payment": frozenset(
        {"due", "closing-soon", "paid", "expired", "reinstated", "refunded", "window-moved"}
    ),
}
CHANNELS: Final = ("sms", "email")
ENDED: Final = frozenset({"delivered", "undelivered", "expired", "superseded"})


def told(evidence: Evidence) -> Finding:
    """I8. One intended message per fact and channel, which ends delivered, undelivered, run out or superseded."""
    wrong: list[str] = []
    messages: dict[UUID, Counter[str]] = defaultdict(Counter)
    for message in evidence.messages:
        messages[message.event_id][message.channel] += 1
        if message.state not in ENDED and not message.waits:
            wrong.append(
                f"registration {message.registration_id}: {message.channel} about {message.occasion} "
                f"is left {message.state}"
            )
    parked = {
        one.event_id for one in evidence.parked if one.service == "notification" and one.status != "replayed"
    }
    facts = 0
    for service, words in TOLD.items():
        for fact in evidence.facts.get(service, ()):
            if fact.word not in words or "registration_id" not in fact.payload or fact.event_id in parked:
                continue
            facts += 1
            for channel in CHANNELS:
                count = messages[fact.event_id][channel]
                if count != 1:
                    wrong.append(f"registration {fact.key}: {count} messages by {channel} about {fact.word}")
    ended = Counter(message.state for message in evidence.messages)
    states = ", ".join(f"{count} {state}" for state, count in sorted(ended.items()))
    return Finding(
        "I8", "one message per fact and channel", f"{facts} facts, {states or 'no message'}", tuple(wrong)
    )
