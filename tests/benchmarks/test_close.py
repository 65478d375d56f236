"""The benchmark of the close on itself, tiny and without peers: what it checks is seen when it is wrong."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from contracts.cycle import Cycle
from deploy.bench import counter, forfeited
from deploy.bench.contender import Violated
from deploy.bench.notices import notice
from deploy.bench.owing import order, owe
from deploy.bench.stage import Stage
from deploy.local.databases import DatabaseLogin
from services.chassis.clock import SystemClock
from services.chassis.db import Database
from services.payment.adapters.wechat import WeChatPay
from services.payment.adapters.wechat_signatures import WeChatAccount
from services.payment.domain.proof_tree import ProofTree
from services.payment.handlers import closing
from services.payment.ports import OrderState
from tests.support.postgres import TestDatabases

CYCLE = Cycle.read(counter.CYCLE_FILE)
CLOSES = CYCLE.windows.payment.closes
DUE = 200
_NUMBERS = itertools.count(20_000)  # beside those of the session's databases


@pytest.fixture
async def stage(databases: TestDatabases, tmp_path: Path) -> AsyncIterator[Stage]:
    """On the session's server; no broker is asked for anything here."""
    template = await databases.migrated("payment")
    made = Stage(
        tmp_path,
        None,  # type: ignore[arg-type]  # see above
        databases.server,
        _numbers=_NUMBERS,
        _templates={"payment": template.database},
    )
    yield made
    await made.drop(template)


@pytest.fixture
async def swept(stage: Stage) -> AsyncIterator[DatabaseLogin]:
    """Two hundred who were due, forfeited by the service's own sweep."""
    login, owing = await owe(stage, DUE, CLOSES)
    assert (owing.due, owing.paid) == (DUE, 10)
    database = Database(login.url, clock=SystemClock(), pool_size=2)
    assert await closing.sweep(database, CYCLE, CLOSES, chunk=60) == DUE
    await database.dispose()
    yield login
    await stage.drop(login)


async def test_a_close_that_is_right_is_found_right(stage: Stage, swept: DatabaseLogin) -> None:
    async with stage.postgres.connection(swept.database) as connection:
        said = await forfeited.examine(connection, CLOSES, DUE, of="ours")
    assert said.startswith(
        "200 forfeited, each with one event and one leaf; 0 still owe, 0 of the paid, 0 early"
    )


@pytest.mark.parametrize(
    ("harm", "seen"),
    [
        ("delete from outbox where id in (select min(id) from outbox)", "said 199, not 200"),
        ("update outbox set sequence = 9 where id in (select min(id) from outbox)", "said_once 199, not 200"),
        (
            (
                "update obligations set proof_id = uuidv7() where registration_id in "
                "(select min(registration_id::text)::uuid from proofs)"
            ),
            "proven 199, not 200",
        ),
        (
            (
                "update obligations set status = 'expired', version = 3, expired_at = closes_at, proof_id = uuidv7() "
                "where status = 'paid'"
            ),
            "paid_and_expired 10, not 0",
        ),
        (
            (
                "update obligations set status = 'awaiting' where registration_id in "
                "(select min(registration_id::text)::uuid from proofs)"
            ),
            "owing 1, not 0",
        ),
        (
            (
                "insert into ledger (kind, registration_id, order_no, channel, transaction_id, amount_fen, currency, paid_at, "
                "recorded_at) select 'fee', registration_id, order_no, channel, 'made-up', 1, currency, paid_at, recorded_at "
                "from ledger where kind = 'received' limit 1"
            ),
            "the book does not balance",
        ),
    ],
)
async def test_what_is_wrong_after_a_close_is_named(
    stage: Stage, swept: DatabaseLogin, harm: str, seen: str
) -> None:
    async with stage.postgres.connection(swept.database) as connection:
        await connection.execute(harm)
        with pytest.raises(Violated, match=seen):
            await forfeited.examine(connection, CLOSES, DUE, of="ours")


def test_the_root_is_computed_in_another_way_than_the_service_does() -> None:
    for leaves in range(70):
        hashes = [sha256(str(number).encode()).digest() for number in range(leaves)]
        tree = ProofTree()
        for leaf in hashes:
            tree.add(leaf)
        assert forfeited.root(hashes) == tree.root(), leaves
        if hashes:
            assert forfeited.root([*hashes[:-1], b"x" * 32]) != tree.root()


class _Rows:
    """A close as it might be stored."""

    def __init__(self, root: bytes | None, leaves: list[bytes]) -> None:
        self._root, self._leaves = root, leaves

    async def fetchrow(self, *_: object) -> dict[str, Any]:
        return {"proof_root": self._root, "proofs": len(self._leaves)}

    async def fetch(self, *_: object) -> list[dict[str, bytes]]:
        return [{"leaf": leaf} for leaf in self._leaves]


async def test_a_root_that_is_not_that_of_the_leaves_is_seen() -> None:
    leaves = [bytes([number]) * 32 for number in range(5)]
    right = forfeited.root(leaves)
    assert await forfeited.examine_root(_Rows(right, leaves), CLOSES, of="ours")
    for wrong, of in ((right, leaves[::-1]), (b"y" * 32, leaves)):
        with pytest.raises(Violated, match="not that of the leaves"):
            await forfeited.examine_root(_Rows(wrong, of), CLOSES, of="ours")
    with pytest.raises(Violated, match="no root was published"):
        await forfeited.examine_root(_Rows(None, leaves), CLOSES, of="ours")


async def test_the_service_believes_the_notices_that_the_benchmark_makes(stage: Stage) -> None:
    credentials = counter.credentials(stage)
    accounts = credentials.write_account_files(counter.NOWHERE, counter.NOWHERE, "127.0.0.1:9", 9)
    clock = SystemClock()
    at = clock.now().replace(microsecond=0)
    request = notice(credentials.wechat, "order-number-1", paid_at=at, at=at)
    head, _, body = request.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert int(headers["content-length"]) == len(body)
    channel = WeChatPay(WeChatAccount.read(accounts["wechat"]), notify_url="http://localhost", clock=clock)
    found = channel.parse_notification(headers, body, at)
    assert (found.state, found.order_no, found.paid_at) == (OrderState.PAID, "order-number-1", at)
    await channel.aclose()


async def test_a_close_at_any_minute_of_a_day_has_a_cycle(stage: Stage) -> None:
    """Also where a moment of Leshan's comes to lie in the last minute of a day, which no cycle file may say."""
    close = CYCLE.windows.payment.closes
    said = {datetime.fromisoformat(text) for text in counter.MOMENT.findall(counter.CYCLE_FILE.read_text())}
    last_minutes = {(23 * 60 + 59 - one.hour * 60 - one.minute) % (24 * 60) for one in said}
    assert len(last_minutes) > 5
    for minutes in last_minutes:
        closes_at = close + timedelta(minutes=minutes)
        found = Cycle.read(counter.cycle_that_closes(stage, closes_at))
        assert found.windows.payment.closes == closes_at
        assert (
            found.windows.pre_registration.opens - closes_at == CYCLE.windows.pre_registration.opens - close
        )


async def test_people_with_open_orders_are_added(stage: Stage) -> None:
    login = await stage.migrated("payment")
    async with stage.postgres.connection(login.database) as connection:
        numbers = await order(connection, "held", 3, CLOSES, salt=0x77)
        found = await connection.fetch(
            "select r.order_no from orders r join obligations o using (registration_id) "
            "where o.status = 'held' and r.status = 'open' order by 1"
        )
    assert [row["order_no"] for row in found] == numbers
    await stage.drop(login)
