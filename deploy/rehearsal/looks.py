"""What services and the simulated world say of themselves when they are asked whether they are at rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

READS_BOUNCES: Final = "notification"


@dataclass(frozen=True, slots=True)
class State:
    """What one service said of itself."""

    added: int
    unpublished: int
    busy: tuple[str, ...]
    due: tuple[datetime, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """The latest answer of every service and of the world outside."""

    states: Mapping[str, State]
    pending: int
    outside_due: datetime | None
    unread: int = 0
    """Mails that came back and lie in the office's mailbox: nobody tells the service of them, so that it has to be asked."""

    @property
    def added(self) -> dict[str, int]:
        return {name: state.added for name, state in self.states.items()}

    @property
    def unpublished(self) -> dict[str, int]:
        return {name: state.unpublished for name, state in self.states.items()}

    def stirring(self) -> list[str]:
        """Who has something to do at this moment."""
        found = [name for name, state in self.states.items() if state.unpublished or state.busy]
        if self.unread and READS_BOUNCES not in found:
            found.append(READS_BOUNCES)
        return [*found, "outside"] if self.pending or self.unread else found

    @property
    def next_due(self) -> datetime | None:
        moments = [at for state in self.states.values() for at in state.due]
        return min([*moments, self.outside_due] if self.outside_due else moments, default=None)


def state_of(name: str, answer: Mapping[str, Any]) -> State:
    """What a service's `/ops/rest` says."""
    at = datetime.fromisoformat(answer["at"])
    busy, due = [], []
    if answer["consuming"]:
        busy.append(f"{name} is taking events in")
    for job in answer["jobs"]:
        due_at = None if job["due_at"] is None else datetime.fromisoformat(job["due_at"])
        if job["running"]:
            busy.append(f"{name}'s job {job['name']} runs")
        elif due_at is not None and due_at <= at:
            busy.append(f"{name}'s job {job['name']} is due")
        elif due_at is not None:
            due.append(due_at)
    return State(answer["events_added"], answer["events_unpublished"], tuple(busy), tuple(due))
