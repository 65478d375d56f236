"""Door 1, gateways: their notices of payments, each answered as its protocol asks."""

from __future__ import annotations

import structlog
from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse, PlainTextResponse

from services.chassis import audit
from services.chassis.http import signed_by
from services.payment.handlers import receiving
from services.payment.handlers.metrics import CALLBACKS, CLOCK_SKEW
from services.payment.handlers.receiving import Mismatch
from services.payment.handlers.settling import Gateways
from services.payment.ports import Forged, NotificationRefused, PaymentChannel, Stale
from services.payment.settings import ALIPAY_NOTIFY_PATH, NOTIFY_PATH

log = structlog.get_logger(__name__)


def notice_routes(gateways: Gateways) -> APIRouter:
    """One for each channel that the office has."""
    router = APIRouter()
    till = receiving.open_till(gateways.database, gateways.cycle, gateways.vault)

    async def refusal_of(request: Request, channel: PaymentChannel) -> Response | None:
        """Nothing if the notice was taken in; otherwise why not."""
        raw = await request.body()
        try:
            taken = await receiving.take_notice(
                gateways.database,
                till,
                channel,
                dict(request.headers),
                raw,
                at=gateways.database.clock.now(),
                cycle=gateways.cycle,
                vault=gateways.vault,
                refund_soon=gateways.refund_soon,
            )
        except (NotificationRefused, Mismatch) as refusal:
            return _fail(channel.name, request.url.path, refusal)
        CALLBACKS.labels(channel.name, taken).inc()
        return None

    if wechat := gateways.channels.get("wechat"):

        @router.post(
            NOTIFY_PATH, dependencies=[signed_by("the gateway signs the raw bytes with its platform key")]
        )
        async def wechat_notice(request: Request) -> Response:
            return await refusal_of(request, wechat) or Response(status_code=204)

    if alipay := gateways.channels.get("alipay"):

        @router.post(
            ALIPAY_NOTIFY_PATH, dependencies=[signed_by("the gateway signs every field with its RSA2 key")]
        )
        async def alipay_notice(request: Request) -> Response:
            # This gateway reads words: anything but `success` is a no, and it comes again.
            no = await refusal_of(request, alipay)
            return PlainTextResponse("failure", no.status_code) if no else PlainTextResponse("success")

    return router


def _fail(channel: str, path: str, refusal: NotificationRefused | Mismatch) -> Response:
    """The protocol's no: nothing changed. The gateway comes again; the query tells the truth meanwhile."""
    CALLBACKS.labels(channel, refusal.reason).inc()
    audit.refused_access("POST", path, refusal.reason, f"gateway:{channel}")
    if isinstance(refusal, Stale):
        # A replay, or our own clock is wrong: then every true notice is refused, and somebody must know.
        CLOCK_SKEW.labels(channel).set(refusal.skew_seconds)
        log.error("notice-stale", channel=channel, skew_seconds=round(refusal.skew_seconds))
    status = 401 if isinstance(refusal, Forged | Stale) else 400
    return JSONResponse({"code": "FAIL", "message": refusal.reason}, status_code=status)
