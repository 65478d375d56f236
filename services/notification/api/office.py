"""Door 1, office and desks: how messages stand as a whole, whom none reached, and whether the promise is kept.

A desk reads its own people's only; whose they are follows from the desk they registered at.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query

from contracts.reasons import Carrier
from services.chassis.db import Database, Row
from services.chassis.http import allow
from services.chassis.tokens import Actor
from services.chassis.vault import Vault
from services.notification.domain.masking import masked
from services.notification.domain.occasions import Occasion
from services.notification.domain.undelivered import reason_in_words
from services.notification.handlers.contacts import row_of
from services.notification.handlers.outgoing import COLUMN
from services.notification.handlers.promising import promise
from services.notification.repository import reports

_FIRST = UUID(int=0)
_SITE = r"^[a-z]+(-[a-z]+)*$"
SiteInPath = Annotated[str, Path(pattern=_SITE, max_length=32)]
SiteAsked = Annotated[str | None, Query(pattern=_SITE, max_length=32)]
OfDesk = Annotated[Actor, allow("desk:{site_id}")]
Office = Annotated[Actor, allow("office")]
Limit = Annotated[int, Query(ge=1, le=1000)]


def office_routes(database: Database, vault: Vault, goal: float) -> APIRouter:
    """The routes of the public port for whoever runs the exam. `goal`: the share that is promised."""
    router = APIRouter()

    async def funnel(occasion: Occasion | None, site_id: str | None) -> dict[str, Any]:
        async with database.reading() as uow:
            rows = await reports.funnel(uow, occasion=occasion, site_id=site_id)
            at = uow.at
        counted = ("occasion", "channel", "provider", "state", "messages", "parts", "ambiguous")
        return {"at": at, "items": [{name: getattr(row, name) for name in counted} for row in rows]}

    async def undelivered(
        occasion: Occasion | None, site_id: str | None, after: UUID, limit: int
    ) -> dict[str, Any]:
        async with database.reading() as uow:
            rows = await reports.undelivered(uow, after, limit, occasion=occasion, site_id=site_id)
        return {
            "items": [_shown(row, vault) for row in rows],
            "next": rows[-1].message_id if len(rows) == limit else None,
        }

    @router.get("/office/messages/promise")
    async def how_it_stands(_: Annotated[Actor, allow("office", "ops")]) -> dict[str, Any]:
        async with database.reading() as uow:
            return await promise(uow, goal)

    @router.get("/office/messages/funnel")
    async def funnel_of_all(
        _: Office, occasion: Occasion | None = None, site_id: SiteAsked = None
    ) -> dict[str, Any]:
        return await funnel(occasion, site_id)

    @router.get("/desks/{site_id}/messages/funnel")
    async def funnel_of_desk(
        site_id: SiteInPath, _: OfDesk, occasion: Occasion | None = None
    ) -> dict[str, Any]:
        return await funnel(occasion, site_id)

    @router.get("/office/messages/undelivered")
    async def undelivered_of_all(
        _: Office,
        occasion: Occasion | None = None,
        site_id: SiteAsked = None,
        after: UUID = _FIRST,
        limit: Limit = 200,
    ) -> dict[str, Any]:
        return await undelivered(occasion, site_id, after, limit)

    @router.get("/desks/{site_id}/messages/undelivered")
    async def undelivered_of_desk(
        site_id: SiteInPath,
        _: OfDesk,
        occasion: Occasion | None = None,
        after: UUID = _FIRST,
        limit: Limit = 200,
    ) -> dict[str, Any]:
        return await undelivered(occasion, site_id, after, limit)

    return router


def _shown(row: Row, vault: Vault) -> dict[str, Any]:
    """One message that told nobody; of the address only its ends."""
    channel = Carrier(row.channel)
    address = row.address and vault.decrypt_text(
        row.address, row=row_of(row.registration_id, COLUMN[channel])
    )
    return {
        "message_id": row.message_id,
        "registration_id": row.registration_id,
        "site_id": row.site_id,
        "tail": row.tail,
        "address": masked(address),
        "occasion": row.occasion,
        "channel": row.channel,
        "provider": row.provider,
        "state": row.state,
        "at": row.state_at,
        "reason_code": row.reason_code,
        "reason": reason_in_words(channel, row.reason_code),
        "tries": row.tries,
        "deadline_at": row.deadline_at,
        "told_otherwise": row.told,
        "on_call_list": row.on_call_list,
    }
