"""What a gateway's words on closing an order and on the order itself come to, in every pair."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest
import structlog

from services.payment.domain.order import Order, OrderStatus
from services.payment.handlers.settling import Settled, _ask
from services.payment.ports import (
    AlreadyPaid,
    Answer,
    ChannelRefused,
    ChannelUnavailable,
    Closed,
    OrderState,
    PaymentChannel,
)

AT = datetime(2024, 1, 30, 4, tzinfo=UTC)
NO = "20240129AAAAAAAAAAAAAAAA"
ORDER = Order(NO, UUID(int=7), "gateway", 20_000, "CNY", OrderStatus.OPEN, AT, AT)
ENDED, UNKNOWN, PAID = Closed(NO), Closed(NO, known=False), AlreadyPaid(NO)
REFUSED = ChannelRefused("PARAM_ERROR", 400)
SILENT = ChannelUnavailable("time-out")

Word = Closed | AlreadyPaid | Exception


class Gateway:
    """Says what it was told to, one after the other; the last one again and again."""

    name = "gateway"

    def __init__(self, closes: list[Word], says: list[OrderState | Exception]) -> None:
        self._closes, self._says = self._turns(closes), self._turns(says)
        self.closed = 0

    @staticmethod
    def _turns(words: list[Any]) -> Iterator[Any]:
        yield from words
        while True:
            yield words[-1]

    async def close(self, order_no: str) -> Closed | AlreadyPaid:
        self.closed += 1
        word = next(self._closes)
        if isinstance(word, Exception):
            raise word
        return cast("Closed | AlreadyPaid", word)

    async def query(self, order_no: str) -> Answer:
        state = next(self._says)
        if isinstance(state, Exception):
            raise state
        paid = state is OrderState.PAID
        return Answer(
            order_no, state, AT if paid else None, 20_000 if paid else None, "CNY" if paid else None,
            "T1" if paid else None, 200, b"{}", {},
        )  # fmt: skip


async def asked(closes: list[Word], says: list[OrderState | Exception]) -> OrderState | Settled:
    found = await _ask(cast("PaymentChannel", Gateway(closes, says)), ORDER)
    return found if isinstance(found, Settled) else found.state


LAST_WORDS = {
    (0, OrderState.UNPAID), (0, OrderState.CLOSED), (0, OrderState.UNKNOWN_ORDER),
    (1, OrderState.CLOSED), (1, OrderState.UNKNOWN_ORDER),
    (2, OrderState.CLOSED),
}  # fmt: skip


@pytest.mark.parametrize("state", list(OrderState))
@pytest.mark.parametrize("closing", range(4), ids=["ended", "unknown", "refused", "paid"])
async def test_only_what_can_no_longer_be_paid_is_unpaid_and_what_is_paid_always_counts(
    closing: int, state: OrderState
) -> None:
    found = await asked([(ENDED, UNKNOWN, REFUSED, PAID)[closing]], [state])
    if state is OrderState.PAID or (closing, state) in LAST_WORDS:
        assert found is state
    else:
        assert found is Settled.UNDECIDED


async def test_what_somebody_opens_between_our_close_and_our_query_is_closed_once_more() -> None:
    gateway = Gateway([UNKNOWN, ENDED], [OrderState.UNPAID, OrderState.CLOSED])
    found = await _ask(cast("PaymentChannel", gateway), ORDER)
    assert isinstance(found, Answer)
    assert (found.state, gateway.closed) == (OrderState.CLOSED, 2)


@pytest.mark.parametrize("closes", [ENDED, UNKNOWN, REFUSED, PAID])
async def test_without_an_answer_to_the_query_nothing_is_known(closes: Word) -> None:
    for silent in (SILENT, REFUSED):
        assert await asked([closes], [silent]) is Settled.NO_ANSWER
    assert await asked([SILENT], [OrderState.CLOSED]) is Settled.NO_ANSWER


async def test_a_refusal_to_close_is_told_with_its_order_and_only_where_the_gateway_answers() -> None:
    with structlog.testing.capture_logs() as lines:
        await asked([REFUSED], [REFUSED])
        await asked([REFUSED], [OrderState.UNPAID])
        await asked([REFUSED], [OrderState.CLOSED])
    assert [(line["event"], line.get("order_no")) for line in lines] == [
        ("gateway-refuses-to-answer", None),
        ("gateway-refuses-to-close", NO),
    ]
