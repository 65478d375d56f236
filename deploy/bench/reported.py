"""Receipts that are pushed, two thousand a second, beside the same service sending without them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from deploy.bench import sent, telling
from deploy.bench.contender import Violated, running
from deploy.bench.figures import Figure, Goal, middle, number, percentile
from deploy.bench.notifying import carrying, notifying
from deploy.bench.scale import Scale
from deploy.bench.sending import Pace, measure
from deploy.bench.stage import Stage

UNDELAYED: Final = Goal("≥", 0.9)
ALL_OF_THEM: Final = Goal("≥", 0.98)  # a push that is under way at the end is not counted
RATE: Final = 2_000
PUSH: Final = 100  # receipts in one
_WARM: Final = 3.0
_LEFT: Final = """
select (select count(*) from messages where occasion = 'due' and state = 'delivered') as delivered,
       (select count(*) from messages where occasion = 'due' and state not in ('delivered', 'accepted')) as other,
       (select count(*) from outbox where type = 'kaowu.notification.delivered.v1') as said,
       (select count(distinct (key, sequence)) from outbox) as in_order
"""


async def receipts(stage: Stage, scale: Scale, advance: Callable[[str], None]) -> list[Figure]:
    """One process: without, with, without, with."""
    advance("filling the database")
    pushed_a_round = int(RATE * (scale.sending_seconds + _WARM))
    earlier = pushed_a_round * scale.rounds
    people = max(int(1_000 * 2 * scale.rounds * (scale.sending_seconds + _WARM)), earlier)
    login = await telling.known(stage, people)
    async with stage.postgres.connection(login.database) as connection:
        await telling.storm(connection, people)
        await telling.had(connection, earlier)
    cycle_file, secret = telling.cycle_by_day(stage), telling.keys(stage).receipts_secret
    without, along = Pace(), Pace()
    told: list[dict[str, Any]] = []
    async with carrying(stage) as carrier:
        async with notifying(stage, login, cycle_file, carrier) as [service]:
            await carrier.begun(0)
            for turn in range(1, scale.rounds + 1):
                advance(f"without receipts, round {turn}")
                await asyncio.sleep(_WARM)
                await measure(stage, carrier, scale, without, service.pid)
                advance(f"with receipts, round {turn}")
                reporter = stage.contender(
                    "reporter", "deploy.bench.ours.reporter", port=service.port, secret=secret, rate=RATE, push=PUSH,
                    first=(turn - 1) * pushed_a_round, receipts=pushed_a_round,
                )  # fmt: skip
                async with running(reporter):
                    await reporter.go()
                    await asyncio.sleep(_WARM)
                    await measure(stage, carrier, scale, along, service.pid)
                    told.append(dict(await reporter.result(within=120)))
        advance("comparing with the carrier's book")
        async with stage.postgres.connection(login.database) as connection:
            held = await sent.examine(connection, carrier.journal, people)
            taken = await _examine(connection, told, earlier)
    await stage.drop(login)
    return _figures(scale, without, along, told, f"{held}; {taken}")


async def _examine(connection: Any, told: Sequence[dict[str, Any]], earlier: int) -> str:
    refused = sum(each["refused"] for each in told)
    if refused:
        raise Violated(f"{refused} pushes were not answered with yes")
    left = dict(await connection.fetchrow(_LEFT))
    if left != {"delivered": earlier, "other": 0, "said": earlier, "in_order": earlier}:
        raise Violated(f"of {earlier:,} receipts: {left}")
    return f"{earlier:,} receipts, each taken once and said once"


def _figures(
    scale: Scale, without: Pace, along: Pace, told: Sequence[dict[str, Any]], held: str
) -> list[Figure]:
    rates = [each["receipts"] / each["seconds"] for each in told]
    took = [percentile([t * 1000 for t in each["took"]], 99) for each in told]
    return [
        Figure(
            name="sending with 2,000 receipts a second / without",
            unit="SMS/s",
            ours=middle(along.rates),
            peer=middle(without.rates),
            peer_name="the same process before and after",
            goal=UNDELAYED,
            checked=[held],
            spread={"ours": along.rates, "peer": without.rates},
            notes=[
                f"{scale.sending_seconds} s each in turn, after {_WARM:.0f} s that do not count",
                f"processor time of the process an SMS: with {along} µs, without {without} µs",
                f"beside it with: {along.around}; without: {without.around}",
            ],
        ),
        Figure(
            name="receipts taken in",
            unit="receipts/s",
            ours=middle(rates),
            peer=float(RATE),
            peer_name=f"{RATE:,} a second, pushed {PUSH} at a time at their moments",
            goal=ALL_OF_THEM,
            checked=[held],
            spread={"ours": rates},
            notes=[f"a push is answered, its receipts durable, within {number(max(took))} ms (p99)"],
        ),
    ]
