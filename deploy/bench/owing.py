"""A payment database before its close: who owes, with and without orders that came to nothing, and who has paid."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from contracts.cycle import Cycle
from deploy.bench.stage import Stage
from deploy.local.databases import DatabaseLogin

SERVICE: Final = "payment"
CYCLE: Final = "2024-health-leshan"
FEE_FEN: Final = 24_400
# Of those who owe every tenth has tried: one order, closed at the gateway, with the gateway's word for it.
TRIED: Final = 10
# As many again as a twentieth of them have paid.
PAID: Final = 20
# One registration's id is made of its number: in the order of time, as the service's own are.
_ID: Final = "('{salt:08x}-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
_OBLIGATIONS: Final = """
insert into obligations (registration_id, cycle_id, status, version, amount_fen, currency, opens_at, closes_at, told_closes_at,
                         due_at, changed_at, paid_at)
select {id}, '{cycle}', '{status}', {version}, {fee}, 'CNY', $1::timestamptz - interval '11 days', $1, $1,
       $1 - interval '11 days', $1 - interval '11 days', {paid_at}
from generate_series({first}, {last}) n
"""
_ANSWERED: Final = """
with tries as (
    select {id} as registration_id, n, '{salt:08x}' || lpad(to_hex(n), 12, '0') as order_no
    from generate_series({first}, {last}, {step}) n
), said as (
    insert into answers (order_no, kind, state, at, digest, raw, signature)
    select order_no, '{kind}', '{said}', $1::timestamptz - interval '3 days', sha256(order_no::bytea),
           convert_to(repeat(md5(order_no), 24), 'UTF8'), '{{"serial": "0", "signature": "0"}}'
    from tries returning answer_id, order_no
)
insert into orders (order_no, registration_id, channel, amount_fen, currency, status, created_at, expires_at, ask_at,
                    attempts, decided_at, answer_id)
select t.order_no, t.registration_id, 'wechat', {fee}, 'CNY', '{status}', $1 - interval '3 days 2 hours',
       $1 - interval '3 days', $1 - interval '3 days', 1, $1 - interval '3 days', s.answer_id
from tries t join said s using (order_no)
"""
_POSTINGS: Final = """
insert into ledger (kind, registration_id, order_no, channel, transaction_id, amount_fen, currency, paid_at, recorded_at,
                    answer_id)
select k.kind, r.registration_id, r.order_no, 'wechat', 'paid-' || r.order_no, r.amount_fen, 'CNY', r.decided_at, r.decided_at,
       case k.kind when 'received' then r.answer_id end
from (values ('received'), ('fee')) k (kind), orders r where r.status = 'paid'
"""
_OPEN: Final = """
insert into orders (order_no, registration_id, channel, amount_fen, currency, status, created_at, expires_at, ask_at)
select '{salt:08x}' || lpad(to_hex(n), 12, '0'), {id}, 'wechat', {fee}, 'CNY', 'open', $1::timestamptz - interval '1 hour',
       {until}, {until}
from generate_series({first}, {last}) n
"""


_REMINDERS: Final = """
insert into reminders (registration_id, told_closes_at, offset_seconds, at)
select registration_id, $1, $2::int, $1::timestamptz - make_interval(secs => $2::int)
from obligations where status = 'awaiting' and closes_at = $1
"""
_RUNS: Final = """
insert into reminder_runs (cycle_id, told_closes_at, offset_seconds, skipped, at)
select $1, $2, n, false, $2::timestamptz - make_interval(secs => n) from unnest($3::int[]) n
"""


@dataclass(frozen=True, slots=True)
class Owing:
    """What was put there."""

    due: int
    paid: int
    closes_at: datetime


async def owe(
    stage: Stage, rows: int, closes_at: datetime, *, salt: int = 0x0195
) -> tuple[DatabaseLogin, Owing]:
    """A migrated database in which `rows` people will be due at `closes_at`."""
    login = await stage.migrated(SERVICE)
    paid = rows // PAID
    payers = {"first": rows, "last": rows + paid - 1}
    shared: dict[str, Any] = {"id": _ID.format(salt=salt), "salt": salt, "cycle": CYCLE, "fee": FEE_FEN}
    async with stage.postgres.connection(login.database) as connection:
        for statement, terms in (
            (_OBLIGATIONS, {"status": "awaiting", "version": 1, "paid_at": "null", "first": 0, "last": rows - 1}),
            (_OBLIGATIONS, {"status": "paid", "version": 2, "paid_at": "$1 - interval '3 days'", **payers}),
            (_ANSWERED, {"kind": "query", "said": "closed", "status": "closed", "first": 0, "last": rows - 1, "step": TRIED}),
            (_ANSWERED, {"kind": "notice", "said": "paid", "status": "paid", **payers, "step": 1}),
        ):  # fmt: skip
            await connection.execute(statement.format(**shared, **terms), closes_at)
        await connection.execute(_POSTINGS)
        await connection.execute("vacuum analyze")
    return login, Owing(rows, paid, closes_at)


async def reminded(connection: Any, closes_at: datetime, cycle: Cycle) -> None:
    """Whoever owes has been told of this close for the last time, as they are by the time it comes: nothing is left to say."""
    offsets = [int(offset.total_seconds()) for offset in cycle.windows.payment.reminders]
    await connection.execute(_REMINDERS, closes_at, min(offsets))
    await connection.execute(_RUNS, cycle.id, closes_at, offsets)


async def people(connection: Any, owed: str, count: int, closes_at: datetime, *, salt: int) -> None:
    """So many more people in the state `owed` who never ordered."""
    shared: dict[str, Any] = {"id": _ID.format(salt=salt), "cycle": CYCLE, "fee": FEE_FEN}
    terms = {"status": owed, "version": 1, "paid_at": "null", "first": 0, "last": count - 1}
    await connection.execute(_OBLIGATIONS.format(**shared, **terms), closes_at)


async def order(
    connection: Any, owed: str, count: int, closes_at: datetime, *, salt: int, until: datetime | None = None
) -> list[str]:
    """So many more people in the state `owed`, each with an open order to be asked about at `until`. Their order numbers."""
    shared: dict[str, Any] = {"id": _ID.format(salt=salt), "salt": salt, "cycle": CYCLE, "fee": FEE_FEN}
    await people(connection, owed, count, closes_at, salt=salt)
    moment = "$1" if until is None else f"'{until.isoformat()}'::timestamptz"
    await connection.execute(_OPEN.format(**shared, first=0, last=count - 1, until=moment), closes_at)
    return [f"{salt:08x}{number:012x}" for number in range(count)]
