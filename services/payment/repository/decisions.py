"""Decisions of two people: what was asked, what was said to it, and doing it in sets."""

# ruff: noqa: S608 -- what is put into statements here are this package's own constants
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Final
from uuid import UUID

from contracts import payment
from contracts.reasons import ReinstatementCause
from services.chassis import outbox
from services.chassis.db import Row, UnitOfWork
from services.payment.domain.decision import Decision, Figures, Kind, Word
from services.payment.domain.obligation import MAY_MOVE, Status
from services.payment.repository.vocabulary import UNDECIDED_ORDER, one_of

CHUNK: Final = 5000

_DECISION: Final = """
    d.decision_id, d.kind, d.site_id, d.registration_id, d.closes_at, d.told_closes_at, d.earlier, d.reason_code,
    d.asked_by, d.asked_at, d.figures::text as figures, v.word, v.decided_by, v.decided_at,
    v.figures::text as decided_on, c.done_at, c.moved, c.reinstated
    from decisions d left join verdicts v using (decision_id) left join carried_out c using (decision_id)
"""
_NOT_DONE: Final = "c.done_at is null and v.word is distinct from 'rejected'"


def _decision(row: Row) -> Decision:
    return Decision(
        decision_id=row.decision_id,
        kind=Kind(row.kind),
        site_id=row.site_id,
        registration_id=row.registration_id,
        closes_at=row.closes_at,
        told_closes_at=row.told_closes_at,
        earlier=row.earlier,
        reason_code=row.reason_code,
        asked_by=row.asked_by,
        asked_at=row.asked_at,
        figures=Figures.of(json.loads(row.figures)),
        word=Word(row.word) if row.word else None,
        decided_by=row.decided_by,
        decided_at=row.decided_at,
        decided_on=Figures.of(json.loads(row.decided_on)) if row.decided_on else None,
        done_at=row.done_at,
        done_moved=row.moved,
        done_reinstated=row.reinstated,
    )


async def find(uow: UnitOfWork, decision_id: UUID) -> Decision | None:
    """One of them."""
    rows = await uow.sql(f"select {_DECISION} where d.decision_id = $1", decision_id)
    return _decision(rows[0]) if rows else None


async def newest(uow: UnitOfWork, limit: int) -> list[Decision]:
    """Those asked for last."""
    rows = await uow.sql(f"select {_DECISION} order by d.asked_at desc, d.decision_id desc limit $1", limit)
    return [_decision(row) for row in rows]


async def not_done(uow: UnitOfWork) -> list[Decision]:
    """Asked for or approved, and neither rejected nor carried out; in the order of asking."""
    rows = await uow.sql(f"select {_DECISION} where {_NOT_DONE} order by d.asked_at, d.decision_id")
    return [_decision(row) for row in rows]


async def reason(uow: UnitOfWork, decision_id: UUID) -> bytes:
    """Why it was asked for, sealed."""
    rows = await uow.sql("select reason from decisions where decision_id = $1", decision_id)
    return bytes(rows[0].reason)


async def add(uow: UnitOfWork, decision: Decision, reason: bytes) -> None:
    """Write down what was asked for."""
    await uow.changed(
        "insert into decisions (decision_id, kind, site_id, registration_id, closes_at, told_closes_at, earlier, "
        "reason_code, reason, asked_by, asked_at, figures) "
        "values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::jsonb)",
        decision.decision_id,
        decision.kind,
        decision.site_id,
        decision.registration_id,
        decision.closes_at,
        decision.told_closes_at,
        decision.earlier,
        decision.reason_code,
        reason,
        decision.asked_by,
        decision.asked_at,
        json.dumps(decision.figures.as_facts()),
    )


async def decide(
    uow: UnitOfWork, decision: Decision, word: Word, by: str, figures: Figures, note: bytes | None
) -> None:
    """Write down what the second person said. The database refuses a second word, and one of whoever asked."""
    await uow.changed(
        "insert into verdicts (decision_id, word, asked_by, decided_by, decided_at, note, figures) "
        "values ($1, $2, $3, $4, $5, $6, $7::text::jsonb)",
        decision.decision_id,
        word,
        decision.asked_by,
        by,
        uow.at,
        note,
        json.dumps(figures.as_facts()),
    )


async def finish(uow: UnitOfWork, decision_id: UUID, moved: int, reinstated: int) -> None:
    """It is done to everybody."""
    await uow.changed(
        "insert into carried_out (decision_id, done_at, moved, reinstated) values ($1, $2, $3, $4)",
        decision_id,
        uow.at,
        moved,
        reinstated,
    )


async def revived(uow: UnitOfWork) -> Sequence[Row]:
    """The closes of single people whose forfeiture was lifted, for reminders."""
    return await uow.sql(
        "select d.told_closes_at, max(c.done_at) as since from decisions d join carried_out c using (decision_id) "
        "where d.kind = 'revive' and d.told_closes_at > $1 group by 1 order by 1",
        uow.at,
    )


# --- in sets. $1 the close, $2 the desk (null: all), $3 the one registration that a revival is about

