"""The dry run: who would be forfeited if the window closed now, why, and how much money may still be on its way."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from contracts.cycle import Cycle
from services.chassis import audit
from services.chassis.db import Database, Row
from services.chassis.tokens import Actor
from services.payment.repository import preview

WORDS: Final = {
    "never-ordered": "从未下单",
    "orders-unpaid": "下过单，支付渠道确认均未支付",
    "order-under-way": "有未了结订单：截止时先关单、再向支付渠道查询，不先作放弃处理",
    "restore-under-way": "系统恢复未完成，恢复前的订单尚未逐笔查清，暂不处理任何人",
    "decision-under-way": "有待批准或正在办理的截止时间变更，办结前不作放弃处理",
    "stopped": "有正在办理的事项，暂不处理",
}
"""Why, for people."""


async def preview_close(
    database: Database,
    cycle: Cycle,
    actor: Actor,
    *,
    closes_at: datetime | None,
    site_id: str | None = None,
    after: UUID | None,
    limit: int,
) -> dict[str, Any]:
    """A page of it, of every desk or of one; the totals stand on the first. Nothing changes but the audit trail: who looked."""
    async with database.unit_of_work() as uow:
        rows = await preview.page(uow, closes_at, site_id, after, limit)
        totals = await preview.totals(uow, closes_at, site_id) if after is None else None
        await audit.record(
            uow,
            actor,
            "close-previewed",
            subject=cycle.id,
            detail={"listed": len(rows), "after": after, "site_id": site_id},
        )
    found: dict[str, Any] = {
        "cycle_id": cycle.id,
        "at": uow.at,
        "items": [_item(row) for row in rows],
        "next": rows[-1].registration_id if len(rows) == limit else None,
    }
    if totals is not None:
        found["totals"] = _totals(totals)
    return found


def _item(row: Row) -> dict[str, Any]:
    return {
        "registration_id": row.registration_id,
        "site_id": row.site_id,
        "state": row.status,
        "closes_at": row.closes_at,
        "amount_fen": row.amount_fen,
        "would": row.would,
        "why": row.why,
        "orders": row.orders,
        "in_flight_fen": row.in_flight_fen,
        "open_order": None
        if row.order_no is None
        else {
            "order_no": row.order_no,
            "channel": row.channel,
            "state": row.order_status,
            "amount_fen": row.order_amount_fen,
            "expires_at": row.order_expires_at,
        },
    }


def _totals(rows: Sequence[Row]) -> dict[str, Any]:
    reasons = sorted({(row.closes_at, row.would, row.why) for row in rows})
    desks = sorted({row.site_id for row in rows}, key=lambda site_id: (site_id is None, site_id or ""))
    return {
        **_by_fate(rows),
        "by_reason": [
            {
                "closes_at": closes_at,
                "would": would,
                "why": why,
                "words": WORDS[why],
                **_sums(
                    [row for row in rows if (row.closes_at, row.would, row.why) == (closes_at, would, why)]
                ),
            }
            for closes_at, would, why in reasons
        ],
        "by_site": [
            {"site_id": site_id, **_by_fate([row for row in rows if row.site_id == site_id])}
            for site_id in desks
        ],
    }


def _by_fate(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Money is in flight only of whoever is asked about or spared."""
    forfeit, ask, spare = (
        _sums([row for row in rows if row.would == would]) for would in ("forfeit", "ask", "spare")
    )
    del forfeit["in_flight_fen"]
    return {"forfeit": forfeit, "ask": ask, "spare": spare}


def _sums(rows: Sequence[Row]) -> dict[str, int]:
    return {name: sum(row[name] for row in rows) for name in ("registrations", "amount_fen", "in_flight_fen")}
