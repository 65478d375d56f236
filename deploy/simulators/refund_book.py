"""Refunds in a gateway's own book. Plain rules, no wire form: each number once, never more than was paid."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from deploy.simulators.journal import Journal
from deploy.simulators.order_book import OrderBook, Refusal


class RefundStatus(StrEnum):
    PROCESSING = "PROCESSING"
    SUCCESS = "SUCCESS"
    ABNORMAL = "ABNORMAL"


@dataclass(slots=True)
class Refund:
    refund_no: str
    out_trade_no: str
    amount_fen: int
    at: datetime
    done_at: datetime
    """When a refund under way is over."""
    refund_id: str
    abnormal: bool = False

    def status(self, at: datetime) -> RefundStatus:
        if self.abnormal:
            return RefundStatus.ABNORMAL
        return RefundStatus.SUCCESS if at >= self.done_at else RefundStatus.PROCESSING


class RefundBook:
    """A script may say how long a refund is under way (`takes`), and how the next ones go wrong."""

    def __init__(self, journal: Journal, orders: OrderBook) -> None:
        self._journal = journal
        self._orders = orders
        self._refunds: dict[str, Refund] = {}
        self.takes = timedelta(0)
        self.refusing: list[str] = []
        self.abnormal = 0
        self.reached: Counter[str] = Counter()
        for entry in journal.entries():
            self._apply(entry)

    def find(self, refund_no: str) -> Refund | None:
        return self._refunds.get(refund_no)

    def all(self) -> list[Refund]:
        """In the order in which they were asked for."""
        return list(self._refunds.values())

    def of_order(self, out_trade_no: str) -> list[Refund]:
        return [one for one in self._refunds.values() if one.out_trade_no == out_trade_no]

    def ask(self, out_trade_no: str, refund_no: str, amount_fen: int, at: datetime) -> tuple[Refund, bool]:
        """The refund of this number, and whether it is new. Raises Refusal."""
        known = self._refunds.get(refund_no)
        if known is not None:
            if (known.out_trade_no, known.amount_fen) != (out_trade_no, amount_fen):
                raise Refusal(400, "PARAM_ERROR", "退款单号重复且参数不一致")
            self.reached["asked again"] += 1
            return known, False
        order = self._orders.find(out_trade_no)
        if order is None or order.paid_at is None:
            raise Refusal(404, "RESOURCE_NOT_EXISTS", "订单不存在或未支付")
        if self.refusing:
            code = self.refusing.pop(0)
            self.reached[f"refused: {code}"] += 1
            raise Refusal(403 if code == "NOT_ENOUGH" else 400, code, "退款未受理")
        given = sum(one.amount_fen for one in self.of_order(out_trade_no) if not one.abnormal)
        if not 1 <= amount_fen <= order.amount_fen - given:
            raise Refusal(400, "INVALID_REQUEST", "订单金额或退款金额不符")
        abnormal = self.abnormal > 0
        self.abnormal -= abnormal
        entry = {
            "refund_no": refund_no,
            "out_trade_no": out_trade_no,
            "amount_fen": amount_fen,
            "at": at.isoformat(),
            "done_at": (at + self.takes).isoformat(),
            "refund_id": f"5030{len(self._refunds) + 1:024d}",
            "abnormal": abnormal,
        }
        self._journal.append(entry)
        self._apply(entry)
        return self._refunds[refund_no], True

    def totals(self, at: datetime) -> dict[str, int]:
        done = [one for one in self._refunds.values() if one.status(at) is RefundStatus.SUCCESS]
        return {
            "refunds": len(self._refunds),
            "done": len(done),
            "done_fen": sum(one.amount_fen for one in done),
        }

    def _apply(self, entry: dict[str, Any]) -> None:
        self._refunds[entry["refund_no"]] = Refund(
            entry["refund_no"],
            entry["out_trade_no"],
            entry["amount_fen"],
            datetime.fromisoformat(entry["at"]).replace(microsecond=0),
            datetime.fromisoformat(entry["done_at"]),
            entry["refund_id"],
            entry["abnormal"],
        )
