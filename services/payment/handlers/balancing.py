"""What the office sees of the comparison with the gateways' bills, and how a person closes a break."""

from __future__ import annotations

import json
from datetime import date
from typing import Any, Final
from uuid import UUID

from contracts import payment
from contracts.cycle import Cycle
from contracts.reasons import BreakClosing, BreakKind
from services.chassis import audit, outbox
from services.chassis.db import Database, Row, UnitOfWork
from services.chassis.tokens import Actor
from services.chassis.vault import Vault
from services.payment.domain.reconciling import Balance, Explanation, days_due
from services.payment.repository import bills, breaks, cycle_words

_ALL: Final = "all"


class NoSuchBreak(Exception):
    """Nobody found such a break."""


class ClosedAlready(Exception):
    """Somebody closed it; it is not opened again."""


class NoSuchDay(Exception):
    """No bill of that day is asked for: it is not over, lies outside the cycle, or the channel gives no bills."""


async def report(
    database: Database, cycle: Cycle, channels: frozenset[str], *, after: int, limit: int, closed: bool
) -> dict[str, Any]:
    """Days, counts, sums, whether they balance, and a page of the breaks."""
    window = cycle.windows.payment
    async with database.reading() as uow:
        compared = {(row.channel, row.day): row for row in await breaks.days(uow)}
        money = {(row.channel, row.day): _balance(row) for row in await breaks.balances(uow)}
        waiting = {(row.channel, row.day): row for row in await bills.waits(uow)}
        listed = await breaks.page(uow, after=after, limit=limit, closed=closed)
        open_breaks = await breaks.open_count(uow)
        at = uow.at
    due = {(channel, day) for channel in channels for day in days_due(window.opens, window.closes, at, ())}
    days = [
        _day(key, compared.get(key), money.get(key, Balance()), waiting.get(key), is_due=key in due)
        for key in sorted(compared.keys() | money.keys() | due, key=lambda key: (key[1], key[0]))
    ]
    totals: dict[str, Balance] = {_ALL: Balance()}
    for (channel, _), balance in money.items():
        totals[channel] = totals.get(channel, Balance()) + balance
        totals[_ALL] += balance
    return {
        "cycle_id": cycle.id,
        "at": at,
        "balanced": all(balance.closes for balance in (*totals.values(), *money.values())),
        "reconciled": not any(day["state"] == "waiting" for day in days),
        "open_breaks": open_breaks,
        "totals": {name: _facts(balance) for name, balance in sorted(totals.items())},
        "days": days,
        "breaks": [_break(row) for row in listed],
        "next": listed[-1].number if len(listed) == limit else None,
    }


def _balance(row: Row) -> Balance:
    return Balance(row.received, row.fees, row.refunded, row.due, row.held, row.owed)


def _facts(balance: Balance) -> dict[str, Any]:
    return {
        "received": balance.received,
        "paid": balance.fees,
        "owed_by_the_paid": balance.owed,
        "refunded": balance.refunded,
        "due": balance.due,
        "held": balance.held,
        "balanced": balance.closes,
    }


def _day(
    key: tuple[str, date], found: Row | None, money: Balance, waiting: Row | None, *, is_due: bool
) -> dict[str, Any]:
    state = "waiting" if is_due else "not-over"
    if found is not None:
        state = "no-bill" if found.digest is None else "reconciled"
    facts: dict[str, Any] = {"channel": key[0], "day": key[1], "state": state, **_facts(money)}
    if found is not None:
        facts |= {
            "at": found.at,
            "digest": found.digest,
            "bill_changed": found.changed,
            "lines": found.lines,
            "matched": found.matched,
            "explained": found.explained,
            "breaks": found.breaks,
            "open_breaks": found.open_breaks,
            "billed": found.billed_fen,
            "billed_back": found.billed_back_fen,
            "explanations": [
                {"reason": reason, "words": Explanation(reason).text, "lines": lines}
                for reason, lines in sorted(json.loads(found.explanations).items())
            ],
        }
    if waiting is not None and waiting.code == bills.LOOKED_AT_AGAIN:
        facts["looked_at_again"] = waiting.ask_at
    elif waiting is not None:
        facts["waits"] = {
            "since": waiting.since,
            "attempts": waiting.attempts,
            "gateway_code": waiting.code,
            "ask_at": waiting.ask_at,
        }
    return facts


def _break(row: Row) -> dict[str, Any]:
    return {
        "break_id": row.break_id,
        "channel": row.channel,
        "day": row.day,
        "kind": row.kind,
        "words": BreakKind(row.kind).text,
        "line": row.line_no,
        "order_no": row.order_no,
        "transaction_id": row.transaction_id,
        "refund_no": row.refund_no,
        "registration_id": row.registration_id,
        "state": row.state,
        "state_now": row.state_now,
        "in_ledger_now": row.in_ledger_now,
        "billed_fen": row.billed_fen,
        "booked_fen": row.booked_fen,
        "found_at": row.found_at,
        "closed": None
        if row.closed_at is None
        else {"by": row.closed_by, "at": row.closed_at, "reason_code": row.reason_code},
    }


async def close_break(
    uow: UnitOfWork,
    *,
    actor: Actor,
    break_id: UUID,
    reason_code: BreakClosing,
    reason: str,
    cycle: Cycle,
    vault: Vault,
) -> dict[str, Any]:
    """A person has looked into it. Raises NoSuchBreak, ClosedAlready."""
    found = await breaks.find(uow, break_id)
    if found is None:
        raise NoSuchBreak
    sealed = vault.encrypt(reason, row=str(break_id))
    if not await breaks.close(uow, break_id, actor.subject, reason_code, sealed):
        raise ClosedAlready
    sequence = await cycle_words.next_sequence(uow, cycle.id)
    event = payment.BreakClosed(cycle_id=cycle.id, break_id=break_id, reason_code=reason_code)
    await outbox.add(uow, event, sequence=sequence)
    detail = {
        "channel": found.channel,
        "day": found.day,
        "kind": found.kind,
        "reason_code": reason_code.value,
    }
    await audit.record(uow, actor, "break-closed", subject=str(break_id), detail=detail)
    return {"break_id": str(break_id), "closed_at": uow.at.isoformat(), "reason_code": reason_code.value}


async def fetch_again(
    uow: UnitOfWork, *, actor: Actor, cycle: Cycle, channels: frozenset[str], channel: str, day: date
) -> dict[str, Any]:
    """The bill of this day is fetched once more: the same changes nothing, another one is compared anew. Raises NoSuchDay."""
    window = cycle.windows.payment
    if channel not in channels or day not in days_due(window.opens, window.closes, uow.at, ()):
        raise NoSuchDay
    await bills.wait(uow, channel, day, "asked-by-the-office", uow.at, again=True)
    await audit.record(
        uow, actor, "bill-asked-again", subject=cycle.id, detail={"channel": channel, "day": day}
    )
    return {"channel": channel, "day": day.isoformat()}
