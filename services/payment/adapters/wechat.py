"""WeChat Pay v3 as a PaymentChannel: native orders, query, close, notifications.

Every call ends within `PATIENCE`. Every answer that is used as a fact carries the platform's seal, refusals too:
an unsealed "order unknown" must never cost somebody an exam.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Protocol, TypeGuard
from urllib.parse import quote

from services.chassis import wire
from services.chassis.clock import Clock
from services.payment.adapters.wechat_signatures import (
    Seal,
    WeChatAccount,
    authorization,
    open_resource,
    verify,
)
from services.payment.ports import (
    AlreadyPaid,
    Answer,
    Capability,
    ChannelRefused,
    ChannelUnavailable,
    Closed,
    Forged,
    Malformed,
    Notification,
    NotificationRefused,
    NumberInUse,
    OrderState,
    PlacedOrder,
)

PATIENCE = 5.0  # real seconds for one call, connecting included
BODY_LIMIT = 64 * 1024  # the gateway's own bodies are below 4 KiB
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # the seal is over the bytes as they travel
    "Content-Type": "application/json",
    "User-Agent": "kaowu",
}
_BEIJING = timezone(timedelta(hours=8))
_ORDER_NO = re.compile(r"[0-9A-Za-z_\-|*]{6,32}", re.ASCII)
_STATES = {
    "SUCCESS": OrderState.PAID,
    "REFUND": OrderState.REFUNDED,
    "NOTPAY": OrderState.UNPAID,
    "PAYERROR": OrderState.UNPAID,  # one attempt failed; the order can still be paid
    "CLOSED": OrderState.CLOSED,
    "REVOKED": OrderState.CLOSED,
    "USERPAYING": OrderState.PAYING,
}
# Older documents spell some codes without underscores.
_UNKNOWN_ORDER = frozenset({"ORDER_NOT_EXIST", "ORDERNOTEXIST"})
_PAID = frozenset({"ORDERPAID", "ORDER_PAID"})
_CLOSED = frozenset({"ORDER_CLOSED", "ORDERCLOSED"})
_IN_USE = frozenset({"OUT_TRADE_NO_USED", *_PAID, *_CLOSED})


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    raw: bytes
    seal: Seal
    content: Mapping[str, Any]

    @property
    def code(self) -> str:
        return str(self.content.get("code", ""))[:64]


class Asking(Protocol):
    """What carries a request to the gateway. Raises wire.NoAnswer."""

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes = b""
    ) -> wire.Answer: ...

    async def aclose(self) -> None: ...


class WeChatPay:
    """A few kept connections for the life of the process; close them with `aclose`."""

    def __init__(
        self,
        account: WeChatAccount,
        *,
        notify_url: str,
        clock: Clock,
        connections: int = 32,
        asking: Asking | None = None,
    ) -> None:
        self._account = account
        self._notify_url = notify_url
        self._clock = clock
        self._wire: Asking = asking or wire.Wire(
            account.gateway_url, connections=connections, patience=PATIENCE, limit=BODY_LIMIT
        )

    @property
    def name(self) -> str:
        return "wechat"

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.CLOSABLE, Capability.EXPIRES})

    async def aclose(self) -> None:
        await self._wire.aclose()

    async def place_order(
        self, order_no: str, amount_fen: int, description: str, expires_at: datetime
    ) -> PlacedOrder:
        if amount_fen < 1 or not 1 <= len(description) <= 127:
            raise ValueError("an order has an amount and a description of at most 127 characters")
        if expires_at.tzinfo is None:
            raise ValueError("expires_at needs an offset")
        reply = await self._call(
            "POST",
            "/v3/pay/transactions/native",
            {
                "appid": self._account.app_id,
                "mchid": self._account.merchant_id,
                "description": description,
                "out_trade_no": _checked(order_no),
                # Whole seconds, cut down: never past the moment asked for.
                "time_expire": expires_at.astimezone(_BEIJING).replace(microsecond=0).isoformat(),
                "notify_url": self._notify_url,
                "amount": {"total": amount_fen, "currency": "CNY"},
            },
        )
        code_url = reply.content.get("code_url")
        if reply.code in _IN_USE:
            raise NumberInUse(reply.code, reply.status)
        if reply.status != 200:
            raise ChannelRefused(reply.code, reply.status)
        if not isinstance(code_url, str) or not code_url:
            raise ChannelUnavailable("answer without a code")
        return PlacedOrder(order_no, code_url)

    async def query(self, order_no: str) -> Answer:
        path = f"/v3/pay/transactions/out-trade-no/{quote(_checked(order_no), safe='')}"
        reply = await self._call("GET", f"{path}?mchid={quote(self._account.merchant_id, safe='')}", None)
        if reply.status != 200:
            if reply.status == 404 and reply.code in _UNKNOWN_ORDER:
                return self._answer(order_no, OrderState.UNKNOWN_ORDER, reply)
            raise ChannelRefused(reply.code, reply.status)
        content = reply.content
        ours = (self._account.app_id, self._account.merchant_id, order_no)
        if (content.get("appid"), content.get("mchid"), content.get("out_trade_no")) != ours:
            # Truly signed, but about something else: an answer taken from another call.
            raise ChannelUnavailable("answer about another order")
        state = _STATES.get(str(content.get("trade_state")))
        if state is None:
            raise ChannelUnavailable("unknown trade state")
        return self._answer(order_no, state, reply)

    async def close(self, order_no: str) -> Closed | AlreadyPaid:
        path = f"/v3/pay/transactions/out-trade-no/{quote(_checked(order_no), safe='')}/close"
        reply = await self._call("POST", path, {"mchid": self._account.merchant_id})
        if reply.status == 204 or reply.code in _CLOSED:
            return Closed(order_no)
        if reply.code in _PAID:
            return AlreadyPaid(order_no)
        if reply.code in _UNKNOWN_ORDER:
            return Closed(order_no, known=False)
        raise ChannelRefused(reply.code, reply.status)

    def parse_notification(self, headers: Mapping[str, str], raw_body: bytes, at: datetime) -> Notification:
        if len(raw_body) > BODY_LIMIT:
            raise Malformed("too-large")
        verify(self._account, headers, raw_body, at, at)
        content = _object(raw_body)
        resource = content.get("resource")
        if content.get("resource_type") != "encrypt-resource" or not isinstance(resource, dict):
            raise Malformed("form")
        if resource.get("original_type") != "transaction":
            raise Malformed("kind")
        notification = _notification(
            str(content.get("id", "")), _object(open_resource(self._account, resource))
        )
        ours = (self._account.app_id, self._account.merchant_id)
        if (notification.app_id, notification.merchant_id) != ours:
            raise Forged("foreign")
        return notification

    def _answer(self, order_no: str, state: OrderState, reply: _Reply) -> Answer:
        amount = reply.content.get("amount")
        amount = amount if isinstance(amount, dict) else {}
        paid_at, fen = _moment(reply.content.get("success_time")), amount.get("total")
        paid = state in {OrderState.PAID, OrderState.REFUNDED}
        if state is OrderState.PAID and (paid_at is None or not _is_fen(fen)):
            raise ChannelUnavailable("a payment without moment or amount")
        transaction_id = reply.content.get("transaction_id")
        return Answer(
            order_no=order_no,
            state=state,
            paid_at=paid_at if paid else None,
            amount_fen=fen if _is_fen(fen) else None,
            currency=str(amount["currency"]) if "currency" in amount else None,
            transaction_id=str(transaction_id) if transaction_id else None,
            status=reply.status,
            raw=reply.raw,
            signature=reply.seal.facts(),
        )

    async def _call(self, method: str, target: str, body: Mapping[str, Any] | None) -> _Reply:
        content = (
            b"" if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        )
        asked_at = self._clock.now()
        headers = {
            **_HEADERS,
            "Authorization": authorization(self._account, method, target, content, asked_at),
        }
        try:
            status, fields, raw = await self._wire.request(method, target, headers, content)
        except wire.NoAnswer as error:
            raise ChannelUnavailable(str(error)) from None
        if status >= 500 or status == 429:
            raise ChannelUnavailable(f"status {status}")
        try:
            seal = verify(self._account, fields, raw, asked_at, self._clock.now())
            if status == 204 and not raw:
                return _Reply(204, raw, seal, {})
            return _Reply(status, raw, seal, _object(raw))
        except NotificationRefused as refused:
            if status == 401:
                # The gateway does not know us, so it does not sign: our keys are wrong, and nothing was done.
                raise ChannelRefused("SIGN_ERROR", 401) from None
            raise ChannelUnavailable(f"unverified answer: {refused.reason}") from None


def _object(raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        raise Malformed("json") from None
    if not isinstance(content, dict):
        raise Malformed("json")
    return content


def _notification(notification_id: str, content: Mapping[str, Any]) -> Notification:
    state = _STATES.get(str(content.get("trade_state")))
    amount, paid_at = content.get("amount"), _moment(content.get("success_time"))
    texts = [content.get(name) for name in ("out_trade_no", "transaction_id", "appid", "mchid")]
    if state is None or not isinstance(amount, dict) or not all(isinstance(t, str) and t for t in texts):
        raise Malformed("transaction")
    fen, currency = amount.get("total"), amount.get("currency")
    if not _is_fen(fen) or not isinstance(currency, str):
        raise Malformed("transaction")
    if state is OrderState.PAID and paid_at is None:
        raise Malformed("transaction")
    order_no, transaction_id, app_id, merchant_id = map(str, texts)
    return Notification(
        notification_id, order_no, state, transaction_id, paid_at, fen, currency, app_id, merchant_id
    )


def _is_fen(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _moment(text: object) -> datetime | None:
    """A moment with an offset, in UTC; anything else is none."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else None


def _checked(order_no: str) -> str:
    if not _ORDER_NO.fullmatch(order_no):
        raise ValueError("an order number has 6 to 32 of 0-9 A-Z a-z _ - | *")
    return order_no
