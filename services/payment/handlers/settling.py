"""Asking a gateway what became of an order: close it, then query it. Never inside a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import structlog

from contracts.cycle import Cycle
from services.chassis.db import Database
from services.chassis.vault import Vault
from services.payment.domain.asking_again import ask_again_at
from services.payment.domain.order import Order, Success
from services.payment.handlers.metrics import ORDERS
from services.payment.handlers.receiving import Mismatch, Taken, record_success
from services.payment.ports import (
    AlreadyPaid,
    Answer,
    Capability,
    ChannelError,
    ChannelUnavailable,
    OrderState,
    PaymentChannel,
)
from services.payment.repository import orders
from services.payment.repository.orders import Evidence

log = structlog.get_logger(__name__)

AT_ONCE = 32
# So many calls without an answer in a row, and the gateway is taken to be away: nobody waits for the rest.
GIVE_UP_AFTER = 32


class Settled(StrEnum):
    """What asking has come to."""

    PAID = "paid"
    UNPAID = "unpaid"
    NO_ANSWER = "no-answer"
    UNDECIDED = "undecided"  # it answered, and not with a last word: being paid, or nothing that fits


class _Closing(StrEnum):
    """What came of closing an order."""

    ENDED = "ended"
    UNKNOWN = "unknown"  # the gateway has not heard of it, and so ended nothing
    REFUSED = "refused"  # it stays as it is
    PAID = "paid"


# Asked after that, these say that the order was not and can no longer be paid. PAYING and REFUNDED say neither, and UNPAID only
# of what was ended: what can still be paid is unpaid as well. What is unknown lapses, if a code was given out (`orders.closed`).
_LAST_WORD: Final[Mapping[_Closing, frozenset[OrderState]]] = {
    _Closing.ENDED: frozenset({OrderState.UNPAID, OrderState.CLOSED, OrderState.UNKNOWN_ORDER}),
    _Closing.UNKNOWN: frozenset({OrderState.CLOSED, OrderState.UNKNOWN_ORDER}),
    _Closing.REFUSED: frozenset({OrderState.CLOSED}),
    _Closing.PAID: frozenset(),
}
_UNPAID: Final = _LAST_WORD[_Closing.ENDED]


@dataclass(frozen=True)
class Gateways:
    """The channels by name, and what is needed to write down what they say."""

    channels: Mapping[str, PaymentChannel]
    database: Database
    cycle: Cycle
    vault: Vault
    refund_soon: Callable[[], None]
    """Called after a commit that made money due back."""

    def remembers(self, channel: str) -> bool:
        """Whether an order that it does not know can surely not be paid."""
        return Capability.REMEMBERS in self.channels[channel].capabilities

    async def settle(self, order: Order) -> Settled:
        """Close an order and ask about it, then write the answer down."""
        answer = await _ask(self.channels.get(order.channel), order)
        try:
            outcome = answer if isinstance(answer, Settled) else await self.take(order, answer)
        except Mismatch as mismatch:
            # Signed, for our order, and still not our money: a person has to look, nobody is forfeited over it.
            log.error("answer-does-not-fit", order_no=order.order_no, reason=mismatch.reason)
            outcome = Settled.UNDECIDED
        if outcome in {Settled.NO_ANSWER, Settled.UNDECIDED}:
            await self._ask_again(order)
        ORDERS.labels(order.channel, outcome).inc()
        return outcome

    async def settle_all(self, undecided: Sequence[Order]) -> None:
        """The same for many, a bounded number at a time. A gateway that is away is soon left alone."""
        line = _Line(asyncio.Semaphore(AT_ONCE))
        await asyncio.gather(*(self._in_line(line, order) for order in undecided))

    async def _in_line(self, line: _Line, order: Order) -> None:
        async with line.places:
            if line.silent.get(order.channel, 0) >= GIVE_UP_AFTER:
                await self._ask_again(order)
                return
            outcome = await self.settle(order)
            # Read again: others in the line have counted meanwhile.
            silent = line.silent.get(order.channel, 0)
            line.silent[order.channel] = silent + 1 if outcome is Settled.NO_ANSWER else 0

    async def take(self, order: Order, answer: Answer) -> Settled:
        """Write down a last word. Raises Mismatch."""
        evidence = Evidence("query", answer.order_no, answer.state, answer.raw, answer.signature)
        async with self.database.unit_of_work() as uow:
            if answer.state in _UNPAID:
                await orders.closed(uow, self.vault, evidence)
                return Settled.UNPAID
            taken = await record_success(
                uow,
                order.channel,
                _success(answer),
                evidence,
                cycle=self.cycle,
                vault=self.vault,
                refund_soon=self.refund_soon,
            )
            if taken is Taken.DUPLICATE:
                # Decided meanwhile by a notice; if it was not, it must not be asked about for ever.
                attempts = order.attempts + 1
                await orders.ask_again(uow, order.order_no, attempts, ask_again_at(uow.at, attempts))
            return Settled.PAID

    async def _ask_again(self, order: Order) -> None:
        attempts = order.attempts + 1
        async with self.database.unit_of_work() as uow:
            await orders.ask_again(uow, order.order_no, attempts, ask_again_at(uow.at, attempts))


@dataclass
class _Line:
    places: asyncio.Semaphore
    silent: dict[str, int] = field(default_factory=dict)


async def _ask(channel: PaymentChannel | None, order: Order) -> Answer | Settled:
    """The gateway's last word on an order; where it gave none that can be relied upon, NO_ANSWER or UNDECIDED."""
    if channel is None:
        # Its account was taken out of the settings: whoever ordered there is held until it is back, and nobody else.
        log.error("order-without-channel", channel=order.channel, order_no=order.order_no)
        return Settled.NO_ANSWER
    try:
        closing, word = await _close(channel, order)
        answer = await channel.query(order.order_no)
        if closing is _Closing.UNKNOWN and answer.state is OrderState.UNPAID:
            # Its code was opened in between: now there is something to close.
            closing, word = await _close(channel, order)
            answer = await channel.query(order.order_no)
    except ChannelUnavailable as error:
        log.warning("gateway-silent", channel=order.channel, reason=error.reason)
        return Settled.NO_ANSWER
    except ChannelError as error:
        log.error("gateway-refuses-to-answer", channel=order.channel, reason=str(error))
        return Settled.NO_ANSWER
    if answer.state is OrderState.PAID and answer.paid_at and answer.amount_fen and answer.transaction_id:
        return answer
    if answer.state in _LAST_WORD[closing]:
        return answer
    if closing is _Closing.REFUSED:
        log.error(
            "gateway-refuses-to-close",
            channel=order.channel,
            order_no=order.order_no,
            reason=word,
            state=answer.state,
        )
    else:
        log.warning(
            "gateway-undecided",
            channel=order.channel,
            order_no=order.order_no,
            close=closing,
            state=answer.state,
        )
    return Settled.UNDECIDED


async def _close(channel: PaymentChannel, order: Order) -> tuple[_Closing, str]:
    """What came of it, and the gateway's word for a no: it may still know what became of the order.

    Raises ChannelUnavailable.
    """
    try:
        closed = await channel.close(order.order_no)
    except ChannelUnavailable:
        raise
    except ChannelError as error:
        return _Closing.REFUSED, str(error)
    if isinstance(closed, AlreadyPaid):
        return _Closing.PAID, ""
    return (_Closing.ENDED if closed.known else _Closing.UNKNOWN), ""


def _success(answer: Answer) -> Success:
    if answer.paid_at is None or answer.amount_fen is None or answer.transaction_id is None:
        raise Mismatch("incomplete-answer")
    return Success(
        order_no=answer.order_no,
        transaction_id=answer.transaction_id,
        amount_fen=answer.amount_fen,
        currency=answer.currency or "",
        paid_at=answer.paid_at,
    )
