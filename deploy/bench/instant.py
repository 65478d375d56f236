"""P3, P7 and memory: the real service at the instant of its close, while people's payments go on being heard of.

Fifty callbacks a second come before, during and after the instant. Half are of people who are held: they paid in time, nobody
had heard of it. The other half have a later close.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any, Final

from contracts.cycle import Cycle
from deploy.bench import counter, forfeited
from deploy.bench.contender import Contender, Failed, Violated
from deploy.bench.disk import Probe, probed, writeback
from deploy.bench.figures import Figure, Goal, number, percentile
from deploy.bench.owing import order, owe, reminded
from deploy.bench.scale import Scale
from deploy.bench.serving import Memory, serving
from deploy.bench.stage import Stage
from deploy.local.databases import DatabaseLogin
from deploy.simulators.world import Plan, Simulators
from services.chassis.clock import SystemClock

PAYMENTS: Final = Goal("≤", 3)
WITHIN_A_SECOND: Final = Goal("≤", 1)
WITHIN_MEMORY: Final = Goal("≤", 1)
MEBIBYTES: Final = 300.0
RATE: Final = 50
_OPEN: Final = 20  # orders that the close has to ask the gateway about
_HELD_SALT, _LATER_SALT, _OPEN_SALT = 0x0196, 0x0197, 0x0198
_WARM: Final = 2.0
_PATIENCE: Final = 4
_PIECE: Final = 15.0  # seconds
_STEADY: Final = 20.0  # ms, of a disk on which next to nothing is written
_PUBLISHED: Final = """
select exists (select from relay_cursor) and not exists (
    select from outbox o, relay_cursor c
    where o.xid >= c.lower and not (c.upper is not null and o.xid < c.upper and o.id <= c.last_id)
)
"""


@dataclass
class Seen:
    """Moments on the machine's clock."""

    first: float = 0.0
    early: int = 0
    closed: float = 0.0
    published: float = 0.0


async def instant(stage: Stage, scale: Scale, advance: Callable[[str], None]) -> list[Figure]:
    """One run: idle, the instant, the sweep, and until everything is published."""
    rows = scale.instant_rows
    longest = 20 + rows / 8_000  # seconds for which there are payments; the close itself is waited for longer
    payers = int(RATE * (_WARM + scale.idle_seconds + longest)) // 2
    signing = 10 + payers * 2 / 400
    lead = 20 + rows / 8_000 + signing + scale.idle_seconds
    closes_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=int(lead))
    advance("filling the database")
    await stage.keep_log()
    cycle_file = counter.cycle_that_closes(stage, closes_at)
    login, owing = await owe(stage, rows, closes_at)
    later = closes_at + timedelta(hours=1)
    async with stage.postgres.connection(login.database) as connection:
        held = await order(connection, "held", payers, closes_at, salt=_HELD_SALT, until=later)
        others = await order(connection, "awaiting", payers, later, salt=_LATER_SALT, until=later)
        await order(connection, "awaiting", _OPEN, closes_at, salt=_OPEN_SALT)
        await reminded(connection, closes_at, Cycle.read(cycle_file))
        await connection.execute("vacuum analyze")
    await stage.settle()
    everyone = [one for pair in zip(held, others, strict=True) for one in pair]
    plan = Plan(keys=stage.directory / "gateway-keys", data=stage.directory / "gateway")
    async with (
        Simulators(plan, SystemClock()) as world,
        serving(stage, login, cycle_file, gateway_url=world.wechat_url) as service,
        probed(stage.directory / "probe") as disk,
    ):
        memory = Memory()
        watching = asyncio.create_task(service.watch(memory))
        caller = stage.contender(
            "caller", "deploy.bench.ours.caller", credentials=str(stage.directory / "gateway-keys"), port=service.port,
            orders=everyone, paid_at=(closes_at - timedelta(minutes=5)).isoformat(), rate=RATE,
        )  # fmt: skip
        try:
            begin = closes_at.timestamp() - scale.idle_seconds - _WARM
            # The gateway's word is fresh for five minutes: not signed before it is needed.
            await asyncio.sleep(max(0.0, begin - signing - _now()))
            advance("signing payments")
            await caller.start(within=lead)
            async with _ended(caller):
                if (early := begin - _now()) < 0:
                    raise Failed(f"this machine was {-early:.0f} s too slow to be idle before the close")
                await asyncio.sleep(early)
                advance("idle")
                await caller.go()
                seen = await _watch_the_close(stage, login, closes_at, longest, advance)
                await caller.tell("stop")
                result = await caller.result(within=60)
                await _until_published(stage, login, seen)
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
    called = everyone[: result["sent"]]
    async with stage.postgres.connection(login.database) as connection:
        checked = await _examine(connection, closes_at, owing.due + _OPEN, called, held, result["calls"])
    await stage.drop(login)
    return figures(scale, closes_at, seen, memory, result["calls"], checked, disk)


@contextlib.asynccontextmanager
async def _ended(caller: Contender) -> AsyncIterator[None]:
    """Gone when the block ends; it has been started."""
    try:
        yield
    finally:
        await caller.stop()


def _now() -> float:
    return datetime.now(UTC).timestamp()


async def _watch_the_close(
    stage: Stage, login: DatabaseLogin, closes_at: datetime, longest: float, advance: Callable[[str], None]
) -> Seen:
    seen, instant_ = Seen(), closes_at.timestamp()
    async with stage.postgres.connection(login.database) as connection:
        while not seen.first:
            await asyncio.sleep(0.005 if _now() > instant_ - 1 else 0.1)
            row = await connection.fetchrow(
                "select exists (select from proofs) as some, clock_timestamp() as at, "
                "(select count(*) from proofs where expired_at < closes_at) as early"
            )
            if row["some"]:
                seen.first = row["at"].timestamp()
                if seen.first < instant_:
                    seen.early += 1
            if _now() > instant_ + longest:
                raise Failed("nobody was forfeited: the close did not run")
        advance("the sweep")
        while not seen.closed:
            await asyncio.sleep(0.05)
            if await connection.fetchval(
                "select exists (select from closings where closes_at = $1 and closed_at is not null)",
                closes_at,
            ):
                seen.closed = _now()
            if _now() > instant_ + _PATIENCE * longest:
                raise Failed(f"the close was not over within {_PATIENCE * longest:.0f} s")
    return seen


