"""Door 1, carriers: the receipts that they push, and how the office sees each of them."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Request

from contracts.refusals import Code, Refused
from services.chassis.db import Database
from services.chassis.http import allow, signed_by
from services.chassis.tokens import Actor
from services.notification.domain.providers import Circuit, shares_of
from services.notification.handlers.receipts import take_pushed
from services.notification.ports import Sms
from services.notification.repository import providers


def carrier_routes(
    database: Database, carriers: Mapping[str, Sms], shares: Mapping[str, float], receipts_secret: str
) -> APIRouter:
    """The routes of the public port that have to do with carriers of SMS."""
    router = APIRouter()

    @router.get("/office/messages/providers")
    async def seen(_: Annotated[Actor, allow("office", "ops")]) -> dict[str, Any]:
        async with database.reading() as uow:
            rows = {row.name: row for row in await providers.rows(uow)}
            health = shares_of(shares, await providers.known(uow))
            at = uow.at
        items = []
        for one in health:
            row = rows.get(one.name)
            circuit = one.circuit(at)
            items.append(
                {
                    "provider": one.name,
                    "share": one.share_now,
                    "configured_share": one.configured,
                    "well": circuit is Circuit.WELL,
                    "circuit": circuit,
                    "fell_at": one.fell_at,
                    "why": row.why if row is not None and one.fell_at is not None else None,
                    "paused_until": one.paused_until if circuit is Circuit.PAUSED else None,
                    "tries": row.tries if row is not None else 0,
                    "failed": row.failed if row is not None else 0,
                    "slow": row.slow if row is not None else 0,
                }
            )
        return {"items": items}

    @router.post(
        "/carriers/{provider}/receipts/{secret}",
        dependencies=[signed_by("carriers sign nothing: the path is a secret, its content only a hint")],
    )
    async def receipts(provider: str, secret: str, request: Request) -> dict[str, Any]:
        carrier = carriers.get(provider)
        if carrier is None or not hmac.compare_digest(secret.encode(), receipts_secret.encode()):
            raise Refused(Code.NOT_FOUND, "没有这个地址，请检查后再试。")
        await take_pushed(database, carrier, await request.body())
        return dict(carrier.thanks)

    return router
