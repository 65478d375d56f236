"""Door 1, people: orders, what the office looks at, and what two of it decide. Gateways: notices.py."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import structlog
from fastapi import APIRouter, Header, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from contracts.reasons import Channel, WindowReason
from contracts.refusals import Code, FieldError, Refused
from services.chassis import audit
from services.chassis.http import allow
from services.chassis.idempotency import idempotent
from services.chassis.tokens import Actor
from services.payment.domain.decision import Kind, OwnDecision, Word
from services.payment.domain.refusals import (
    AlreadyPaid,
    ChannelNotOffered,
    CodesLetGo,
    NotApproved,
    PaymentRuleBroken,
    TooLateToOrder,
    WindowClosed,
    WindowNotOpen,
)
from services.payment.handlers import checking, deciding, ordering, previewing, refusing, reporting
from services.payment.handlers.settling import Gateways

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
    (
        ordering.EarlierUndecided,
        Code.GATEWAY_REFUSED,
        "支付渠道还没有答复您此前的订单是否已经付款，暂不能重新下单。如果已经付款，款项不会丢失，请勿重复支付；请稍后再查。",
    ),
    (
        ordering.GatewaySilent,
        Code.GATEWAY_REFUSED,
        "支付渠道暂时没有答复，您没有被扣款。请几分钟后重新下单；渠道答复之前不能另下订单（改用其他支付方式也不能），以免重复扣款。",
    ),
    (
        ordering.GatewayRefused,
        Code.GATEWAY_REFUSED,
        "支付渠道暂时没有受理，您没有被扣款；请稍后重新下单，或改用其他支付方式。",
    ),
    (
        CodesLetGo,
        Code.NOT_ALLOWED,
        "您已有多个未使用的支付宝付款码仍在有效期内，请用其中之一支付，或改用微信支付，或稍后再试。",
    ),
    (PaymentRuleBroken, Code.NOT_ALLOWED, "当前状态不能下单，请刷新后查看缴费状态。"),
)


Site = Annotated[str, StringConstraints(pattern=r"^[a-z]+(-[a-z]+)*$", max_length=32)]
# A reason of blanks is none.
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class OrderBody(BaseModel):
    """How somebody wants to pay."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channel: Channel


class ExtendBody(BaseModel):
    """Another close of the payment window: of one desk, or of all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal[Kind.EXTEND_PAYMENT]
    closes_at: AwareDatetime
    site: Site | None = None
    reason: Reason
    reason_code: WindowReason | None = None

    def wanted(self) -> deciding.Wanted:
        code = self.reason_code
        if code is None and self.reason in set(WindowReason):
            code = WindowReason(self.reason)
        return deciding.Wanted(self.kind, self.reason, code, self.closes_at, site_id=self.site)


class ReviveBody(BaseModel):
    """One forfeiture to be lifted. Without a close: to the end of the third day after."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal[Kind.REVIVE]
    registration_id: UUID
    closes_at: AwareDatetime | None = None
    reason: Reason

    def wanted(self) -> deciding.Wanted:
        return deciding.Wanted(
            self.kind, self.reason, None, self.closes_at, registration_id=self.registration_id
        )