async def _until_published(stage: Stage, login: DatabaseLogin, seen: Seen) -> None:
    async with stage.postgres.connection(login.database) as connection:
        async with asyncio.timeout(300):
            while not await connection.fetchval(_PUBLISHED):
                await asyncio.sleep(0.2)
    seen.published = _now()


async def _examine(
    connection: Any,
    closes_at: datetime,
    due: int,
    called: Sequence[str],
    held: Sequence[str],
    calls: Sequence[Sequence[Any]],
) -> str:
    if refused := [status for _, _, status in calls if status != 204]:
        raise Violated(f"{len(refused)} of {len(calls)} payments were not taken: {sorted(set(refused))}")
    paid = await connection.fetchval(
        "select count(*) from orders r join obligations o using (registration_id) "
        "join ledger l on l.order_no = r.order_no and l.kind = 'fee' "
        "where r.order_no = any($1::text[]) and r.status = 'paid' and o.status = 'paid'",
        list(called),
    )
    if paid != len(called):
        raise Violated(f"of {len(called)} who paid in time {paid} are paid")
    still = len(set(held) - set(called))
    counted = await forfeited.examine(connection, closes_at, due, of="the close", owing=still)
    root = await forfeited.examine_root(connection, closes_at, of="the close")
    return f"{len(called):,} payments in time, every one answered with yes and paid; {counted}; {root}"


def _piecewise(calls: Sequence[Sequence[Any]], begins: float, ends: float) -> str:
    """p99 of each whole piece of that time: one stall of the disk spoils a whole's p99, and only one piece's."""
    pieces = range(int((ends - begins) / _PIECE))
    found = [
        percentile([took * 1000 for due, took, _ in calls if 0 <= due - begins - piece * _PIECE < _PIECE], 99)
        for piece in pieces
    ]
    return f"median {number(median(found))} ({', '.join(map(number, found))}) ms" if found else "too short"


def _unsteady(idle_p99: float) -> str:
    """Why the time before the close is nothing to compare with. What the disk does during the close counts against the close."""
    if idle_p99 <= _STEADY:
        return ""
    return (
        f"idle, the disk alone took {number(idle_p99)} ms (p99) for 8 kB, more than {_STEADY:.0f}: "
        "run it again when nobody else uses that disk"
    )


def figures(
    scale: Scale,
    closes_at: datetime,
    seen: Seen,
    memory: Memory,
    calls: Sequence[Sequence[Any]],
    checked: str,
    disk: Probe,
) -> list[Figure]:
    """`calls`: when each was due, how many seconds it took and its status."""
    moment = closes_at.timestamp()
    idle = [took * 1000 for due, took, _ in calls if moment - scale.idle_seconds <= due < moment]
    during = [took * 1000 for due, took, _ in calls if moment <= due < seen.closed]
    lasted = seen.closed - moment
    early = f"{seen.early} forfeited before the instant" if seen.early else ""
    before, meanwhile = disk.say(moment - scale.idle_seconds, moment), disk.say(moment, seen.closed)
    return [
        Figure(
            name="P3 payment p99 during the sweep",
            unit="ms",
            ours=percentile(during, 99),
            peer=percentile(idle, 99),
            peer_name=f"itself in the {scale.idle_seconds} s before the close",
            goal=PAYMENTS,
            checked=[checked],
            not_measured=_unsteady(disk.p99(moment - scale.idle_seconds, moment)),
            notes=[
                f"{RATE} payments a second by the gateway's callbacks, {len(idle):,} before and {len(during):,} during the close",
                f"p50 before {number(percentile(idle, 50))} ms, during {number(percentile(during, 50))} ms",
                f"the longest during {number(max(during))} ms",
                (
                    f"p99 of each {_PIECE:.0f} s: before {_piecewise(calls, moment - scale.idle_seconds, moment)}, "
                    f"during {_piecewise(calls, moment, seen.closed)}"
                ),
                f"8 kB written through to the same disk ten times a second: before {before}, during {meanwhile}",
                writeback(),
            ],
        ),
        Figure(
            name="P7 first forfeiture after the instant",
            unit="s",
            ours=seen.first - moment,
            peer=1.0,
            peer_name="one second",
            goal=WITHIN_A_SECOND,
            checked=[checked, "0 before the instant"],
            violated=early,
            notes=[
                ("the service's own job woke by its clock, asked three clocks and the gateway about "
                f"{_OPEN} open orders before; seen by another session, looking every 5 ms"),
                (
                    f"{scale.instant_rows:,} rows: closed with totals and root {number(lasted)} s after the instant, "
                    f"all published after {number(seen.published - moment)} s"
                ),
            ],
        ),
        Figure(
            name="memory of the payment service",
            unit="MiB",
            ours=max(memory.resident, memory.own),
            peer=MEBIBYTES,
            peer_name=f"{MEBIBYTES:.0f} MiB",
            goal=WITHIN_MEMORY,
            checked=[checked],
            notes=[
                (f"resident size, sampled {memory.samples:,} times until all was published; its share of shared pages "
                f"at most {number(memory.own)} MiB"),
                f"{scale.instant_rows:,} rows",
            ],
        ),
    ]  # fmt: skip
