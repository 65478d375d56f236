"""Door 1, desks: the people whom a desk must call. The office sees all of them, and calls those of no desk."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query
from pydantic import BaseModel, ConfigDict

from services.chassis.db import Database
from services.chassis.http import allow
from services.chassis.idempotency import idempotent
from services.chassis.tokens import Actor
from services.chassis.vault import Vault
from services.notification.domain.calling import CallOutcome
from services.notification.handlers.calls import close_call, open_number, shown
from services.notification.repository import calls

_PLACE = re.compile(r"^(\d{1,9})\.([0-9a-f-]{36})$")
SiteInPath = Annotated[str, Path(pattern=r"^[a-z]+(-[a-z]+)*$", max_length=32)]
OfDesk = Annotated[Actor, allow("desk:{site_id}")]
Office = Annotated[Actor, allow("office")]
After = Annotated[str | None, Query(pattern=_PLACE.pattern)]
Limit = Annotated[int, Query(ge=1, le=1000)]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]


class CloseBody(BaseModel):
    """What came of a call."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    outcome: Literal[CallOutcome.REACHED, CallOutcome.NOT_REACHED, CallOutcome.WRONG_NUMBER]


def call_routes(database: Database, vault: Vault) -> APIRouter:
    """The routes of the public port about calls."""
    router = APIRouter()

    async def page(site_id: str | None, after: str | None, limit: int, *, is_open: bool) -> dict[str, Any]:
        found = _PLACE.match(after) if after else None
        place = (int(found[1]), UUID(found[2])) if found else (-1, UUID(int=0))
        async with database.reading() as uow:
            rows = await calls.page(uow, site_id, place, limit, is_open=is_open)
        more = len(rows) == limit
        return {
            "items": shown(rows, vault),
            "next": f"{rows[-1].attempts}.{rows[-1].call_id}" if more else None,
        }

    async def open_one(actor: Actor, call_id: UUID, site_id: str | None) -> dict[str, Any]:
        async with database.unit_of_work() as uow:
            return await open_number(uow, actor=actor, call_id=call_id, site_id=site_id, vault=vault)

    async def close_one(
        actor: Actor, call_id: UUID, site_id: str | None, body: CloseBody, key: str | None
    ) -> dict[str, Any]:
        async with database.unit_of_work() as uow:
            return await idempotent(
                uow,
                actor=actor,
                key=key,
                request=f"close-call {call_id} {body.outcome}".encode(),
                run=lambda: close_call(
                    uow, actor=actor, call_id=call_id, site_id=site_id, outcome=CallOutcome(body.outcome)
                ),
            )

    @router.get("/desks/{site_id}/calls")
    async def of_desk(
        site_id: SiteInPath, _: OfDesk, after: After = None, limit: Limit = 200, *, closed: bool = False
    ) -> dict[str, Any]:
        return await page(site_id, after, limit, is_open=not closed)

    @router.post("/desks/{site_id}/calls/{call_id}/open")
    async def open_at_desk(site_id: SiteInPath, call_id: UUID, actor: OfDesk) -> dict[str, Any]:
        return await open_one(actor, call_id, site_id)

    @router.post("/desks/{site_id}/calls/{call_id}/close")
    async def close_at_desk(
        site_id: SiteInPath, call_id: UUID, body: CloseBody, actor: OfDesk, key: IdempotencyKey = None
    ) -> dict[str, Any]:
        return await close_one(actor, call_id, site_id, body, key)

    @router.get("/office/messages/calls")
    async def of_all(
        _: Office,
        site_id: Annotated[str | None, Query(max_length=32)] = None,
        after: After = None,
        limit: Limit = 200,
        *,
        closed: bool = False,
    ) -> dict[str, Any]:
        counted = ("site_id", "reason_code", "outcome", "open", "calls", "dated", "first_by")
        async with database.reading() as uow:
            rows = await calls.counts(uow)
        counts = [{name: getattr(row, name) for name in counted} for row in rows]
        return {"counts": counts, **await page(site_id, after, limit, is_open=not closed)}

    @router.post("/office/messages/calls/{call_id}/open")
    async def open_at_office(call_id: UUID, actor: Office) -> dict[str, Any]:
        return await open_one(actor, call_id, None)

    @router.post("/office/messages/calls/{call_id}/close")
    async def close_at_office(
        call_id: UUID, body: CloseBody, actor: Office, key: IdempotencyKey = None
    ) -> dict[str, Any]:
        return await close_one(actor, call_id, None, body, key)

    return router
