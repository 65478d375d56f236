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
from deploy.bench.figures import Figure, Goal, middle
from deploy.bench.scale import Scale
from deploy.bench.stage import Stage

NO_DEARER: Final = Goal("≤", 1.1)
NO_SLOWER: Final = Goal("≥", 0.9)


async def backlog(stage: Stage, scale: Scale, advance: Callable[[str], None]) -> list[Figure]:
    """For each number of processes two rows on depth, and one against a single process."""
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
    rows = [row for members, runs in found.items() for row in _depth(members, runs, scale.backlogs)]
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


def _depth(members: int, runs: Sequence[Drained], depths: tuple[int, int]) -> list[Figure]:
    before, deep, after = runs
    shallow, far = (f"{depth:,} behind" for depth in depths)
    who = f"itself with {shallow}, before and after"
    return [
        Figure(
            name=f"scale: cost of an event, {_processes(members)}, {far} / {shallow}",
            unit="µs of processor time",
            ours=deep.cost,
            peer=middle([before.cost, after.cost]),
            peer_name=who,
            goal=NO_DEARER,
            checked=[deep.held],
            spread={"ours": [deep.cost], "peer": [before.cost, after.cost]},
            notes=["members, broker and PostgreSQL together"],
        ),
        Figure(
            name=f"scale: events a second, {_processes(members)}, {far} / {shallow}",
            unit="events/s",
            ours=deep.rate,
            peer=middle([before.rate, after.rate]),
            peer_name=who,
            goal=NO_SLOWER,
            checked=[deep.held],
            spread={"ours": [deep.rate], "peer": [before.rate, after.rate]},
        ),
    ]


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
