"""A topic full of events that nobody has taken in yet."""

from __future__ import annotations

from deploy.bench import cases
from deploy.bench.contender import measured
from deploy.bench.stage import Stage


async def flood(stage: Stage, events: int, *, versions: int = 4) -> None:
    """So many of `versions` each, in blocks: the last part of a long topic is of the same kind as all of it."""
    flooder = stage.contender(
        "flood", "deploy.bench.ours.flood", events=events, versions=versions, topic=cases.SOURCE
    )
    await measured(flooder, within=60 + events / 2000)