_SCOPE: Final = "($2::text is null or o.site_id = $2) and ($3::uuid is null or o.registration_id = $3)"
_EXPIRED: Final = f"o.status = '{Status.EXPIRED}'"
_LATER: Final = f"o.status in {one_of(MAY_MOVE)} and o.closes_at < $1"
_SOONER: Final = f"o.status = '{Status.AWAITING}' and o.closes_at > $1"
# A decision's condition: `Obligation.move` as a predicate.
_MOVES: Final = {
    (Kind.EXTEND_PAYMENT, False): _LATER,
    (Kind.EXTEND_PAYMENT, True): _SOONER,
    (Kind.REVIVE, False): f"{_EXPIRED} and o.closes_at < $1",
}


async def count(
    uow: UnitOfWork,
    kind: Kind,
    *,
    earlier: bool,
    closes_at: datetime,
    site_id: str | None,
    registration_id: UUID | None,
) -> Figures:
    """Whom it would concern if it were done now."""
    moves = _MOVES[kind, earlier]
    rows = await uow.sql(
        f"""
        select count(*) filter (where {moves} and not {_EXPIRED}) as moved,
               count(*) filter (where {moves} and {_EXPIRED}) as reinstated,
               count(*) filter (where {_SOONER}) as would_fall,
               count(*) filter (where o.status <> 'cancelled') as approved,
               count(*) filter (where o.status = 'paid') as paid,
               count(*) filter (where {moves} and {_EXPIRED} and exists (
                   select from ledger l where l.registration_id = o.registration_id and l.kind = 'refund-due'
               )) as refunded,
               count(*) filter (where {moves} and exists (
                   select from orders r where r.registration_id = o.registration_id and r.status in {UNDECIDED_ORDER}
               )) as orders_under_way,
               case when $2::text is null then 0
                    else (select count(*) from obligations o where o.site_id is null and {moves})
               end as without_site
        from obligations o where {_SCOPE}
        """,
        closes_at,
        site_id,
        registration_id,
    )
    return Figures.of(rows[0])


def _events(condition: str, event: type[payment.WindowMoved | payment.Reinstated]) -> str:
    facts = {
        "cycle_id": "m.cycle_id",
        "registration_id": "m.registration_id",
        "closes_at": outbox.moment_sql("m.told_closes_at"),
    }
    facts |= (
        {
            "reason_code": "$7::text",
            "counts": "json_build_object('awaiting', $8::int, 'reinstated', $9::int)",
        }
        if event is payment.WindowMoved
        else {"cause": "$10::text"}
    )
    return outbox.insert_select(
        event,
        facts,
        source=f"moved m where {condition}",
        key="m.registration_id::text",
        sequence="m.version",
        occurred_at="$5::timestamptz",
        causation_id="$11::text",
    )


@cache
def _move(moves: str, chunk: int) -> str:
    # By id and after the last one: whoever is forfeited stands in no index of those who owe, and one walk through the
    # key is all it costs. Waits for whoever holds a row: they are payments, and few.
    return f"""
    with concerned as materialized (
        select o.ctid, o.registration_id from obligations o
        where {_SCOPE} and {moves} and ($6::uuid is null or o.registration_id > $6)
        order by o.registration_id limit {chunk:d} for update of o
    ), moved as (
        update obligations o
        set status = 'awaiting', version = o.version + 1, closes_at = $1, told_closes_at = $4::timestamptz,
            changed_at = $5::timestamptz, expired_at = null, proof_id = null
        where o.ctid = any(array(select ctid from concerned)) and {moves}
        returning o.registration_id, o.cycle_id, o.version, o.told_closes_at, old.status as was
    ), moves_said as (
        {_events("m.was <> 'expired'", payment.WindowMoved)} returning 1
    ), reinstatements_said as (
        {_events("m.was = 'expired'", payment.Reinstated)} returning 1
    )
    select (select count(*) from moves_said) as moved, (select count(*) from reinstatements_said) as reinstated,
           (select c.registration_id from concerned c order by c.registration_id desc limit 1) as last
    """


@dataclass(frozen=True, slots=True)
class Step:
    """How far one transaction came; `last` is None when nobody was left."""

    moved: int
    reinstated: int
    last: UUID | None


async def move_chunk(
    uow: UnitOfWork, decision: Decision, counted: Figures, after: UUID | None, *, chunk: int = CHUNK
) -> Step:
    """Do it to up to `chunk` of those whom it concerns, each with the event, in one statement."""
    cause = (
        ReinstatementCause.TWO_PERSON_DECISION
        if decision.kind is Kind.REVIVE
        else ReinstatementCause.WINDOW_EXTENDED
    )
    rows = await uow.sql(
        _move(_MOVES[decision.kind, decision.earlier], chunk),
        decision.closes_at,
        decision.site_id,
        decision.registration_id,
        decision.told_closes_at,
        uow.at,
        after,
        decision.reason_code,
        counted.moved,
        counted.reinstated,
        cause.value,
        f"decision:{decision.decision_id}",
    )
    row = rows[0]
    uow.events_added += row.moved + row.reinstated
    return Step(row.moved, row.reinstated, row.last)


async def done_so_far(uow: UnitOfWork, decision_id: UUID) -> Row:
    """How many were told of it: counted in what was said, because a process may have died in between."""
    rows = await uow.sql(
        "select count(*) filter (where type = $2) as moved, count(*) filter (where type = $3) as reinstated "
        "from outbox where causation_id = $1 and type in ($2, $3)",
        f"decision:{decision_id}",
        payment.WindowMoved.type,
        payment.Reinstated.type,
    )
    return rows[0]
