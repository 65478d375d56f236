"""Bugs planted on purpose: each takes one protection away, and the interleavings must find it by one of the invariants named."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final
from unittest.mock import patch

from services.chassis.db import UnitOfWork
from services.chassis.vault import Vault
from services.payment.domain.obligation import Obligation, Verdict
from services.payment.domain.order import Success
from services.payment.handlers import closing, settling
from services.payment.ports import Answer, OrderState
from services.payment.repository import orders, receipts
from tests.interleavings.runner import Mutation
from tests.support.switched_off import replaced, without

_LATER: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Planted:
    """A protection that is gone, and who must notice within so many batches, from 0 on."""

    mutation: Mutation
    noticed_by: frozenset[str]
    within: int = 10


@contextlib.contextmanager
def _both(*mutations: Mutation) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for mutation in mutations:
            stack.enter_context(mutation())
        yield


@contextlib.contextmanager
def _a_microsecond_late() -> Iterator[None]:
    """In time is what is paid at the very instant of the close."""
    receive = Obligation.receive

    def too_kind(owed: Obligation, success: Success, order_amount_fen: int) -> Verdict:
        verdict = receive(replace(owed, closes_at=owed.closes_at + _LATER), success, order_amount_fen)
        return replace(verdict, obligation=replace(verdict.obligation, closes_at=owed.closes_at))

    plain = replaced(receipts, "_STATEMENT", "t.paid_at < o.closes_at", "t.paid_at <= o.closes_at")
    with patch.object(Obligation, "receive", too_kind), plain:
        yield


@contextlib.contextmanager
def _nobody_is_asked() -> Iterator[None]:
    """Orders under way count as unpaid at the close, without a word of the gateway."""

    async def decide(gateways: settling.Gateways, at: Any) -> None:
        async with gateways.database.unit_of_work(at) as uow:
            await uow.changed(
                "update orders set status = 'closed', decided_at = $1 "
                "where status in ('creating', 'open', 'unknown', 'lapsing')",
                at,
            )

    with patch.object(closing, "decide_open_orders", decide):
        yield


@contextlib.contextmanager
def _unknown_is_unpaid() -> Iterator[None]:
    """A gateway that gives no answer has said that nothing was paid."""
    ask: Callable[..., Any] = settling._ask

    async def believing(channel: Any, order: Any) -> Answer | None:
        answer: Answer | None = await ask(channel, order)
        if answer is not None:
            return answer
        return Answer(order.order_no, OrderState.CLOSED, None, None, None, None, 200, b"{}", {})

    with patch.object(settling, "_ask", believing):
        yield


@contextlib.contextmanager
def _lets_no_code_lapse() -> Iterator[None]:
    """What a gateway does not know counts as closed, although its code can still be opened."""
    closed = orders.closed

    async def at_once(uow: UnitOfWork, vault: Vault, evidence: orders.Evidence) -> bool:
        state = "closed" if evidence.state == "unknown-order" else evidence.state
        return await closed(uow, vault, replace(evidence, state=state))

    with patch.object(orders, "closed", at_once):
        yield


_UNDECIDED: Final = r"and not exists \(select from orders r where r\.registration_id = o\.registration_id and r\.status in \([^)]*\)\)"
_PUT_OFF: Final = r"and not\s+\(o\.closes_at < coalesce.*?, false\)\)"

PLANTED: Final[dict[str, Planted]] = {
    "version and row lock": Planted(
        lambda: _both(
            lambda: without(r"for update( of \w+)?( skip locked)?"),
            lambda: without(r"and status = \$2 and version = \$3"),
        ),
        frozenset({"I1", "I2", "I3", "I10"}),
    ),
    "paid-at to the microsecond": Planted(_a_microsecond_late, frozenset({"I7"}), 60),
    "query before forfeiting": Planted(_nobody_is_asked, frozenset({"I7"})),
    "no answer is no proof": Planted(_unknown_is_unpaid, frozenset({"I7"}), 30),
    "undecided orders in the sweep": Planted(lambda: without(_UNDECIDED), frozenset({"I7"})),
    "success is never undone": Planted(
        lambda: without(r"and r\.status in \('creating', 'lapsing', 'open', 'unknown'\)(?= returning 1)"),
        frozenset({"I1"}),
    ),
    "a code let go": Planted(_lets_no_code_lapse, frozenset({"I7"}), 30),
    "a close that is being decided about": Planted(lambda: without(f"(?s){_PUT_OFF}"), frozenset({"I7"}), 30),
}
