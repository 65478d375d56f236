"""Door 1, the office: what comparing the gateways' bills came to, and the breaks that a person closes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, ConfigDict, StringConstraints

from contracts.reasons import BreakClosing, Channel
from contracts.refusals import Code, Refused
from services.chassis.http import allow
from services.chassis.idempotency import idempotent
from services.chassis.tokens import Actor
from services.payment.handlers import balancing
from services.payment.handlers.reconciling import Bills


class CloseBreakBody(BaseModel):
    """Why it is no break any more, for whoever audits it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason_code: BreakClosing = BreakClosing.OTHER
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]


def bill_routes(bills: Bills, *, fetch: Callable[[], None]) -> APIRouter:
    """`fetch` is called after somebody wanted a bill fetched again."""
    router = APIRouter()
    database, cycle, vault = bills.gateways.database, bills.gateways.cycle, bills.gateways.vault
    channels = frozenset(bills.channels)

    @router.get("/office/reconciliation")
    async def reconciliation(
        _: Annotated[Actor, allow("office")],
        after: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=5000)] = 200,
        closed: bool = False,
    ) -> dict[str, Any]:
        return await balancing.report(database, cycle, channels, after=after, limit=limit, closed=closed)

    @router.post("/office/breaks/{break_id}/close")
    async def close_break(
        break_id: UUID,
        body: CloseBreakBody,
        actor: Annotated[Actor, allow("office")],
        key: IdempotencyKey = None,
    ) -> dict[str, Any]:
        try:
            async with database.unit_of_work() as uow:
                return await idempotent(
                    uow,
                    actor=actor,
                    key=key,
                    request=f"{break_id} {body.model_dump_json()}".encode(),
                    run=lambda: balancing.close_break(
                        uow,
                        actor=actor,
                        break_id=break_id,
                        reason_code=body.reason_code,
                        reason=body.reason,
                        cycle=cycle,
                        vault=vault,
                    ),
                )
        except balancing.NoSuchBreak as error:
            raise Refused(Code.NOT_FOUND, "没有这项差错。") from error
        except balancing.ClosedAlready as error:
            raise Refused(Code.NOT_ALLOWED, "这项差错已经有人处理完毕，请刷新后查看。") from error

    @router.post("/office/reconciliation/{channel}/{day}/again", status_code=202)
    async def again(channel: Channel, day: date, actor: Annotated[Actor, allow("office")]) -> dict[str, Any]:
        try:
            async with database.unit_of_work() as uow:
                found = await balancing.fetch_again(
                    uow, actor=actor, cycle=cycle, channels=channels, channel=channel, day=day
                )
                uow.after_commit(fetch)
                return found
        except balancing.NoSuchDay as error:
            raise Refused(
                Code.NOT_ALLOWED, "该渠道这一天没有可下载的账单：当天未结束，或不在本次考试的缴费期内。"
            ) from error

    return router
