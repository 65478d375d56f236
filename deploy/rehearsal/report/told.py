"""Whom messages reached: how many of each occasion through whom, whom one of them missed, and whom the desks must call."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from deploy.rehearsal.invariants.evidence import Message

MISSED: Final = frozenset({"undelivered", "expired"})
# As they stand on the page; whatever is under way when a rehearsal ends is counted with none of them.
ENDS: Final = ("delivered", "undelivered", "expired", "superseded")


@dataclass(frozen=True, slots=True)
class Way:
    """Messages of one occasion through one channel that one provider had; "": nobody got them."""

    occasion: str
    channel: str
    provider: str
    states: Mapping[str, int]

    @property
    def messages(self) -> int:
        return sum(self.states.values())

    def facts(self) -> dict[str, Any]:
        return {
            "occasion": self.occasion,
            "channel": self.channel,
            "provider": self.provider or None,
            "messages": self.messages,
            **self.states,
        }


def ways(messages: Iterable[Message]) -> list[Way]:
    """The funnel: from what was to be said to what arrived."""
    found: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for message in messages:
        found[message.occasion, message.channel, message.provider][message.state] += 1
    return [Way(*key, dict(sorted(states.items()))) for key, states in sorted(found.items())]


@dataclass(frozen=True, slots=True)
class Line:
    """Messages of one occasion through one channel, whoever had them."""

    channel: str
    ways: tuple[Way, ...]

    @property
    def messages(self) -> int:
        return sum(way.messages for way in self.ways)

    def ended(self, state: str) -> int:
        """How many ended so."""
        return sum(way.states.get(state, 0) for way in self.ways)

    @property
    def share_delivered(self) -> float | None:
        """Of those that were still to be told; None: of nobody."""
        wanted = self.messages - self.ended("superseded")
        return self.ended("delivered") / wanted if wanted else None


def lines(
    ways: Iterable[Way], occasions: Sequence[str], channels: Sequence[str]
) -> list[tuple[str, list[Line]]]:
    """The funnel as it is read: by occasion in the order of a registration's life, a line for each channel."""
    found: dict[str, dict[str, list[Way]]] = defaultdict(lambda: defaultdict(list))
    for way in ways:
        found[way.occasion][way.channel].append(way)
    order = [*(one for one in occasions if one in found), *sorted(found.keys() - set(occasions))]
    return [
        (one, [Line(channel, tuple(found[one][channel])) for channel in channels if channel in found[one]])
        for one in order
    ]


def missed(messages: Iterable[Message], person_of: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every message that told nobody, by the person of the file."""
    found = [
        {
            "person": person_of.get(message.registration_id),
            "registration_id": message.registration_id,
            "occasion": message.occasion,
            "channel": message.channel,
            "provider": message.provider or None,
            "state": message.state,
            "reason_code": message.reason,
        }
        for message in messages
        if message.state in MISSED
    ]
    return sorted(found, key=lambda one: tuple(str(one[key]) for key in ("person", "occasion", "channel")))


def by_person(missed: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, str, int]]:
    """(person, channel, reason) and of how many messages: somebody with a dead number misses all of them for one reason."""
    found = Counter(
        (str(one["person"]), str(one["channel"]), str(one["reason_code"] or one["state"])) for one in missed
    )
    return [(*key, count) for key, count in sorted(found.items())]


SHOWN: Final = (
    "call_id",
    "registration_id",
    "site_id",
    "phone",
    "occasion",
    "reason_code",
    "reason",
    "created_at",
    "call_by",
    "attempts",
    "outcome",
    "closed_at",
)


def calls(listed: Iterable[Mapping[str, Any]], person_of: Mapping[str, str]) -> list[dict[str, Any]]:
    """The desks' list, of the number only its ends: those still to be called first, then what became of the others."""
    found = [
        {"person": person_of.get(one["registration_id"]), **{key: one[key] for key in SHOWN}}
        for one in listed
    ]
    return sorted(found, key=lambda one: (one["closed_at"] is not None, one["created_at"], one["call_id"]))
