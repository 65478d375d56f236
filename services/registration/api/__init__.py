"""Door 1, people: candidates, desks and the office; and the internal route for the service that writes to them."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request

from contracts.cycle import Cycle
from services.chassis.db import Database
from services.chassis.http import allow
from services.chassis.idempotency import idempotent
from services.chassis.tokens import Actor
from services.chassis.vault import Vault
from services.registration import handlers
from services.registration.api import answers, bodies

IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]
_FIRST = UUID(int=0)


def public_routes(database: Database, cycle: Cycle, vault: Vault) -> APIRouter:
    """The routes of the public port."""
    router = APIRouter()

    @router.post("/registrations", status_code=201)
    async def pre_register(
        request: Request, actor: Annotated[Actor, allow("candidate")], key: IdempotencyKey = None
    ) -> dict[str, Any]:
        body = await request.body()
        typed, _, unreadable = bodies.read_form(body)
        async with database.unit_of_work() as uow:

            async def run() -> dict[str, Any]:
                return answers.saved(
                    await handlers.pre_register(uow, typed, unreadable, actor=actor, cycle=cycle, vault=vault)
                )

            return await idempotent(uow, actor=actor, key=key, request=b"POST " + body, run=run)

    @router.patch("/registrations/{registration_id}")
    async def amend(
        registration_id: UUID,
        request: Request,
        actor: Annotated[Actor, allow("candidate:{registration_id}")],
        key: IdempotencyKey = None,
    ) -> dict[str, Any]:
        body = await request.body()
        typed, given, unreadable = bodies.read_form(body)
        async with database.unit_of_work() as uow:

            async def run() -> dict[str, Any]:
                saved, changes = await handlers.amend(
                    uow, registration_id, typed, given, unreadable, actor=actor, cycle=cycle, vault=vault
                )
                return answers.saved(saved) | {"changed": list(changes.fields)}

            request_of = f"PATCH {registration_id} ".encode() + body
            return await idempotent(uow, actor=actor, key=key, request=request_of, run=run)

    @router.post("/registrations/{registration_id}/withdraw")
    async def withdraw(
        registration_id: UUID,
        request: Request,
        actor: Annotated[Actor, allow("candidate:{registration_id}")],
        key: IdempotencyKey = None,
    ) -> dict[str, Any]:
        body = await request.body()
        reason = bodies.read_withdrawal(body)
        async with database.unit_of_work() as uow:

            async def run() -> dict[str, Any]:
                return answers.standing(
                    await handlers.withdraw(uow, registration_id, reason, actor=actor, cycle=cycle)
                )

            request_of = f"WITHDRAW {registration_id} ".encode() + body
            return await idempotent(uow, actor=actor, key=key, request=request_of, run=run)

    @router.get("/registrations/{registration_id}")
    async def show(
        registration_id: UUID, actor: Annotated[Actor, allow("candidate:{registration_id}", "office")]
    ) -> dict[str, Any]:
        async with database.unit_of_work() as uow:
            view, desks = await handlers.show(uow, registration_id, actor=actor, cycle=cycle, vault=vault)
        return answers.full(view, desks, cycle)

    @router.get("/office/registrations")
    async def list_page(
        actor: Annotated[Actor, allow("office")],
        after: UUID = _FIRST,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> dict[str, Any]:
        async with database.unit_of_work() as uow:
            views = await handlers.list_page(uow, after, limit, actor=actor, cycle=cycle, vault=vault)
        items = [answers.line(view) for view in views]
        return {"items": items, "next": items[-1]["registration_id"] if len(items) == limit else None}

    @router.post("/office/registrations/{registration_id}/erase")
    async def erase(
        registration_id: UUID, actor: Annotated[Actor, allow("office")], key: IdempotencyKey = None
    ) -> dict[str, Any]:
        async with database.unit_of_work() as uow:

            async def run() -> dict[str, Any]:
                return answers.standing(
                    await handlers.erase(uow, registration_id, actor=actor, cycle=cycle)
                ) | {"erased": True}

            request_of = f"ERASE {registration_id}".encode()
            return await idempotent(uow, actor=actor, key=key, request=request_of, run=run)

    @router.get("/desks/{site_id}/contacts-to-fix")
    async def contacts_to_fix(
        site_id: str, actor: Annotated[Actor, allow("desk:{site_id}")]
    ) -> dict[str, Any]:
        async with database.unit_of_work() as uow:
            return answers.contacts_to_fix(
                await handlers.list_contacts_to_fix(uow, site_id, actor=actor, cycle=cycle)
            )

    return router


def internal_routes(database: Database, vault: Vault) -> APIRouter:
    """The routes of the internal port."""
    router = APIRouter()

    @router.post("/internal/contacts")
    async def contacts(
        body: bodies.ContactsBody, actor: Annotated[Actor, allow("service")]
    ) -> dict[str, Any]:
        async with database.unit_of_work() as uow:
            return answers.contacts(
                await handlers.give_contacts(uow, body.registration_ids, actor=actor, vault=vault)
            )

    return router
