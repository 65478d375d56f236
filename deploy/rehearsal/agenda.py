"""Which moment comes next, and what is to be done then. Knows the people's steps, the world's events and the edges of
the cycle's windows; a service's own next moments are asked for elsewhere."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from contracts.cycle import Cycle
from deploy.rehearsal.people import People, Verb, WorldEvent, WorldVerb
from deploy.rehearsal.people_file import moment
from deploy.rehearsal.standing import Human, Standing, Turn


class Agenda:
    def __init__(self, people: People, cycle: Cycle, standings: dict[str, Standing]) -> None:
        self._turns: dict[datetime, list[Turn]] = defaultdict(list)
        self._events: dict[datetime, list[WorldEvent]] = defaultdict(list)
        self._marks: dict[datetime, list[Callable[[], None]]] = defaultdict(list)
        self._edges: set[datetime] = set()
        self._heap: list[datetime] = []
        self._known: set[datetime] = set()
        self._cycle = cycle
        self.humans: dict[str, Human] = {}
        for event in people.world:
            self._events[event.at].append(event)
            self._add(event.at)
            self._add_edges(_edges_of(event))
        for person in people.persons:
            human = self.humans.setdefault(people.first_of(person), Human())
            standing = standings[person.name]
            for step in person.steps:
                self.put(Turn(step.at, person.line, step, standing, human))
                if step.verb is Verb.RETURN and step.fields.get("fix_until") is not None:
                    self._add_edges([moment(step.fields["fix_until"])])
        self.first_at = min(
            [*self._heap, cycle.windows.pre_registration.opens], default=cycle.windows.pre_registration.opens
        )
        self._add_edges(edges(cycle))
        self.last_at = max(self._known)

    def put(self, turn: Turn) -> None:
        self._turns[turn.at].append(turn)
        self._add(turn.at)

    def put_later(self, at: datetime, turns: Iterable[Turn]) -> None:
        """Steps that find a service down happen when it is back."""
        self._turns[at].extend(turns)
        self._add(at)

    def mark(self, at: datetime, reached: Callable[[], None]) -> None:
        self._marks[at].append(reached)
        self._add(at)

    def add_edges(self, edges: Iterable[datetime]) -> None:
        self._add_edges(edges)

    def add_mornings(self) -> None:
        """Stop at the end of every night's quiet hours too: what was held back leaves before anybody acts that day."""
        self._add_edges(mornings(self._cycle, self.first_at, self.last_at))

    @property
    def next_at(self) -> datetime | None:
        return self._heap[0] if self._heap else None

    def is_edge(self, at: datetime) -> bool:
        return at in self._edges

    def take(self, at: datetime) -> tuple[list[Turn], list[WorldEvent], list[Callable[[], None]]]:
        """Everything of this moment, turns and events in the order of the file."""
        while self._heap and self._heap[0] <= at:
            self._known.discard(heapq.heappop(self._heap))
        turns = sorted(self._turns.pop(at, ()), key=lambda turn: (turn.step.at, turn.line, turn.step.index))
        events = sorted(self._events.pop(at, ()), key=lambda event: (event.line, event.index))
        return turns, events, self._marks.pop(at, [])

    @property
    def moments(self) -> int:
        return len(self._known)

    def _add(self, at: datetime) -> None:
        if at not in self._known:
            self._known.add(at)
            heapq.heappush(self._heap, at)

    def _add_edges(self, edges: Iterable[datetime]) -> None:
        for at in edges:
            self._edges.add(at)
            self._add(at)


def edges(cycle: Cycle) -> set[datetime]:
    """Moments at which something ends or begins for many: everything is at rest before and after each."""
    windows = cycle.windows
    found: set[datetime] = set()
    for window in (windows.pre_registration, windows.confirmation, windows.payment):
        for opens, closes in window.spans:
            found |= {opens, closes}
    for site in cycle.sites:
        if site.window is not None:
            found |= {site.window.opens, site.window.closes}
    payment = windows.payment
    found.add(payment.last_order_at)
    found |= {payment.told_closes - offset for offset in payment.reminders}
    return found


def mornings(cycle: Cycle, first: datetime, last: datetime) -> list[datetime]:
    """The ends of the quiet hours, first ≤ end < last."""
    day, found = first.astimezone(cycle.zone).date(), []
    while (end := datetime.combine(day, cycle.quiet_hours.ends, cycle.zone)) < last:
        if end >= first:
            found.append(end)
        day += timedelta(days=1)
    return found


def _edges_of(event: WorldEvent) -> list[datetime]:
    """World events are edges themselves: what they change must not meet half-arrived facts."""
    found = [event.at]
    if event.verb in (WorldVerb.SET_DESK_WINDOW, WorldVerb.EXTEND, WorldVerb.REVIVE):
        found.extend(moment(event.fields[key]) for key in ("opens", "closes") if key in event.fields)
    return found
