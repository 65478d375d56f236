"""Door 1, people: what a candidate was sent, every message for the office, and in which language somebody is written to."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Query

from contracts.refusals import Code, Refused
from services.chassis.db import Database
from services.chassis.http import allow
from services.chassis.tokens import Actor
from services.notification.repository import recipients, reports

_FIRST = UUID(int=0)


def public_routes(database: Database) -> APIRouter:
    """The routes of the public port."""
    router = APIRouter()

    @router.get("/registrations/{registration_id}/messages")
    async def messages_of_one(
        registration_id: UUID, _: Annotated[Actor, allow("candidate:{registration_id}", "office")]
    ) -> dict[str, Any]:
        async with database.reading() as uow:
            rows = await reports.of_one(uow, registration_id)
        return {
            "registration_id": registration_id,
            "items": [
                {
                    "occasion": row.occasion,
                    "channel": row.channel,
                    "provider": row.provider,
                    "state": row.state,
                    "at": row.state_at,
                    "created_at": row.created_at,
                    "subject": row.subject or None,
                    "text": row.body,
                    "reason_code": row.reason_code,
                }
                for row in rows
            ],
        }

    @router.get("/office/messages")
    async def page(
        _: Annotated[Actor, allow("office")],
        after: UUID = _FIRST,
        limit: Annotated[int, Query(ge=1, le=5000)] = 500,
    ) -> dict[str, Any]:
        async with database.reading() as uow:
            rows = await reports.page(uow, after, limit)
        items = [
            {
                "registration_id": row.registration_id,
                "occasion": row.occasion,
                "channel": row.channel,
                "state": row.state,
                "at": row.state_at,
                "reason_code": row.reason_code,
                "tries": row.tries,
                "ambiguous": row.ambiguous,
                "parts": row.parts,
            }
            for row in rows
        ]
        return {"items": items, "next": rows[-1].message_id if len(rows) == limit else None}

    return router


def language_routes(database: Database, languages: Collection[str]) -> APIRouter:
    """In which language a candidate is written to."""
    router = APIRouter()

    @router.put("/registrations/{registration_id}/language")
    async def write_in(
        registration_id: UUID,
        language: Annotated[str, Body(embed=True)],
        _: Annotated[Actor, allow("candidate:{registration_id}")],
    ) -> dict[str, Any]:
        if language not in languages:
            raise Refused(Code.INVALID, f"没有这种语言的通知，可选：{'、'.join(sorted(languages))}。")
        async with database.unit_of_work() as uow:
            if not await recipients.set_language(uow, registration_id, language):
                raise Refused(Code.NOT_FOUND, "还没有这个报名的通知，请稍后再试。")
        return {"registration_id": registration_id, "language": language}

    return router
