"""How the pipeline scales: events a second with more processes, and whether a deep backlog makes an event dearer.

One long topic. Each group drains its last part, then all of it, then its last part once more, over a new database each time:
what the machine does meanwhile hits both depths.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from deploy.bench import cases, evidence, flooding
from deploy.bench.draining import Drained, drain
from deploy.bench.figures import Figure, Goal, middle, number
from deploy.bench.scale import Scale
from deploy.bench.stage import Stage

FLAT: Final = Goal("≤", 1.1)


async def backlog(stage: Stage, scale: Scale, advance: Callable[[str], None]) -> list[Figure]:
    """For each number of processes one row on depth, and one on what the first of them does not do alone."""
    shallow, deep = scale.backlogs
    await stage.fresh_topics()
    advance(f"filling the topic with {deep:,} events")
    await flooding.flood(stage, deep)
    end = await asyncio.to_thread(evidence.ends, stage.bootstrap, cases.SOURCE)
    last_part = behind(end, shallow)
    found: dict[int, list[Drained]] = {}
    for members in scale.processes:
        for depth, start in ((shallow, last_part), (deep, None), (shallow, last_part)):
            advance(f"{_processes(members)}, {depth:,} behind")
            await stage.settle()
            within = 120 + depth / 500
            drained = await drain(stage, depth, members=members, within=within, start=start)
            found.setdefault(members, []).append(drained)
    rows = [_depth(members, runs, scale.backlogs) for members, runs in found.items()]
    alone = found[scale.processes[0]]
    rows += [
        _together(members, runs, alone, deep)
        for members, runs in found.items()
        if members != scale.processes[0]
    ]
    return rows


def behind(end: Mapping[int, int], events: int) -> dict[int, int]:
    """Where each partition must be read from, so that in all of them together so many events are left."""
    total = sum(end.values())
    start = {part: offset - events * offset // total for part, offset in end.items()}
    extra = events - sum(end[part] - start[part] for part in end)
    for part in sorted(end)[:extra]:  # what the rounding down left out: fewer than there are partitions
        start[part] -= 1
    return start


def _depth(members: int, runs: Sequence[Drained], depths: tuple[int, int]) -> Figure:
    before, deep, after = runs
    shallow = [1e6 / before.rate, 1e6 / after.rate]
    cpu = middle([before.cost, after.cost])
    return Figure(
        name=f"scale: an event with {_processes(members)}, {depths[1]:,} behind / {depths[0]:,} behind",
        unit="µs/event",
        ours=1e6 / deep.rate,
        peer=middle(shallow),
        peer_name=f"itself with {depths[0]:,} behind, before and after",
        goal=FLAT,
        checked=[deep.held],
        spread={"ours": [1e6 / deep.rate], "peer": shallow},
        notes=[
            (
                f"{number(deep.rate)} events/s with {depths[1]:,} behind, {number(before.rate)} and {number(after.rate)} with "
                f"{depths[0]:,}; processor time of everything, an event: {number(deep.cost)} µs against {number(cpu)} µs "
                f"({deep.cost / cpu:.2f} times)"
            )
        ],
    )


def _together(members: int, runs: Sequence[Drained], alone: Sequence[Drained], deep: int) -> Figure:
    """No goal: how much a second process brings depends on how many cores are left for it."""
    return Figure(
        name=f"scale: {_processes(members)} / 1, {deep:,} behind",
        unit="events/s",
        ours=runs[1].rate,
        peer=alone[1].rate,
        peer_name="itself with 1 process",
        goal=None,
        checked=[runs[1].held],
        notes=["broker, PostgreSQL and the one relay run on the same cores"],
    )


def _processes(members: int) -> str:
    return "1 process" if members == 1 else f"{members} processes"
