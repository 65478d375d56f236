"""Door 1, people and gateways: orders, notices of payments, and what the office looks at."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import structlog
from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict
from starlette.responses import JSONResponse

from contracts.refusals import Code, Refused
from services.chassis import audit
from services.chassis.http import allow, signed_by
from services.chassis.tokens import Actor
from services.payment.domain.refusals import (
    AlreadyPaid,
    NotApproved,
    PaymentRuleBroken,
    TooLateToOrder,
    WindowClosed,
    WindowNotOpen,
)
from services.payment.handlers import checking, ordering, previewing, receiving, reporting
from services.payment.handlers.metrics import CALLBACKS, CLOCK_SKEW
from services.payment.handlers.receiving import Mismatch
from services.payment.handlers.settling import Gateways
from services.payment.ports import Forged, NotificationRefused, Stale

log = structlog.get_logger(__name__)

_REFUSALS: Final[tuple[tuple[type[Exception], Code, str], ...]] = (
    (WindowNotOpen, Code.WINDOW_NOT_OPEN, "网上缴费尚未开始，请在缴费时间内办理。"),
    (WindowClosed, Code.WINDOW_CLOSED, "网上缴费已经截止，不受理现场缴费；如有疑问请联系考点。"),
    (
        TooLateToOrder,
        Code.TOO_LATE_TO_ORDER,
        "离缴费截止不足两分钟，已不能新建订单；已打开的订单仍可在截止前支付。",
    ),
    (NotApproved, Code.NOT_APPROVED, "资格审核尚未全部通过，暂不能缴费；请先查看审核结果。"),
    (AlreadyPaid, Code.ALREADY_PAID, "您已缴费成功，请勿重复支付。"),
    (ordering.GatewayRefused, Code.GATEWAY_REFUSED, "支付渠道暂时没有受理，您没有被扣款；请稍后重新下单。"),
    (PaymentRuleBroken, Code.NOT_ALLOWED, "当前状态不能下单，请刷新后查看缴费状态。"),
)


class OrderBody(BaseModel):
    """How somebody wants to pay."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channel: Literal["wechat"]


def _refused(error: Exception) -> Refused:
    for kind, code, sentence in _REFUSALS:
        if isinstance(error, kind):
            return Refused(code, sentence)
    raise error


def public_routes(
    gateways: Gateways, *, ask_at: Callable[[datetime], None], close_again: Callable[[], None] = lambda: None
) -> APIRouter:
    """The routes of the public port. `ask_at` is told when an order will have to be asked about."""
    router = APIRouter()
    database, cycle = gateways.database, gateways.cycle

    @router.post("/registrations/{registration_id}/orders", status_code=201)
    async def order(
        registration_id: UUID, body: OrderBody, _: Annotated[Actor, allow("candidate:{registration_id}")]
    ) -> dict[str, Any]:
        structlog.contextvars.bind_contextvars(registration_id=str(registration_id))
        try:
            placed = await ordering.place_order(gateways, registration_id, body.channel, ask_at=ask_at)
        except (PaymentRuleBroken, ordering.GatewayRefused) as error:
            raise _refused(error) from error
        return {
            "registration_id": registration_id,
            "order_no": placed.order_no,
            "code_url": placed.code_url,
            "amount_fen": placed.amount_fen,
            "expires_at": placed.expires_at,
        }

    @router.get("/registrations/{registration_id}/payment")
    async def payment(
        registration_id: UUID, _: Annotated[Actor, allow("candidate:{registration_id}", "office")]
    ) -> dict[str, Any]:
        return await reporting.payment_of(database, registration_id)

    @router.post("/registrations/{registration_id}/payment/check")
    async def check(
        registration_id: UUID, actor: Annotated[Actor, allow("candidate:{registration_id}")]
    ) -> dict[str, Any]:
        structlog.contextvars.bind_contextvars(registration_id=str(registration_id))
        return await checking.check_now(gateways, registration_id, actor, decided=close_again)

    @router.post(
        "/gateway/wechat/notify",
        dependencies=[signed_by("the gateway signs the raw bytes with its platform key")],
    )
    async def notify(request: Request) -> Response:
        raw = await request.body()
        channel = gateways.channels["wechat"]
        at = database.clock.now()
        try:
            taken = await receiving.take_notice(
                database,
                channel,
                dict(request.headers),
                raw,
                at=at,
                cycle=cycle,
                vault=gateways.vault,
                refund_soon=gateways.refund_soon,
            )
        except (NotificationRefused, Mismatch) as refusal:
            return _fail(channel.name, refusal)
        CALLBACKS.labels(channel.name, taken).inc()
        return Response(status_code=204)

    @router.get("/office/payments")
    async def payments(
        _: Annotated[Actor, allow("office")],
        after: UUID | None = None,
        limit: Annotated[int, Query(ge=1, le=5000)] = 500,
    ) -> dict[str, Any]:
        return await reporting.payments(database, after, limit)

    @router.get("/office/money")
    async def money(_: Annotated[Actor, allow("office")]) -> dict[str, Any]:
        return await reporting.money(database)

    @router.get("/office/close/preview")
    async def close_preview(
        actor: Annotated[Actor, allow("office")],
        closes_at: AwareDatetime | None = None,
        after: UUID | None = None,
        limit: Annotated[int, Query(ge=1, le=5000)] = 500,
    ) -> dict[str, Any]:
        return await previewing.preview_close(
            database, cycle, actor, closes_at=closes_at, after=after, limit=limit
        )

    @router.get("/office/close")
    async def close(_: Annotated[Actor, allow("office", "ops")]) -> dict[str, Any]:
        return await reporting.close_report(database, cycle)

    return router


def _fail(channel: str, refusal: NotificationRefused | Mismatch) -> Response:
    """The protocol's no: nothing changed. The gateway comes again; the query tells the truth meanwhile."""
    CALLBACKS.labels(channel, refusal.reason).inc()
    audit.refused_access("POST", "/gateway/wechat/notify", refusal.reason, f"gateway:{channel}")
    if isinstance(refusal, Stale):
        # A replay, or our own clock is wrong: then every true notice is refused, and somebody must know.
        CLOCK_SKEW.labels(channel).set(refusal.skew_seconds)
        log.error("notice-stale", channel=channel, skew_seconds=round(refusal.skew_seconds))
    status = 401 if isinstance(refusal, Forged | Stale) else 400
    return JSONResponse({"code": "FAIL", "message": refusal.reason}, status_code=status)