class VerdictBody(BaseModel):
    """What the second person has to say about it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    note: Annotated[str, Field(min_length=1, max_length=200)] | None = None


_NOTHING_TO_SAY: Final = VerdictBody()
AskBody = Annotated[ExtendBody | ReviveBody, Field(discriminator="kind")]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]
Language = Annotated[str | None, Header(alias="Accept-Language")]


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
        except ChannelNotOffered as error:
            field = FieldError("channel", "本次考试没有开通这种支付方式，请改用其他支付方式")
            raise Refused(Code.INVALID, "支付方式有误，请更正后再提交。", (field,)) from error
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
        site: Site | None = None,
        after: UUID | None = None,
        limit: Annotated[int, Query(ge=1, le=5000)] = 500,
    ) -> dict[str, Any]:
        if site is not None and site not in {one.id for one in cycle.sites}:
            wrong = FieldError("site", "没有这个报名点，请更正后再查")
            raise Refused(Code.INVALID, "报名点有误，请更正后再查。", (wrong,))
        return await previewing.preview_close(
            database, cycle, actor, closes_at=closes_at, site_id=site, after=after, limit=limit
        )

    @router.get("/desks/{site_id}/close/preview")
    async def close_preview_of_desk(
        site_id: Site,
        actor: Annotated[Actor, allow("desk:{site_id}")],
        after: UUID | None = None,
        limit: Annotated[int, Query(ge=1, le=5000)] = 500,
    ) -> dict[str, Any]:
        return await previewing.preview_close(
            database, cycle, actor, closes_at=None, site_id=site_id, after=after, limit=limit
        )

    @router.get("/office/close")
    async def close(_: Annotated[Actor, allow("office", "ops")]) -> dict[str, Any]:
        return await reporting.close_report(database, cycle)

    return router


def decision_routes(gateways: Gateways, *, decided: Callable[[], None]) -> APIRouter:
    """What two people of the office decide. `decided` is called after the commit of the second one's word."""
    router = APIRouter()
    database, cycle, vault = gateways.database, gateways.cycle, gateways.vault

    @router.post("/office/decisions", status_code=201)
    async def ask(
        body: AskBody,
        actor: Annotated[Actor, allow("office")],
        key: IdempotencyKey = None,
        language: Language = None,
    ) -> dict[str, Any]:
        try:
            async with database.unit_of_work() as uow:
                return await idempotent(
                    uow,
                    actor=actor,
                    key=key,
                    request=body,
                    run=lambda: deciding.ask(
                        uow, actor=actor, wanted=body.wanted(), cycle=cycle, vault=vault
                    ),
                )
        except refusing.RULES as error:
            raise refusing.refused(error, language) from error

    async def decide(
        decision_id: UUID, word: Word, body: VerdictBody, actor: Actor, key: str | None, language: str | None
    ) -> dict[str, Any]:
        try:
            async with database.unit_of_work() as uow:
                return await idempotent(
                    uow,
                    actor=actor,
                    key=key,
                    request=f"{word} {decision_id} {body.model_dump_json()}".encode(),
                    run=lambda: deciding.decide(
                        uow,
                        actor=actor,
                        decision_id=decision_id,
                        word=word,
                        note=body.note,
                        cycle=cycle,
                        vault=vault,
                        decided=decided,
                    ),
                )
        except refusing.RULES as error:
            if isinstance(error, OwnDecision):
                audit.refused_access(
                    "POST", "/office/decisions/{decision_id}", "own-decision", actor.kind, actor.subject
                )
            raise refusing.refused(error, language) from error

    @router.post("/office/decisions/{decision_id}/approve")
    async def approve(
        decision_id: UUID,
        actor: Annotated[Actor, allow("office")],
        body: VerdictBody = _NOTHING_TO_SAY,
        key: IdempotencyKey = None,
        language: Language = None,
    ) -> dict[str, Any]:
        return await decide(decision_id, Word.APPROVED, body, actor, key, language)

    @router.post("/office/decisions/{decision_id}/reject")
    async def reject(
        decision_id: UUID,
        actor: Annotated[Actor, allow("office")],
        body: VerdictBody = _NOTHING_TO_SAY,
        key: IdempotencyKey = None,
        language: Language = None,
    ) -> dict[str, Any]:
        return await decide(decision_id, Word.REJECTED, body, actor, key, language)

    @router.get("/office/decisions")
    async def decisions(_: Annotated[Actor, allow("office")]) -> dict[str, Any]:
        async with database.reading() as uow:
            return await deciding.listed(uow)

    @router.get("/office/decisions/{decision_id}")
    async def decision(
        decision_id: UUID, _: Annotated[Actor, allow("office")], language: Language = None
    ) -> dict[str, Any]:
        try:
            async with database.reading() as uow:
                return await deciding.read(uow, decision_id=decision_id, vault=vault)
        except refusing.RULES as error:
            raise refusing.refused(error, language) from error

    return router
