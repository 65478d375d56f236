"""In which order one service lived through what it said and what it heard.

A service's own log and its inbox are dated by the same clock, so most of it is a sorting by moment. Within one moment
(a rehearsal's clock stands still while hundreds act) each registration's own order follows from what caused what.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from deploy.replay.history import Said

# Said by the handler that takes its cause in, in the same transaction. Everything else is said by people or by time.
REACTIONS: Final = frozenset({"kaowu.payment.due.v1", "kaowu.confirmation.returned.v1"})
# After one of these a service says nothing more of a registration, unless something else that it hears makes it.
ENDINGS: Final = frozenset(
    {
        ("confirmation", "withdrawn"),
        ("payment", "withdrawn"),
        ("payment", "returned"),
        ("payment", "rejected"),
    }
)


@dataclass(frozen=True, slots=True)
class Step:
    """One event as one service lived it: said by it (own), or taken in by it."""

    at: datetime
    turn: int
    own: bool
    said: Said


def order(own: Sequence[Said], heard: Sequence[Said], received: Mapping[UUID, datetime]) -> list[Step]:
    """Both in one order. `received`: when an event was taken in; without it, the moment it was said or reacted to."""
    reacted = {one.causation_id: one.occurred_at for one in own if one.type in REACTIONS and one.causation_id}
    moments: dict[UUID, datetime] = {}
    guessed: set[UUID] = set()
    for one in heard:
        known = received.get(one.event_id) or reacted.get(str(one.event_id))
        moments[one.event_id] = known or one.occurred_at
        if known is None:
            guessed.add(one.event_id)
    steps: list[Step] = []
    said_by, heard_by = _by_key(own), _by_key(heard)
    for key in said_by.keys() | heard_by.keys():
        steps.extend(_of_key(said_by.get(key, []), heard_by.get(key, []), moments, guessed))
    # Facts about desks come before what is decided by them at the same moment.
    steps.sort(key=lambda s: (s.at, ":" not in s.said.key, s.turn, s.own, s.said.event_id))
    return steps


def _by_key(events: Iterable[Said]) -> dict[str, list[Said]]:
    found: dict[str, list[Said]] = defaultdict(list)
    for one in events:
        found[one.key].append(one)
    return found


def _of_key(
    own: list[Said], heard: list[Said], moments: Mapping[UUID, datetime], guessed: Collection[UUID]
) -> list[Step]:
    """One key's events merged. Each step's moment is never before the one of the step before it."""
    own.sort(key=lambda one: one.sequence)
    heard = sorted(heard, key=lambda one: (moments[one.event_id], one.event_id))
    place = {str(one.event_id): n for n, one in enumerate(heard)}
    steps: list[Step] = []
    taken = 0

    def put(one: Said, mine: bool, at: datetime) -> None:
        before = steps[-1] if steps else None
        if before is None or at > before.at:
            steps.append(Step(at, 0, mine, one))
        else:
            steps.append(Step(before.at, before.turn + 1, mine, one))

    for mine in own:
        until = place.get(mine.causation_id or "", -1)
        while taken < len(heard):
            one = heard[taken]
            followed = _follows(one, mine) if one.event_id in guessed else None
            first = _comes_first(one, moments[one.event_id], mine) if followed is None else not followed
            if taken > until and not first:
                break
            put(one, False, moments[one.event_id])
            taken += 1
        put(mine, True, mine.occurred_at)
    for one in heard[taken:]:
        put(one, False, moments[one.event_id])
    return steps


def _follows(heard: Said, own: Said) -> bool | None:
    """Whether this was taken in after that was said, judged by what they are about. None: that does not tell."""
    if heard.word == "pre-registered":
        return False
    if (own.topic.rpartition(".")[2], heard.word) in ENDINGS:
        return True
    if heard.word == "amended" and own.word == "confirmed":
        return bool(heard.facts["form_version"] > own.facts["form_version"])
    # An amendment of what was confirmed would have sent it back.
    return True if heard.word == "amended" and own.word in ("reviewed", "approved") else None


def _comes_first(heard: Said, at: datetime, own: Said) -> bool:
    """Whether this was taken in before that was said. At the same moment: where the one is about what the other made."""
    if at != own.occurred_at:
        return at < own.occurred_at
    if heard.word == "pre-registered":
        return True
    # A desk confirms one version of the form.
    return heard.word == "amended" and heard.facts["form_version"] <= own.facts.get("form_version", 0)
