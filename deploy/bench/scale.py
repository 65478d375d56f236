"""How much of everything: a look of a few minutes, or what the recorded figures are made with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of one run. Rounds are interleaved: ours, peer, ours, peer, …"""

    name: str
    rounds: int
    relay_rows: int
    outbox_peer_rows: int
    latency_seconds: int
    step_events: int
    queue_events: int  # of the peers that take one event at a time
    backlogs: tuple[int, int]
    counted: int  # events of one run over a backlog, and a process; the same at both depths
    # of the close
    due_rows: int
    instant_rows: int  # behind payments and the wake-up
    idle_seconds: int
    callbacks: int  # a round
    shop_orders: int  # of pretix
    deferred_jobs: int  # of procrastinate
    # of the messages
    forfeited: int  # people, two messages each
    storm_rounds: int
    peer_seconds: int
    waiting: int  # messages, half of them SMS
    sending_seconds: int  # a round
    processes: tuple[int, ...] = (1, 2, 4)
    rate: int = 500

    def of_people(self, people: int) -> Self:
        """The storm of messages smaller or larger, its rounds in proportion, and named so: to try its parts."""
        share = people / self.forfeited
        return replace(
            self,
            name=f"{self.name}, {people:,} people",
            forfeited=people,
            waiting=2 * people,
            peer_seconds=max(4, round(self.peer_seconds * share)),
            sending_seconds=max(5, round(self.sending_seconds * share)),
        )


SMALL: Final = Scale(
    name="small",
    rounds=3,
    relay_rows=100_000,
    outbox_peer_rows=5_000,
    latency_seconds=5,
    step_events=40_000,
    queue_events=3_000,
    backlogs=(40_000, 160_000),
    counted=12_000,
    due_rows=100_000,
    instant_rows=100_000,
    idle_seconds=15,
    callbacks=4_000,
    shop_orders=500,
    deferred_jobs=2_000,
    forfeited=50_000,
    storm_rounds=3,
    peer_seconds=4,
    waiting=240_000,
    sending_seconds=8,
)
FULL: Final = Scale(
    name="full",
    rounds=3,
    relay_rows=1_000_000,
    outbox_peer_rows=15_000,
    latency_seconds=15,
    step_events=120_000,
    queue_events=8_000,
    backlogs=(1_000_000, 4_000_000),
    counted=60_000,
    due_rows=1_000_000,
    instant_rows=1_000_000,
    idle_seconds=90,  # as many calls as count: a stall of the disk must not decide it
    callbacks=10_000,
    shop_orders=5_000,
    deferred_jobs=20_000,
    forfeited=1_000_000,
    storm_rounds=1,
    peer_seconds=20,
    waiting=2_000_000,
    sending_seconds=12,
)
SCALES: Final = {scale.name: scale for scale in (SMALL, FULL)}
