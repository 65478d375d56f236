"""How the pipeline scales: events a second with more processes, and whether a deep backlog makes an event dearer.

One long topic. A group begins with all of it behind, or with its last part only, over a new database each time, and as many
events are counted at either depth: a longer run would also pay for checkpoints and vacuums that a shorter one leaves to the next.
The depths take turns, so that what the machine does meanwhile hits both. At the end one group drains all of it, and its last
quarter is held against its first: by then inbox, outbox and state have grown.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from deploy.bench import cases, evidence, flooding
from deploy.bench.draining import Drained, stretches
from deploy.bench.figures import Figure, Goal, middle
from deploy.bench.scale import Scale
from deploy.bench.stage import Stage

NO_DEARER: Final = Goal("≤", 1.1)
NO_SLOWER: Final = Goal("≥", 0.9)
_WARM: Final = 4  # of so many events one more comes before them and does not count

Runs = Mapping[int, Sequence[Drained]]  # by depth


async def backlog(stage: Stage, scale: Scale, advance: Callable[[str], None]) -> list[Figure]:
    """For each number of processes two rows on depth, and one against a single process; one row for the whole way."""
    shallow, deep = scale.backlogs
    await stage.fresh_topics()
    advance(f"filling the topic with {deep:,} events")
    await flooding.flood(stage, deep)
    end = await asyncio.to_thread(evidence.ends, stage.bootstrap, cases.SOURCE)
    begins = {shallow: behind(end, shallow), deep: None}
    found: dict[int, dict[int, list[Drained]]] = {}
    for members in scale.processes:
        # More processes need no longer time for more events, up to what the machine has.
        count = min(scale.counted * min(members, 2), shallow * 3 // 5)
        for turn in range(scale.rounds):
            for depth in scale.backlogs[:: -1 if turn % 2 else 1]:
                advance(f"{_processes(members)}, {depth:,} behind, round {turn + 1}")
                await stage.settle()
                marks = (count // _WARM, count // _WARM + count)
                (run,) = await stretches(
                    stage, marks, members=members, within=120 + count / 200, start=begins[depth]
                )
                found.setdefault(members, {}).setdefault(depth, []).append(run)
    rows = [row for members, runs in found.items() for row in _depth(members, runs, scale.backlogs)]
    alone = found[scale.processes[0]]
    rows += [
        _together(members, runs[deep], alone[deep], deep)
        for members, runs in found.items()
        if members != scale.processes[0]
    ]
    most = scale.processes[-1]
    advance(f"{_processes(most)}, all {deep:,}")
    await stage.settle()
    quarters = [deep // 20, *(deep * part // 4 for part in (1, 2, 3, 4))]
    way = await stretches(stage, quarters, members=most, within=120 + deep / 500, whole=True)
    return [*rows, _whole(most, way, deep)]


def behind(end: Mapping[int, int], events: int) -> dict[int, int]:
    """Where each partition must be read from, so that in all of them together so many events are left."""
    total = sum(end.values())
    start = {part: offset - events * offset // total for part, offset in end.items()}
    extra = events - sum(end[part] - start[part] for part in end)
    for part in sorted(end)[:extra]:  # what the rounding down left out: fewer than there are partitions
        start[part] -= 1
    return start


def _depth(members: int, runs: Runs, depths: tuple[int, int]) -> list[Figure]:
    shallow, deep = (runs[depth] for depth in depths)
    near, far = (f"{depth:,} behind" for depth in depths)
    who = f"itself with {near}, in turns"
    counted = f"about {shallow[0].events:,} events counted a run, after some that are not"
    cores = os.cpu_count() or 1
    crowded = members > cores
    return [
        Figure(
            name=f"scale: cost of an event, {_processes(members)}, {far} / {near}",
            unit="µs of processor time",
            ours=middle([run.cost for run in deep]),
            peer=middle([run.cost for run in shallow]),
            peer_name=who,
            goal=NO_DEARER,
            checked=[deep[-1].held],
            spread={"ours": [run.cost for run in deep], "peer": [run.cost for run in shallow]},
            notes=["members, broker and PostgreSQL together", counted],
        ),
        Figure(
            name=f"scale: events a second, {_processes(members)}, {far} / {near}",
            unit="events/s",
            ours=middle([run.rate for run in deep]),
            peer=middle([run.rate for run in shallow]),
            peer_name=who,
            goal=None if crowded else NO_SLOWER,
            checked=[deep[-1].held],
            spread={"ours": [run.rate for run in deep], "peer": [run.rate for run in shallow]},
            notes=[
                f"no goal: {members} processes take turns on {cores} cores, so that the processor time is what counts"
                if crowded
                else counted
            ],
        ),
    ]


def _together(members: int, runs: Sequence[Drained], alone: Sequence[Drained], deep: int) -> Figure:
    """No goal: how much a second process brings depends on how many cores are left for it."""
    return Figure(
        name=f"scale: {_processes(members)} / 1, {deep:,} behind",
        unit="events/s",
        ours=middle([run.rate for run in runs]),
        peer=middle([run.rate for run in alone]),
        peer_name="itself with 1 process",
        goal=None,
        checked=[runs[-1].held],
        notes=["broker, PostgreSQL and the one relay run on the same cores"],
    )


def _whole(members: int, way: Sequence[Drained], deep: int) -> Figure:
    costs = ", ".join(f"{quarter.cost:.1f}" for quarter in way)
    return Figure(
        name=f"scale: cost of an event, {_processes(members)} drain all {deep:,}, last quarter / first",
        unit="µs of processor time",
        ours=way[-1].cost,
        peer=way[0].cost,
        peer_name="its own first quarter",
        goal=NO_DEARER,
        checked=[way[-1].held],
        notes=[
            f"quarter by quarter: {costs} µs; {', '.join(f'{quarter.rate:,.0f}' for quarter in way)} events/s",
        ],
    )


def _processes(members: int) -> str:
    return "1 process" if members == 1 else f"{members} processes"
