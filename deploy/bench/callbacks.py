"""P9: a gateway's callback through the real service, beside an endpoint that writes what it is sent into a table and no more.

Both are one process behind the same server, on the same PostgreSQL, called by the same client over as many connections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from deploy.bench import counter, peers
from deploy.bench.contender import Violated, running
from deploy.bench.figures import Figure, Goal, middle, number, percentile
from deploy.bench.owing import SERVICE, order, owe
from deploy.bench.scale import Scale
from deploy.bench.serving import serving
from deploy.bench.stage import Stage, tree_cpu
from deploy.local.processes import free_port

BARE: Final = Goal("≥", 0.5)
BARE_ENDPOINT: Final = peers.PROGRAMS / "bare_endpoint.py"
_CONNECTIONS: Final = 64  # what a gateway opens when many pay at once
_WARM: Final = 300  # calls that do not count
_SALT: Final = 0x0200
_OTHERS: Final = 20_000  # who owe and pay at another time
_LEFT: Final = """
select (select count(*) from obligations where status = 'paid') as paid,
       (select count(*) from orders where status = 'paid' and answer_id is not null) as decided,
       (select count(*) from ledger where kind = 'received') as received,
       (select count(*) from ledger where kind = 'fee') as fees,
       (select count(*) from answers where kind = 'notice') as answers,
       (select count(distinct b.key) from outbox b join obligations o on o.registration_id::text = b.key
            and o.version = b.sequence where b.type = 'kaowu.payment.paid.v1') as said,
       (select count(*) from outbox) as events
"""


async def callbacks(stage: Stage, scale: Scale, advance: Callable[[str], None]) -> list[Figure]:
    """As many rounds as the scale says, ours and the peer's in turn."""
    # The first reminder is said seven days before the close: none now.
    closes_at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=10)
    advance("filling the database")
    cycle_file = counter.cycle_that_closes(stage, closes_at)
    # The window is half over: plans are made for tables that hold something.
    login, _ = await owe(stage, _OTHERS, closes_at)
    bare_login = await stage.postgres.make_database(f"bare_{stage.number()}", owner=SERVICE)
    turns = [_WARM] + [scale.callbacks] * scale.rounds
    async with stage.postgres.connection(login.database) as connection:
        orders = [
            await order(connection, "awaiting", count, closes_at, salt=_SALT + turn)
            for turn, count in enumerate(turns)
        ]
        await connection.execute("vacuum analyze")
        before = dict(await connection.fetchrow(_LEFT))
    port = free_port()
    bare = stage.contender("bare-endpoint", BARE_ENDPOINT, database=bare_login.url, port=port)
    ours: list[dict[str, Any]] = []
    peer: list[dict[str, Any]] = []
    async with serving(stage, login, cycle_file) as service, running(bare):
        for turn, numbers in enumerate(orders):
            for name, where, pid, results in (
                ("ours", service.port, service.pid, ours),
                ("bare endpoint", port, bare.pid, peer),
            ):
                advance(f"{name}, {f'round {turn}' if turn else 'warming up'}")
                result = await _call(stage, numbers, where, pid)
                if wrong := {status for _, _, status in result["calls"]} - {204}:
                    raise Violated(f"{name}: calls were answered with {sorted(wrong)}")
                if turn:
                    results.append(result)
        await bare.go()
        written = (await bare.result(within=60))["rows"]
    called = sum(turns)
    if written != called:
        raise Violated(f"bare endpoint: {written} of {called} calls were written")
    async with stage.postgres.connection(login.database) as connection:
        left = dict(await connection.fetchrow(_LEFT))
    if wrong_counts := {
        name: count - before[name] for name, count in left.items() if count - before[name] != called
    }:
        raise Violated(f"of {called} payments: {wrong_counts}")
    await stage.drop(login, bare_login)
    rates = [each["sent"] / each["seconds"] for each in ours]
    bare_rates = [each["sent"] / each["seconds"] for each in peer]
    return [
        Figure(
            name="P9 callback / bare endpoint",
            unit="calls/s",
            ours=middle(rates),
            peer=middle(bare_rates),
            peer_name="a FastAPI endpoint that does one INSERT of the body",
            goal=BARE,
            checked=[
                (
                    f"{called:,} payments: every one answered, decided, in the book as received and as fee, and said once "
                    "with the gateway's own word kept"
                )
            ],
            spread={"ours": rates, "peer": bare_rates},
            notes=[
                f"{_CONNECTIONS} connections, {scale.callbacks:,} calls a round",
                f"processor time of the process a call: ours {_cost(ours)} µs (jobs and relay included), peer {_cost(peer)} µs",
                f"p99 ours {_p99(ours)} ms, peer {_p99(peer)} ms",
            ],
        )
    ]  # fmt: skip


def _cost(results: Sequence[dict[str, Any]]) -> str:
    return number(middle([each["server"] / each["sent"] * 1e6 for each in results]))


def _p99(results: Sequence[dict[str, Any]]) -> str:
    return number(middle([percentile([took * 1000 for _, took, _ in each["calls"]], 99) for each in results]))


async def _call(stage: Stage, numbers: Sequence[str], port: int, pid: int) -> dict[str, Any]:
    caller = stage.contender(
        "caller", "deploy.bench.ours.caller", credentials=str(stage.directory / "gateway-keys"), port=port,
        orders=list(numbers), connections=_CONNECTIONS,
    )  # fmt: skip
    async with running(caller):
        await stage.settle()
        before = tree_cpu(pid)
        await caller.go()
        result = await caller.result(within=300)
        return {**result, "server": tree_cpu(pid) - before}
