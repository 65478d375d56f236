"""The gateway's own book: orders, what became of them, and the fen received. Plain rules, no wire form.

Invariants are checked against this book, so it must never learn anything from ours.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

from deploy.simulators.journal import Journal

BEIJING = timezone(timedelta(hours=8))
_SHORTEST = timedelta(minutes=1)
_LONGEST = timedelta(days=90)
_USUAL = timedelta(days=7)


class TradeState(StrEnum):
    NOTPAY = "NOTPAY"
    SUCCESS = "SUCCESS"
    CLOSED = "CLOSED"


class Refusal(Exception):
    """In the gateway's words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message


@dataclass(slots=True)
class Order:
    out_trade_no: str
    description: str
    amount_fen: int
    currency: str
    notify_url: str
    attach: str
    time_expire: str
    placed_at: datetime
    expires_at: datetime
    state: TradeState = TradeState.NOTPAY
    paid_at: datetime | None = None
    closed_at: datetime | None = None
    opened_at: datetime | None = None
    """When somebody first looked at it: before that some gateways deny that it exists."""
    transaction_id: str = ""
    openid: str = ""
    codes_given: int = 0
    callbacks: list[datetime] = field(default_factory=list)
    notified: int = 0
    acknowledged: int = 0

    @property
    def asked_for(self) -> tuple[str, ...]:
        """What must be the same when the same order is placed again."""
        return (
            self.description,
            str(self.amount_fen),
            self.currency,
            self.notify_url,
            self.attach,
            self.time_expire,
        )


