"""P4: how fast a relay empties an outbox, against the bare client from memory and against another outbox's own relay.

The same runs show whether a relay that is far behind grows: it samples its memory while it catches up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from deploy.bench import evidence, filling, peers
from deploy.bench.contender import Contender, Failed, measured
from deploy.bench.figures import Figure, Goal, middle, number
from deploy.bench.scale import Scale
from deploy.bench.stage import Stage
from deploy.local.databases import DatabaseLogin

FAR: Final = Goal("≥", 0.5)  # of raw aiokafka from memory
TIMES: Final = Goal("≥", 10.0)  # faststream-outbox
FLAT: Final = Goal("≤", 1.1)
_WORKERS: Final = 50  # 10 and 100 are slower
_BATCH_BYTES: Final = 1 << 18  # as ours
_WITHIN: Final = 900.0
_FEW: Final = 100_000  # rows for those who need no more

Result = Mapping[str, Any]


async def relay(stage: Stage, scale: Scale, advance: Callable[[str], None]) -> list[Figure]:
    """Interleaved rounds over copies of one outbox."""
    advance("filling an outbox")
    full, rows = await _filled(stage, scale.relay_rows)
    few, few_rows = (full, rows) if rows <= _FEW else await _filled(stage, _FEW)
    python = peers.interpreter()
    some = min(scale.outbox_peer_rows, few_rows)

    def ours_over(login: DatabaseLogin) -> Contender:
        return stage.contender("relay", "deploy.bench.ours.relay", database=login.url, rows=rows)

    def raw_over(login: DatabaseLogin) -> Contender:
        program = peers.PROGRAMS / "raw_producer.py"
        return stage.contender("raw-producer", program, database=login.url, batch_bytes=_BATCH_BYTES)

    def outbox_over(login: DatabaseLogin) -> Contender:
        return stage.contender(
            "faststream-outbox",
            peers.PROGRAMS / "outbox_relay.py",
            python=python,
            database=login.url,
            rows=some,
            workers=_WORKERS,
        )

    ours: list[Result] = []
    raw: list[Result] = []
    other: list[Result] = []
    held = seen = ""
    # A round that does not count: the broker's Java compiles its way through it.
    advance("raw aiokafka, to warm the broker")
    await over_a_copy(stage, few, raw_over, few_rows, only_reads=True)
    for turn in range(1, scale.rounds + 1):
        advance(f"our relay, round {turn}")
        found, held = await over_a_copy(stage, full, ours_over, rows)
        ours.append(found)
        advance(f"raw aiokafka, round {turn}")
        found, _ = await over_a_copy(stage, full, raw_over, rows, only_reads=True)
        raw.append(found)
        if python is not None:
            advance(f"faststream-outbox, round {turn}")
            found, seen = await over_a_copy(stage, few, outbox_over, some, in_order=False)
            other.append(found)
    await stage.drop(*{login.database: login for login in (full, few)}.values())
    return [_against_raw(ours, raw, held), _against_outbox(ours, other, held, seen), _memory(ours, held)]


async def _filled(stage: Stage, rows: int) -> tuple[DatabaseLogin, int]:
    login = await stage.migrated(filling.SERVICE)
    rows = await filling.fill(login, rows)
    # As autovacuum leaves a log that stands for a minute; in the middle of one measurement it would count for one side.
    async with stage.postgres.connection(login.database) as connection:
        await connection.execute("vacuum analyze outbox")
    return login, rows


async def over_a_copy(
    stage: Stage,
    full: DatabaseLogin,
    make: Callable[[DatabaseLogin], Contender],
    rows: int,
    *,
    in_order: bool = True,
    only_reads: bool = False,
) -> tuple[Result, str]:
    """What it measured, and what lies in the topic now. Who `only_reads` needs no copy. Raises Violated."""
    login = full if only_reads else await stage.copy(full.database, filling.SERVICE)
    await stage.fresh_topics()
    await stage.settle()
    contender = make(login)
    result = await measured(contender, within=_WITHIN)
    if result["rows"] != rows:
        raise Failed(f"{contender.name} says {result['rows']} rows, asked for {rows}")
    found = await asyncio.to_thread(evidence.look, stage.bootstrap, filling.TOPIC, {})
    if not only_reads:
        await stage.drop(login)
    return result, found.require(contender.name, events=rows, in_order=in_order)


def rates(results: Sequence[Result]) -> list[float]:
    return [each["rows"] / each["seconds"] for each in results]


def cost(results: Sequence[Result]) -> str:
    """Processor time of the process itself, an event."""
    return f"{middle([each['cpu'] / each['rows'] for each in results]) * 1e6:.1f} µs"


def _against_raw(ours: Sequence[Result], raw: Sequence[Result], held: str) -> Figure:
    return Figure(
        name="P4 relay / raw aiokafka",
        unit="rows/s",
        ours=middle(rates(ours)),
        peer=middle(rates(raw)),
        peer_name="raw aiokafka, the same bytes from memory through batch builders",
        goal=FAR,
        checked=[held],
        spread={"ours": rates(ours), "peer": rates(raw)},
        notes=[
            f"{ours[0]['rows']:,} rows; processor time of the process an event: ours {cost(ours)}, peer {cost(raw)}",
            "ours settles its memory as every service does (services/chassis/memory.py), the peer is as it comes",
        ],
    )


def _against_outbox(ours: Sequence[Result], other: Sequence[Result], held: str, seen: str) -> Figure:
    name, unit = "P4 relay / faststream-outbox", "rows/s"
    if not other:
        return Figure(
            name,
            unit,
            middle(rates(ours)),
            None,
            "faststream-outbox",
            TIMES,
            [held],
            not_measured=peers.absent(),
        )
    return Figure(
        name=name,
        unit=unit,
        ours=middle(rates(ours)),
        peer=middle(rates(other)),
        peer_name=f"faststream-outbox {peers.version('faststream-outbox')}'s own relay, {_WORKERS} workers, fetches of 1,000",
        goal=TIMES,
        checked=[held],
        spread={"ours": rates(ours), "peer": rates(other)},
        notes=[
            f"{other[0]['rows']:,} rows for the peer; what it left: {seen}",
            f"processor time of the process an event: ours {cost(ours)}, peer {cost(other)}",
        ],
    )


def _memory(ours: Sequence[Result], held: str) -> Figure:
    """From a tenth of the way on: what comes before is a process that fills its caches."""
    grown = [_early_and_peak(each["memory"], each["rows"]) for each in ours]
    early, peak = middle([a for a, _ in grown]), middle([b for _, b in grown])
    return Figure(
        name="memory of a relay that catches up",
        unit="MiB",
        ours=peak,
        peer=early,
        peer_name="itself after a tenth of the way",
        goal=FLAT,
        checked=[held],
        spread={"ours": [b for _, b in grown], "peer": [a for a, _ in grown]},
        notes=[f"{number(ours[0]['rows'])} rows behind; resident size, sampled twenty times a second"],
    )


def _early_and_peak(samples: Sequence[tuple[int, float]], rows: int) -> tuple[float, float]:
    later = [mib for published, mib in samples if published >= rows / 10]
    if not later:
        raise Failed("the relay took no sample of its memory")
    return later[0], max(later)
