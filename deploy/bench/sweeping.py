"""P1, P2 and the last of P7: the sweep of the close, against one statement, against pretix, against one deferred job for each.

Everyone gets a database of their own on the same server and the whole machine, one after the other, round by round.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from contracts.cycle import Cycle
from deploy.bench import counter, forfeited, peers, pretix
from deploy.bench.contender import Violated, measured
from deploy.bench.figures import Figure, Goal, middle, number
from deploy.bench.owing import PAID, TRIED, owe
from deploy.bench.scale import Scale
from deploy.bench.stage import Stage
from deploy.local.databases import DatabaseLogin

STATEMENT: Final = Goal("≤", 1.5)
STRETCH: Final = 1.25
PRETIX: Final = Goal("≥", 20)
DEFERRED: Final = Goal("≥", 10)
ONE_STATEMENT: Final = peers.PROGRAMS / "one_statement.py"
_CONCURRENCY: Final = 20
_SHOP: Final = (
    "{orders:,} orders of its own a round, one position each; every one expired and logged; its webhooks and notifications "
    "are left undone, its cache is in its process"
)
_JOBS: Final = (
    "{jobs:,} jobs a round stand for as many as there are rows, its rate does not rise with their number; deferring them "
    "is not counted"
)
_WITHIN: Final = 1200.0

Result = Mapping[str, Any]


async def sweep(stage: Stage, scale: Scale, advance: Callable[[str], None]) -> list[Figure]:
    """As many rounds as the scale says."""
    closes_at = Cycle.read(counter.CYCLE_FILE).windows.payment.closes
    advance("filling the database")
    full, owing = await owe(stage, scale.due_rows, closes_at)
    ours: list[Result] = []
    one: list[Result] = []
    shop: list[Result] = []
    jobs: list[Result] = []
    wal: dict[str, list[float]] = {"ours": [], "peer": []}
    held = ""
    shop_login: DatabaseLogin | None = None
    for turn in range(1, scale.rounds + 1):
        advance(f"ours, round {turn}")
        result, held, written = await _sweep(stage, full, owing.due, closes_at, ours=True)
        ours.append(result)
        wal["ours"].append(written)
        advance(f"one statement, round {turn}")
        result, _, written = await _sweep(stage, full, owing.due, closes_at, ours=False)
        one.append(result)
        wal["peer"].append(written)
        if pretix.interpreter() is not None:
            advance(f"pretix, round {turn}")
            shop_login = shop_login or await _shop_database(stage)
            shop.append(await _pretix(stage, shop_login, scale.shop_orders, turn))
        if peers.interpreter() is not None:
            advance(f"procrastinate, round {turn}")
            jobs.append(await _deferred(stage, full, scale.deferred_jobs, closes_at))
    rates = [each["swept"] / each["seconds"] for each in ours]
    spent = [each["own"] / each["swept"] * 1e6 for each in ours]
    size = (
        f"{owing.due:,} due rows, every {TRIED}th with an order that came to nothing, and {owing.due // PAID:,} who have paid; "
        "fsync on"
    )
    return [
        Figure(
            name="P1 sweep / one statement",
            unit="s",
            ours=middle([each["seconds"] for each in ours]),
            peer=middle([each["seconds"] for each in one]),
            peer_name="one UPDATE … RETURNING → INSERT statement, the same rows to the same tables, in one transaction",
            goal=STATEMENT,
            checked=[held],
            spread={"ours": [each["seconds"] for each in ours], "peer": [each["seconds"] for each in one]},
            notes=[
                size,
                f"stretch {STRETCH}",
                f"ours {middle(rates):,.0f} rows/s, {number(middle(spent))} µs of processor time of the process a row",
                f"log written a row: ours {middle(wal['ours']):,.0f} bytes, the statement {middle(wal['peer']):,.0f}",
                (
                    "guard, totals and root after it: "
                    f"{number(middle([each['rest'] for each in ours]))} s, not counted"
                ),
            ],
        ),
        Figure(
            name="P2 sweep / pretix expire_orders",
            unit="rows/s",
            ours=middle(rates),
            peer=middle([each["expired"] / each["seconds"] for each in shop]) if shop else None,
            peer_name=f"pretix {pretix.version()}'s expire_orders on the same PostgreSQL" if shop else "pretix",
            goal=PRETIX,
            checked=[held],
            not_measured="" if shop else pretix.absent(),
            spread={"ours": rates, "peer": [each["expired"] / each["seconds"] for each in shop]},
            notes=[_SHOP.format(orders=scale.shop_orders)]
            if shop
            else [],
        ),
        Figure(
            name="P7 sweep / deferred jobs",
            unit="rows/s",
            ours=middle(rates),
            peer=middle([each["jobs"] / each["seconds"] for each in jobs]) if jobs else None,
            peer_name=(
                f"procrastinate {peers.version('procrastinate')}, {os.cpu_count()} processes × {_CONCURRENCY} at a time, "
                "one deferred job for each who owes"
            )
            if jobs
            else "procrastinate",
            goal=DEFERRED,
            checked=[held],
            not_measured="" if jobs else peers.absent(),
            spread={"ours": rates, "peer": [each["jobs"] / each["seconds"] for each in jobs]},
            notes=[_JOBS.format(jobs=scale.deferred_jobs)]
            if jobs
            else [],
        ),
    ]  # fmt: skip


async def _sweep(
    stage: Stage, full: DatabaseLogin, due: int, closes_at: datetime, *, ours: bool
) -> tuple[Result, str, float]:
    """On a copy: what it took, what was checked about what it left, and bytes of log a row."""
    login = await stage.copy(full.database, "payment")
    at = closes_at.isoformat()
    if ours:
        environment = dict(counter.environment(stage, login, counter.CYCLE_FILE))
        contender = stage.contender("sweep", "deploy.bench.ours.sweep", environment=environment, at=at)
    else:
        contender = stage.contender(
            "one-statement", ONE_STATEMENT, database=login.url, cycle_file=str(counter.CYCLE_FILE), at=at
        )
    await stage.settle()
    async with stage.postgres.connection() as connection:
        before = await connection.fetchval("select pg_current_wal_insert_lsn()")
        result = await measured(contender, within=_WITHIN)
        written = await connection.fetchval("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1)", before)
    async with stage.postgres.connection(login.database) as connection:
        name = "ours" if ours else "one statement"
        if result["swept"] != due:
            raise Violated(f"{name}: {result['swept']} of {due} rows swept")
        held = await forfeited.examine(connection, closes_at, due, of=name)
        if ours:
            held += "; " + await forfeited.examine_root(connection, closes_at, of=name)
    await stage.drop(login)
    return result, held, float(written) / due


async def _shop_database(stage: Stage) -> DatabaseLogin:
    await stage.postgres.make_role("pretix")
    return await stage.postgres.make_database(f"pretix_{stage.number()}", owner="pretix")


async def _pretix(stage: Stage, login: DatabaseLogin, orders: int, turn: int) -> Result:
    contender = stage.contender(
        "pretix", peers.PROGRAMS / "pretix_expiry.py", python=pretix.interpreter(), orders=orders, salt=turn,
        make_tables=turn == 1, login=_login(login),
    )  # fmt: skip
    await stage.settle()
    await contender.start(within=300)
    try:
        await contender.go()
        result = await contender.result(within=_WITHIN)
    finally:
        await contender.stop()
    if (result["expired"], result["pending"]) != (orders, 0) or result["logged"] != orders * turn:
        raise Violated(f"pretix: of {orders} orders {dict(result)}")
    return result


def _login(login: DatabaseLogin) -> dict[str, str]:
    return {
        "name": login.database,
        "user": login.role,
        "password": login.password,
        "host": login.host,
        "port": str(login.port),
    }


async def _deferred(stage: Stage, full: DatabaseLogin, jobs: int, closes_at: datetime) -> Result:
    login = await stage.copy(full.database, "payment")
    async with stage.postgres.connection(login.database) as connection:
        rows = await connection.fetch(
            "select registration_id::text as id from obligations where status = 'awaiting' order by 1 limit $1",
            jobs,
        )
    contender = stage.contender(
        "deferred", peers.PROGRAMS / "procrastinate_deferred.py", python=peers.interpreter(), database=login.url, jobs=jobs,
        people=[row["id"] for row in rows], at=closes_at.isoformat(), concurrency=_CONCURRENCY, processes=os.cpu_count(),
    )  # fmt: skip
    await stage.settle()
    result = await measured(contender, within=_WITHIN)
    async with stage.postgres.connection(login.database) as connection:
        expired = await connection.fetchval("select count(*) from obligations where status = 'expired'")
        said = await connection.fetchval("select count(*) from outbox")
        if (expired, said) != (jobs, jobs):
            raise Violated(f"procrastinate: of {jobs} jobs {expired} forfeited, {said} said")
    await stage.drop(login)
    return result