class OrderBook:
    def __init__(self, journal: Journal, transactions: str = "4200{date}{number:016d}") -> None:
        """`transactions`: how the gateway numbers payments; `date` is Beijing's, `number` counts them."""
        self._journal = journal
        self._transactions = transactions
        self._orders: dict[str, Order] = {}
        self._by_transaction: dict[str, Order] = {}
        for entry in journal.entries():
            self._apply(entry)

    def find(self, out_trade_no: str) -> Order | None:
        return self._orders.get(out_trade_no)

    def find_transaction(self, transaction_id: str) -> Order | None:
        return self._by_transaction.get(transaction_id)

    def orders(self, after: int = 0, limit: int | None = None) -> list[Order]:
        """In the order they were placed, from position `after`."""
        placed = list(self._orders.values())
        return placed[after:] if limit is None else placed[after : after + limit]

    def place(self, order: Order) -> Order:
        known = self._orders.get(order.out_trade_no)
        if known is None:
            self._write({"did": "place", **_placed_entry(order)})
            known = self._orders[order.out_trade_no]
        elif known.state is TradeState.SUCCESS:
            raise Refusal(400, "ORDERPAID", "该订单已支付")
        elif known.state is TradeState.CLOSED:
            raise Refusal(400, "ORDER_CLOSED", "订单已关闭")
        elif known.asked_for != order.asked_for:
            raise Refusal(403, "OUT_TRADE_NO_USED", "商户订单号重复")
        known.codes_given += 1
        return known

    def open(self, out_trade_no: str, at: datetime) -> Order:
        """Somebody looks at it and does not pay yet."""
        order = self._orders.get(out_trade_no)
        if order is None:
            raise Refusal(404, "ORDER_NOT_EXIST", "订单不存在")
        if order.opened_at is None:
            self._write({"did": "open", "out_trade_no": out_trade_no, "at": at.isoformat()})
        return order

    def pay(
        self, out_trade_no: str, at: datetime, callbacks: list[datetime], amount_fen: int | None = None
    ) -> Order:
        """A person pays. The gateway knows seconds only: what it calls paid-at is cut down to the second.

        `amount_fen`: not what the order was for; from then on the gateway says that it was for so much.
        """
        order = self._orders.get(out_trade_no)
        if order is None:
            raise Refusal(404, "ORDER_NOT_EXIST", "订单不存在")
        if order.state is TradeState.SUCCESS:
            raise Refusal(409, "ORDERPAID", "该订单已支付")
        if order.state is TradeState.CLOSED:
            raise Refusal(409, "ORDER_CLOSED", "订单已关闭")
        if order.expires_at <= at:
            raise Refusal(409, "ORDER_EXPIRED", "订单已过支付截止时间")
        number = len(self._by_transaction) + 1
        self._write(
            {
                "did": "pay",
                "out_trade_no": out_trade_no,
                "at": at.replace(microsecond=0).isoformat(),
                "transaction_id": self._transactions.format(
                    date=f"{at.astimezone(BEIJING):%Y%m%d}", number=number
                ),
                "callbacks": [moment.isoformat() for moment in callbacks],
                "amount_fen": amount_fen or order.amount_fen,
            }
        )
        return order

    def close(self, out_trade_no: str, at: datetime) -> None:
        order = self._orders.get(out_trade_no)
        if order is None:
            raise Refusal(404, "ORDER_NOT_EXIST", "订单不存在")
        if order.state is TradeState.SUCCESS:
            raise Refusal(400, "ORDERPAID", "该订单已支付")
        if order.state is TradeState.NOTPAY:
            self._write({"did": "close", "out_trade_no": out_trade_no, "at": at.isoformat()})

    def note_notified(self, order: Order, *, acknowledged: bool) -> None:
        self._write({"did": "notify", "out_trade_no": order.out_trade_no, "ok": acknowledged})

    def totals(self) -> dict[str, int]:
        paid = [order for order in self._orders.values() if order.state is TradeState.SUCCESS]
        return {
            "orders": len(self._orders),
            "paid": len(paid),
            "paid_fen": sum(order.amount_fen for order in paid),
            "closed": sum(1 for order in self._orders.values() if order.state is TradeState.CLOSED),
            "notified": sum(order.notified for order in self._orders.values()),
            "acknowledged": sum(order.acknowledged for order in self._orders.values()),
        }

    def _write(self, entry: dict[str, Any]) -> None:
        self._journal.append(entry)
        self._apply(entry)

    def _apply(self, entry: dict[str, Any]) -> None:
        number = entry["out_trade_no"]
        match entry["did"]:
            case "place":
                self._orders[number] = Order(
                    number,
                    entry["description"],
                    entry["amount_fen"],
                    entry["currency"],
                    entry["notify_url"],
                    entry["attach"],
                    entry["time_expire"],
                    datetime.fromisoformat(entry["placed_at"]),
                    datetime.fromisoformat(entry["expires_at"]),
                )
            case "open":
                self._orders[number].opened_at = datetime.fromisoformat(entry["at"])
            case "pay":
                order = self._orders[number]
                order.opened_at = order.opened_at or datetime.fromisoformat(entry["at"])
                order.state = TradeState.SUCCESS
                order.paid_at = datetime.fromisoformat(entry["at"])
                order.transaction_id = entry["transaction_id"]
                order.amount_fen = entry.get("amount_fen", order.amount_fen)
                order.openid = "o" + hashlib.sha256(number.encode()).hexdigest()[:27]
                order.callbacks = [datetime.fromisoformat(moment) for moment in entry["callbacks"]]
                self._by_transaction[order.transaction_id] = order
            case "close":
                order = self._orders[number]
                order.state = TradeState.CLOSED
                order.closed_at = datetime.fromisoformat(entry["at"])
            case "notify":
                order = self._orders[number]
                order.notified += 1
                order.acknowledged += entry["ok"]


def read_expiry(time_expire: str, placed_at: datetime) -> datetime:
    """When an order placed now can no longer be paid. Outside 1 minute … 90 days it is moved silently."""
    if not time_expire:
        return placed_at + _USUAL
    try:
        wanted = datetime.fromisoformat(time_expire)
    except ValueError:
        wanted = None
    if wanted is None or wanted.tzinfo is None or "T" not in time_expire:
        raise Refusal(400, "PARAM_ERROR", "time_expire 格式不正确，应为 2018-06-08T10:34:56+08:00")
    return min(max(wanted.astimezone(UTC), placed_at + _SHORTEST), placed_at + _LONGEST)


def _placed_entry(order: Order) -> dict[str, Any]:
    return {
        "out_trade_no": order.out_trade_no,
        "description": order.description,
        "amount_fen": order.amount_fen,
        "currency": order.currency,
        "notify_url": order.notify_url,
        "attach": order.attach,
        "time_expire": order.time_expire,
        "placed_at": order.placed_at.isoformat(),
        "expires_at": order.expires_at.isoformat(),
    }
